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
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mmsniper.apis.predictions import PredictedData
from mmsniper.convert import load_config
from mmsniper.utils.coco_matching import FOUND_TWICE, KINDS, Explanation, Matching, explain
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.utils.files import check_folder, utf8_name, write_json
from mmsniper.visualization import FalsePositive, draw_false_positives, save_figure, surroundings
from mmsniper.visualization.false_positives import Surroundings
from mmsniper.visualization.picture import picture_limits

PER_PAGE = 25
LONGEST_NAME = 46  # letters that have room above a picture
Row = dict[str, Any]


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


def entries(
    data: PredictedData, matching: Matching, chosen: NDArray[np.int64], explanation: Explanation
) -> list[Row]:
    """A row of each false positive, boxes xyxy in original px."""
    detections, objects = matching.detections.take(chosen), matching.objects
    rows = []
    for i, (image, label) in enumerate(zip(detections.image.tolist(), detections.label.tolist())):
        there, nearest = int(explanation.object[i]), None
        if there >= 0:
            nearest = dict(
                box=objects.boxes[there].tolist(),
                **{'class': data.classes[objects.label[there]]},
                iou=round(float(explanation.iou[i]), 4),
            )
        rows.append(
            {
                'rank': i + 1,
                'image': utf8_name(data.paths[image]),
                'image_id': data.images[image]['id'],
                'box': [round(side, 2) for side in detections.boxes[i].tolist()],
                'class': data.classes[label],
                'score': round(float(matching.scores[chosen[i]]), 4),
                'kind': str(explanation.kind[i]),
                'object': nearest,
            }
        )
    return rows


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many there are of each kind and class, those of none left out."""
    counted = {kind: Counter(row['class'] for row in rows if row['kind'] == kind) for kind in KINDS}
    return {kind: dict(of_class.most_common()) for kind, of_class in counted.items() if of_class}


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


def views(
    data: PredictedData, matching: Matching, chosen: NDArray[np.int64], explanation: Explanation
) -> list[FalsePositive]:
    """What to draw of each false positive. Every image is loaded once."""
    drawn: list[FalsePositive | None] = [None] * len(chosen)
    of_image = defaultdict(list)
    for i, image in enumerate(matching.detections.image[chosen].tolist()):
        of_image[image].append(i)
    for image, indices in progress(of_image.items(), 'pictures'):
        pixels = data.load(image)
        limits = picture_limits(pixels)
        for i in indices:
            where = surroundings(pixels, matching.detections.boxes[chosen[i]], limits)
            drawn[i] = view(data, matching, chosen, explanation, i, where)
    return drawn


def view(
    data: PredictedData,
    matching: Matching,
    chosen: NDArray[np.int64],
    explanation: Explanation,
    i: int,
    where: Surroundings,
) -> FalsePositive:
    """What to draw of the ``i``-th false positive."""
    detections, objects, detection = matching.detections, matching.objects, chosen[i]
    image, label, box = (
        values[detection] for values in (detections.image, detections.label, detections.boxes)
    )
    x0, y0, x1, y1 = where.window
    shown = (objects.image == image) & (
        (objects.boxes[:, :2] < (x1, y1)) & (objects.boxes[:, 2:] > (x0, y0))
    ).all(axis=1)
    crowd, shown = shown & matching.crowd, shown & ~matching.crowd
    kind, there = str(explanation.kind[i]), explanation.object[i]
    width, height = box[2:] - box[:2]
    what = f'{width:.0f}×{height:.0f} px'
    if there >= 0:
        hundredths = math.floor(100 * explanation.iou[i])  # 0.499 is no match, and not 0.50
        what += f'; {data.classes[objects.label[there]]} at IoU {hundredths / 100:.2f}'
    finders = np.flatnonzero(matching.found == there) if kind == FOUND_TWICE else []
    name = utf8_name(Path(data.paths[image]).name)
    return FalsePositive(
        where,
        box,
        kind,
        f'{data.classes[label]} {matching.scores[detection]:.2f}',
        (what, f'{i + 1}. ' + (name if len(name) <= LONGEST_NAME else f'…{name[-LONGEST_NAME:]}')),
        objects.boxes[shown],
        objects.label[shown] == label,
        [data.classes[of] for of in objects.label[shown]],
        objects.boxes[crowd],
        detections.boxes[np.asarray(finders, int)],
    )


if __name__ == '__main__':
    main()
