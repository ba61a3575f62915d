"""Train configs on the same number of pixels, several seeds each, and compare them.

Writes every run, means and standard deviations to benchmarks/results/NAME.json and a table to
benchmarks/results/NAME.md. Interrupted, it goes on where it was when it is started again.

    python benchmarks/compare_training.py bccd --jobs 4
    python benchmarks/compare_training.py toy --jobs 2
    python benchmarks/compare_training.py range_first_bccd --jobs 2
    python benchmarks/compare_training.py mine --configs a=configs/a.py b=configs/b.py --pixels 1e9
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.comparison import (
    Comparison,
    Contestant,
    execute_all,
    plan_runs,
    summarise,
    unequal_pixels,
)
from harness.comparison_curves import draw_curves
from harness.comparison_options import (
    Preset,
    add_comparison_options,
    noted_command,
    parsed_options,
    with_options,
)
from harness.comparison_tables import full_table, markdown
from harness.demo import make_toy_data
from harness.hituav import (
    HITUAV,
    HITUAV_CAUSES,
    HITUAV_HELD_OUT,
    YOLOX_HITUAV,
    YOLOX_HITUAV_HELD_OUT,
)
from harness.results import write_results
from harness.training_run import RunError, exit_on_sigterm
from mmsniper.utils.command_line import command_parser, exit_on_error

ROOT = Path(__file__).resolve().parents[1]
ROTATED = 'configs/baselines/rotated_faster_rcnn_r18_single_scale_toy.py'


def _range_first(config: str) -> Comparison:
    """SNIPERRPNHead's rule against none."""
    return Comparison(
        configs={'before': config, 'after': config},
        pixels=300e6,
        own_options={'after': {'sniper.range_first': True}},
    )


def _by_area(config: str, pixels: float) -> Comparison:
    """A chip's samples and proposals: by hand, as many as an image has, or by its area."""
    of_an_image = {
        'model.train_cfg.rpn_proposal.nms_pre': 2000,
        'model.train_cfg.rpn_proposal.max_per_img': 1000,
        'model.train_cfg.rcnn.sampler.num': 512,
    }
    return Comparison(
        configs=dict.fromkeys(['by hand', "an image's", 'by area'], config),
        pixels=pixels,
        own_options={
            "an image's": of_an_image,
            'by area': {**of_an_image, 'sniper.samples_by_area': True},
        },
    )


def _decoding(config: str, pixels: float) -> Comparison:
    """Each chip decodes its image, or images are kept, or decoded no finer than needed."""
    own_options = {'kept': {'sniper.cache_mb': 200}, 'reduced': {'sniper.reduced_jpegs': True}}
    return Comparison(
        configs=dict.fromkeys(['for each chip', *own_options], config),
        pixels=pixels,
        own_options=own_options,
    )


