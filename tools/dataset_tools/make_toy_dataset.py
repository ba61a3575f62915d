"""Make the toy data set: COCO format, the same for the same seed.

Textured scenes with clusters of small labelled shapes, and look-alikes that are not labelled away
from them. Running it again does nothing, or finishes what was interrupted.

With --rotated shapes are elongated and lie at any angle. Their corners are written in DOTA's format
too, and as segmentation in COCO's.
"""

from __future__ import annotations

import argparse

from mmsniper.testing import ToyDatasetSpec, make_toy_dataset
from mmsniper.utils.command_line import command_parser, exit_on_error, progress


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--rotated', action='store_true', help='rotated boxes')
    parser.add_argument(
        '--out-dir',
        help='folder of the data set [work_dirs/toy_data, with --rotated '
        'work_dirs/toy_rotated_data]',
    )
    default = ToyDatasetSpec()
    for name, what in (
        ('seed', 'random seed'),
        ('num_train', 'training images'),
        ('num_val', 'validation images'),
        ('min_side', 'smallest width and height of an image, px'),
        ('max_side', 'largest width and height of an image, px'),
    ):
        option = f'--{name.replace("_", "-")}'
        parser.add_argument(option, type=int, default=getattr(default, name), help=what)
    parser.add_argument(
        '--processes',
        type=int,
        help='worker processes, on which the files do not depend [one for each core]',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a toy data set that was made with other arguments',
    )
    args = parser.parse_args(argv)
    args.out_dir = args.out_dir or f'work_dirs/toy{"_rotated" if args.rotated else ""}_data'
    return args


@exit_on_error()
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    spec = ToyDatasetSpec(
        args.seed, args.num_train, args.num_val, args.min_side, args.max_side, args.rotated
    )
    files = make_toy_dataset(
        args.out_dir,
        spec,
        args.processes,
        args.overwrite,
        lambda images, total: progress(images, 'toy images', total, delay=0),
    )
    for split, path in files.items():
        print(f'{split}: {spec.count(split)} images, {path}')


if __name__ == '__main__':
    main()
