"""Make the toy data set: COCO format, the same for the same seed.

Textured scenes with clusters of small labelled shapes, and look-alikes that are not labelled away
from them. Running it again does nothing, or finishes what was interrupted.
"""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from mmsniper.testing import ToyDatasetSpec, make_toy_dataset


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    default = ToyDatasetSpec()
    parser.add_argument('--out-dir', default='work_dirs/toy_data', help='directory of the data set')
    parser.add_argument('--seed', type=int, default=default.seed)
    parser.add_argument('--num-train', type=int, default=default.num_train, help='training images')
    parser.add_argument('--num-val', type=int, default=default.num_val, help='validation images')
    parser.add_argument(
        '--min-side',
        type=int,
        default=default.min_side,
        help='least width and height of an image, px',
    )
    parser.add_argument(
        '--max-side',
        type=int,
        default=default.max_side,
        help='largest width and height of an image, px',
    )
    parser.add_argument(
        '--processes',
        type=int,
        help='worker processes (None: one for each core); the files do not depend on it',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a toy data set that was made with other arguments',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        spec = ToyDatasetSpec(args.seed, args.num_train, args.num_val, args.min_side, args.max_side)
        files = make_toy_dataset(
            args.out_dir,
            spec,
            args.processes,
            args.overwrite,
            lambda images, total: tqdm(images, 'toy images', total, unit='image'),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    for split, path in files.items():
        print(f'{split}: {spec.count(split)} images, {path}')


if __name__ == '__main__':
    main()