_BY_AREA = (
    "Samples of the RoI head and proposals of a chip in training. By hand: 64 and 300. An image's: "
    "512 and 1000. By area: its area's share of those (sniper.samples_by_area). "
)
_DECODING = (
    'How images are decoded. For each chip: whole, in any order. Kept: the chips of an image come '
    'soon after each other to a worker that keeps it (sniper.cache_mb). Reduced: at 1/2, 1/4 or '
    '1/8 where a level needs no more, in testing as well (sniper.reduced_jpegs). '
)
_RANGE_FIRST = (
    "Before: the RPN proposes its best boxes of any size in training, of which the level's "
    "sizes are learned. After: as many, of the level's sizes, chosen before NMS. "
)
PRESETS = {
    'bccd': Preset(
        'BCCD blood cells: SNIPER against whole images',
        'The same Faster R-CNN R-18, trained from scratch on the 205 training images of BCCD '
        '(640x480 px) and tested on its 87 validation images.',
        Comparison(
            configs={
                'SNIPER': 'configs/sniper/faster_rcnn_r18_sniper_bccd.py',
                'single-scale': 'configs/baselines/faster_rcnn_r18_single_scale_bccd.py',
                'multi-scale': 'configs/baselines/faster_rcnn_r18_multi_scale_bccd.py',
            },
            pixels=300e6,
        ),
    ),
    'toy': Preset(
        'Toy scenes: SNIPER against whole images at one scale',
        'The same small Faster R-CNN, trained from scratch on the 240 training scenes of the toy '
        'data set (about 1000x1000 px, small objects are sparse) and tested on its 60 validation '
        'scenes.',
        Comparison(
            configs={
                'SNIPER': 'configs/sniper/faster_rcnn_r18_sniper_toy.py',
                'single-scale': 'configs/baselines/faster_rcnn_r18_single_scale_toy.py',
            },
            pixels=300e6,
        ),
        prepare=make_toy_data,
    ),
    'rotated_toy': Preset(
        'Rotated toy scenes: SNIPER against whole images at one scale',
        "The same small Faster R-CNN with MMRotate's rotated boxes, trained from scratch on the "
        '240 training scenes of the rotated toy data set (about 1000x1000 px, elongated objects at '
        'any angle) and tested on its 60 validation scenes, with the overlaps of rotated boxes.',
        Comparison(
            configs={
                'SNIPER': 'configs/sniper/rotated_faster_rcnn_r18_sniper_toy.py',
                'single-scale': ROTATED,
            },
            pixels=150e6,
        ),
        prepare=partial(make_toy_data, ROTATED, rotated=True),
    ),
    'hituav': HITUAV,
    'hituav_held_out': HITUAV_HELD_OUT,
    'hituav_causes': HITUAV_CAUSES,
    'yolox_hituav': YOLOX_HITUAV,
    'yolox_hituav_held_out': YOLOX_HITUAV_HELD_OUT,
    'by_area_bccd': Preset(
        'BCCD blood cells: samples and proposals by area',
        _BY_AREA + 'The SNIPER config of BCCD, otherwise as it is.',
        _by_area('configs/sniper/faster_rcnn_r18_sniper_bccd.py', 150e6),
    ),
    'by_area_hituav': Preset(
        'HIT-UAV: samples and proposals by area',
        _BY_AREA + 'The SNIPER config of HIT-UAV with positive chips only, otherwise as it is.',
        _by_area('configs/sniper/faster_rcnn_yolox_nano_positive_chips_hituav.py', 300e6),
    ),
    'decoding_bccd': Preset(
        'BCCD blood cells: how images are decoded',
        _DECODING + 'The SNIPER config of BCCD, otherwise as it is.',
        _decoding('configs/sniper/faster_rcnn_r18_sniper_bccd.py', 150e6),
    ),
    'decoding_hituav': Preset(
        'HIT-UAV: how images are decoded',
        _DECODING + 'The SNIPER config of HIT-UAV with positive chips only, otherwise as it is.',
        _decoding('configs/sniper/faster_rcnn_yolox_nano_positive_chips_hituav.py', 300e6).only(
            ['for each chip', 'kept']  # no level is as coarse as half the size
        ),
    ),
    'range_first_bccd': Preset(
        "BCCD blood cells: proposals of the level's sizes first",
        _RANGE_FIRST + 'The SNIPER config of BCCD, otherwise as it is.',
        _range_first('configs/sniper/faster_rcnn_r18_sniper_bccd.py'),
    ),
    'range_first_toy': Preset(
        "Toy scenes: proposals of the level's sizes first",
        _RANGE_FIRST + 'The SNIPER config of the toy scenes, otherwise as it is.',
        _range_first('configs/sniper/faster_rcnn_r18_sniper_toy.py'),
        prepare=make_toy_data,
    ),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'name', help=f'{" or ".join(PRESETS)}, or a name of your own together with --configs'
    )
    parser.add_argument(
        '--configs', nargs='+', metavar='NAME=CONFIG', help='what is compared, unless a preset'
    )
    parser.add_argument(
        '--variant',
        nargs='+',
        action='append',
        default=[],
        metavar=('NAME', 'KEY=VALUE'),
        help='options of one of the --configs, as --cfg-options; may be given for each',
    )
    parser.add_argument('--only', nargs='+', metavar='NAME', help='of the contestants [all]')
    parser.add_argument(
        '--report-only', action='store_true', help='train nothing, report what is finished'
    )
    add_comparison_options(parser, 'work_dirs/compare/NAME', ROOT / 'benchmarks' / 'results')
    args = parser.parse_args(argv)
    if (args.configs is None) == (args.name not in PRESETS):
        parser.error(
            f'name a preset ({", ".join(PRESETS)}), or give --configs and another name; got '
            f'{args.name} {"without" if args.configs is None else "with"} --configs'
        )
    if args.configs and (args.pixels is None or any('=' not in c for c in args.configs)):
        parser.error('--configs needs --pixels, and each config as NAME=CONFIG')
    names = [item.split('=', 1)[0] for item in args.configs or ()]
    if unknown := [name for name, *_ in args.variant if name not in names]:
        parser.error(f'--variant {unknown[0]}: the names of --configs are {names}')
    args.variant = {name: parsed_options(options) for name, *options in args.variant}
    return args


