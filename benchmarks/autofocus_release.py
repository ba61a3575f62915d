"""AutoFocus's settings in which the authors' release differs from ours, one by one and together.

One model of a training, tested on the validation images of its data:

- 'edge in the image': what lies within 10 px *of the original* of an edge of its chip is dropped,
  instead of 10 px of the level;
- 'narrow fine range': the fine level's detections count up to 15/16 of its training range (75 px
  for 80 in the release); and 'wide', up to 9/8 (90 for 80), as its SNIPER does;
- '300 proposals' of a level instead of the config's.

Writes benchmarks/results/autofocus_release_NAME.json and .md.

    python benchmarks/autofocus_release.py toy work_dirs/autofocus_toy/epoch_14.pth
    python benchmarks/autofocus_release.py bccd work_dirs/autofocus_bccd/epoch_8.pth
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from autofocus import BASELINES, CONFIGS, Bench, Way, measure
from mmdet.utils import register_all_modules

from harness.results import markdown_table, write_results
from mmsniper.chips import ScalePyramid
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error

ROOT = Path(__file__).resolve().parents[1]
NARROW, WIDE = 75 / 80, 90 / 80
"""Ends of the fine level's range at test time, over that of training: AutoFocus's and SNIPER's."""

COLUMNS = ('settings', 'AP', 'AP small', 'detections', 'Mpx')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('name', choices=CONFIGS, help='which data set')
    parser.add_argument('checkpoint', type=Path, help='of the AutoFocus config of that data set')
    parser.add_argument('--images', type=at_least(1), help='number of images [all]')
    parser.add_argument(
        '--label',
        default='',
        help='what is particular of the training; ends the name of the results',
    )
    parser.add_argument('--out-dir', type=Path, default=ROOT / 'benchmarks' / 'results')
    return parser.parse_args(argv)


def fine_range(pyramid: Mapping[str, Any], factor: float) -> ScalePyramid:
    """The pyramid, with the fine level's test range up to ``factor`` times its training range."""
    pyramid = deepcopy(pyramid)
    lo, hi = pyramid['levels'][0]['valid_range']
    pyramid['levels'][0]['test_range'] = (lo, hi * factor)
    return ScalePyramid.from_config(pyramid)


def settings_of(bench: Bench) -> dict[str, dict[str, Any]]:
    """What differs from the config in each row."""
    model = bench.model
    rpn = {**(model.level_rpn or {}), 'nms_pre': 1000, 'max_per_img': 300}
    edge = dict(edge_at=lambda scale: model.edge)
    narrow = dict(pyramid=fine_range(bench.cfg.pyramid, NARROW))
    return {
        'ours': {},
        'edge in the image': edge,
        'narrow fine range': narrow,
        'wide fine range': dict(pyramid=fine_range(bench.cfg.pyramid, WIDE)),
        '300 proposals': dict(level_rpn=rpn),
        'all three of the release': {**edge, **narrow, 'level_rpn': rpn},
    }


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    register_all_modules(init_default_scope=True)
    bench = Bench(CONFIGS[args.name], args.checkpoint, BASELINES[args.name], args.images)
    given, rows = bench.model.thresholds, []
    ways = [
        Way(name, dict(settings=name), bench.focus(given, bench.focus_head, **settings), 1)
        for name, settings in settings_of(bench).items()
    ]
    for name, found in zip(settings_of(bench), measure(bench, ways, 1).values()):
        accuracy = bench.evaluate(found.detections)
        rows.append(
            dict(settings=name, **accuracy, detections=len(found.detections), pixels=found.pixels)
        )
        print(rows[-1], flush=True)
    summary = dict(
        data=args.name, label=args.label, images=len(bench.infos), thresholds=list(given), rows=rows
    )
    label = f'_{args.label}' if args.label else ''
    out = args.out_dir / f'autofocus_release_{args.name}{label}'
    write_results(out, summary, page(summary))


def page(summary: Mapping[str, Any]) -> str:
    """The Markdown page of a result."""
    name, label = summary['data'], summary['label']
    cells = [
        [
            row['settings'],
            f'{row["AP"]:.3f}',
            f'{row["AP_small"]:.3f}',
            f'{row["detections"]}',
            f'{row["pixels"] / 1e6:.1f}',
        ]
        for row in summary['rows']
    ]
    command = f'autofocus_release.py {name} CHECKPOINT' + (f' --label {label}' if label else '')
    lines = [
        f"# AutoFocus by the release's settings: {name}{', ' + label if label else ''}",
        '',
        f'{summary["images"]} validation images, one model of one training, thresholds '
        f'{", ".join(f"{t:g}" for t in summary["thresholds"])}. '
        f'Made by `python benchmarks/{command}`.',
        '',
        *markdown_table(COLUMNS, cells),
    ]
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
