"""Make a page about a SNIPER config to look at: one HTML file, which needs no network.

    python tools/analysis_tools/report.py CONFIG --out report.html

Before training it shows what the config is and what the check has found, how large the objects are
and which level learns them, the chips of an epoch and what they cost, and example images with their
objects and chips. Afterwards, with --work-dir, also curves and negative chips, and with
--predictions the most wrong detections of a test. Only the images that are shown are opened, unless
--images asks for all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmsniper.apis.report import Report, make_report
from mmsniper.checks import counted
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
)
from mmsniper.utils.files import check_folder, write_text


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config with a pyramid and a train_dataloader')
    parser.add_argument(
        '--out', metavar='P.html', type=Path, default=Path('report.html'), help='the page'
    )
    parser.add_argument(
        '--examples',
        type=at_least(0),
        default=24,
        metavar='N',
        help='images to page through; the more, the smaller, so that the page stays below 10 MB',
    )
    parser.add_argument(
        '--work-dir', type=Path, metavar='DIR', help='also show the training that was written here'
    )
    parser.add_argument(
        '--predictions',
        type=Path,
        metavar='P.pkl',
        help='also show the most wrong detections of tools/test.py --out',
    )
    parser.add_argument(
        '--wrong', type=at_least(1), default=30, metavar='N', help='number of those'
    )
    parser.add_argument(
        '--images',
        action='store_true',
        help='have the check open every image file of training, val and test',
    )
    args = parser.parse_args(argv)
    if args.out.suffix not in ('.html', '.htm'):
        parser.error(f'--out takes a file name that ends in .html, got {args.out}')
    return args


@exit_on_error(RuntimeError)  # of an image that cannot be read
def main(argv: Sequence[str] | None = None) -> Report:
    """Run the command; returns the report."""
    args, console = parse_args(argv), Console(markup=False, highlight=False, soft_wrap=True)
    check_folder(args.out.parent, '--out')
    report = make_report(
        args.config,
        args.cfg_options,
        num_examples=args.examples,
        images=args.images,
        work_dir=args.work_dir,
        predictions=args.predictions,
        num_wrong=args.wrong,
        tell=console.print,
    )
    write_text(args.out, report.page)
    if report.missing:
        console.print(f'nothing can be shown of the training data: {report.missing}')
    size = args.out.stat().st_size / 1e6
    console.print(f'{args.out} ({size:.1f} MB): {counted(report.findings)}')
    return report


if __name__ == '__main__':
    main()