def preset_of(args: argparse.Namespace) -> Preset:
    """The preset that the arguments name or describe.

    One of several parts that is told its pixels or seeds has no other parts: the first that has
    all contestants of ``--only``.
    """
    if args.configs:
        configs = dict(item.split('=', 1) for item in args.configs)
        preset = Preset(args.name, '', Comparison(configs, args.pixels, own_options=args.variant))
    else:
        preset = PRESETS[args.name]
    parts = list(preset.parts)
    if args.pixels is not None or args.seeds is not None:
        parts = [part for part in parts if set(args.only or ()) <= set(part.configs)][:1] or parts
    parts = [with_options(part, args) for part in parts]
    if args.only:
        kept = [[name for name in args.only if name in part.configs] for part in parts]
        parts = [part.only(names) for part, names in zip(parts, kept) if names]
        if not parts:
            raise RunError(
                f'--only {" ".join(args.only)}: the contestants are '
                f'{", ".join(preset.comparison.configs)}'
            )
    return replace(preset, comparison=parts[0], others=tuple(parts[1:]))


def command_line(argv: list[str]) -> str:
    """The command that makes this result, without what does not matter to it."""
    return noted_command('benchmarks/compare_training.py', argv)


@exit_on_error(RunError)
def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    console = Console()
    work_dir = (args.work_dir or ROOT / 'work_dirs' / 'compare' / args.name).resolve()
    out = args.out_dir.resolve() / args.name
    os.chdir(ROOT)  # the configs' paths start here
    preset = preset_of(args)
    preset.prepare_all()
    with console.status('counting the pixels of an epoch'):
        planned = [plan_runs(part, ROOT, work_dir) for part in preset.parts]
    for item in (item for contestants in planned for item in contestants):
        console.print(
            f'{item.name}: {item.runs[0].max_epochs} epochs of '
            f'{item.pixels_per_epoch / 1e6:.1f} Mpx'
        )
    for part, contestants in zip(preset.parts, planned):
        for warning in unequal_pixels(part, contestants):
            console.print(f'warning: {warning}', style='yellow', highlight=False, soft_wrap=True)
    try:
        for contestants in [] if args.report_only else planned:
            execute_all(contestants, args.jobs, console)
    finally:  # what is finished is told even if a run has failed
        _report(preset, planned, out, command_line(argv), console)


def _report(
    preset: Preset, planned: list[list[Contestant]], out: Path, command: str, console: Console
) -> None:
    """Write and show what is finished."""
    summaries = [
        summarise(part, contestants, preset.description)
        for part, contestants in zip(preset.parts, planned)
        if any(run.finished for contestant in contestants for run in contestant.runs)
    ]
    if not summaries:
        return
    summary = summaries[0]
    if preset.others:
        summary = dict(description=preset.description, parts=summaries)
        draw_curves(summaries, preset.title, out.with_suffix('.png'))
    write_results(out, summary, markdown(summary, preset.title, command))
    for part in summaries:
        head, *rows = full_table(part)
        table = Table(*head, title=f'{preset.title}, {part["pixels"] / 1e6:.0f} Mpx')
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f'{out}.json, {out}.md')


if __name__ == '__main__':
    exit_on_sigterm()
    main()
