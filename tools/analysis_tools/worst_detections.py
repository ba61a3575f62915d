"""Draw the most wrong detections of a test: false positives of the highest score, and say why.

    python tools/test.py CONFIG CHECKPOINT --out predictions.pkl
    python tools/analysis_tools/worst_detections.py CONFIG predictions.pkl --out-dir work_dirs/worst

A false positive is a detection that matches no object of its class at IoU 0.5, as COCO's evaluation
matches them. Each is of one kind:

    background          no object overlaps at IoU 0.1
    badly placed        an object of its class overlaps, at less than IoU 0.5
    another class       an object of another class overlaps at IoU 0.5
    near another class  only objects of other classes overlap, at less than IoU 0.5
    found twice         an object of its class, which another detection has already

Writes worst_1.png and so on, and worst.json with every detection drawn.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mmsniper.apis.predictions import PredictedData
from mmsniper.apis.worst_detections import Row, counts, entries, views
from mmsniper.convert import load_config
from mmsniper.utils.coco_matching import explain
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
)
from mmsniper.utils.files import check_folder, utf8_name, write_json
from mmsniper.visualization import draw_false_positives, save_figure

PER_PAGE = 25


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config of the test, with a CocoDataset')
    parser.add_argument('predictions', metavar='PREDICTIONS.pkl', help='of tools/test.py --out')
    parser.add_argument('--out-dir', required=True, type=Path, help='folder of the results')
    parser.add_argument(
        '--num', type=at_least(1), default=50, help='number of false positives to draw'
    )
    parser.add_argument(
        '--recall',
        type=float,
        metavar='R',
        help='also count, by kind and class, all false positives of at least the score at which '
        'this share of the objects is found; others are not drawn',
    )
    return parser.parse_args(argv)


@exit_on_error(RuntimeError)  # of an image that cannot be read
def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run the command; returns an entry for each false positive that is drawn."""
    args, console = parse_args(argv), Console(markup=False)
    check_folder(args.out_dir, '--out-dir')
    data = PredictedData.from_config(load_config(args.config, args.cfg_options))
    matching = data.match(args.predictions)
    threshold = -np.inf if args.recall is None else matching.threshold_at_recall(args.recall)
    wrong = matching.false_positives(threshold)
    worst = wrong[: args.num]
    explanation = explain(matching, worst)
    rows = entries(data, matching, worst, explanation)
    content: dict[str, Any] = dict(detections=rows)
    show(f'The {len(rows)} most wrong of {len(wrong)} false positives', rows, console)
    if args.recall is not None:
        counted = entries(data, matching, wrong, explain(matching, wrong))
        what = f'All {len(wrong)} false positives at recall {args.recall:g}, score {threshold:.3f}'
        show(what, counted, console)
        content.update(recall=args.recall, score=threshold, all=counts(counted))
    write_json(args.out_dir / 'worst.json', content)
    drawn = views(data, matching, worst, explanation)
    pages = [drawn[i : i + PER_PAGE] for i in range(0, len(drawn), PER_PAGE)]
    for number, page in enumerate(pages, start=1):
        file = utf8_name('/'.join(Path(args.predictions).parts[-2:]))
        title = f'{file}: the most wrong detections, page {number} of {len(pages)}'
        figure = draw_false_positives(page, title=title)
        save_figure(figure, args.out_dir / f'worst_{number}.png')
    names = ['worst.json', *(f'worst_{number}.png' for number in range(1, len(pages) + 1))]
    console.print(f'in {args.out_dir}: {", ".join(names)}', highlight=False, soft_wrap=True)
    return rows


def show(what: str, rows: Sequence[Row], console: Console) -> None:
    """Print how many there are of each kind, by class."""
    counted = counts(rows)
    classes = [name for name, _ in Counter(row['class'] for row in rows).most_common()]
    console.print(what, highlight=False)
    table = Table()
    table.add_column('class')
    for column in (*counted, 'all'):
        table.add_column(column, justify='right')
    for name in classes:
        numbers = [counted[kind].get(name, 0) for kind in counted]
        table.add_row(name, *map(str, numbers), str(sum(numbers)))
    totals = [sum(of_class.values()) for of_class in counted.values()]
    table.add_row('all', *map(str, totals), str(sum(totals)))
    console.print(table)


if __name__ == '__main__':
    main()
