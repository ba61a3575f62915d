"""Draw training images with their boxes and chips, and the chips as the network sees them.

The chips are those that training would have in the given epoch: the same plan, cut out by the
config's own pipeline. With a pool of negative chips, the proposals for which they were made are
drawn too. They were mined against the positive chips of another epoch, so that some may lie in the
positive chips of this one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

from mmsniper.apis.epoch_chips import EpochChips, chip_views, plan_epoch, viewing_dataset
from mmsniper.chips import NEGATIVE, ChipPlan
from mmsniper.convert import load_config
from mmsniper.convert.pyramid import config_pyramid
from mmsniper.convert.training_chips import config_seed
from mmsniper.datasets.decoding import run_checked
from mmsniper.datasets.transforms.load_large_image import in_large_version
from mmsniper.engine.negative_chip_hook import POOL_FILE
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.utils.words import numbered
from mmsniper.visualization import draw_chips, save_figure


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config with a pyramid and a train_dataloader')
    parser.add_argument('--out-dir', required=True, type=Path, help='folder of the pictures (PNG)')
    parser.add_argument(
        '--num',
        type=at_least(1),
        default=10,
        help='number of images, spread evenly over those that have chips or, with a pool, negative '
        'chips and proposals',
    )
    parser.add_argument(
        '--epoch', type=at_least(0), default=0, help='epoch whose chips are drawn, from 0'
    )
    parser.add_argument(
        '--negatives',
        metavar='POOL.npz',
        help="pool of negative chips, or none [that of the config's sampler, else "
        f'{POOL_FILE} in its work folder, if there is one]',
    )
    parser.add_argument(
        '--all-negatives',
        action='store_true',
        help='draw all negative chips of the pool instead of those of the epoch',
    )
    parser.add_argument(
        '--augment',
        action='store_true',
        help='show the chips after all augmentations, such as flips',
    )
    return parser.parse_args(argv)


def find_pool(cfg: Config, given: str | None) -> str | None:
    """The file with the negative chips to draw, None if there is none to draw.

    Args:
        cfg (Config): The config.
        given (str | None): What the command line says: a file, 'none', or None for nothing.
    """
    if given is not None:
        return None if given == 'none' else given
    file = cfg.train_dataloader.get('sampler', {}).get('negatives')
    if file is not None:
        return file
    folder = cfg.get('work_dir') or Path('work_dirs') / Path(cfg.filename).stem
    mined = Path(folder) / POOL_FILE
    if not mined.is_file():
        return None
    print(f'negative chips are those of {mined}; without them: --negatives none')
    return str(mined)


def choose_images(plan: ChipPlan, proposals: ChipPlan, num: int) -> NDArray[np.int32]:
    """Images to draw, ascending and spread evenly over those that show most.

    Args:
        plan (ChipPlan): All chips; an image without any is not chosen.
        proposals (ChipPlan): See :class:`~mmsniper.apis.epoch_chips.Negatives`.
        num (int): Number of images. First come those with negative chips and proposals, then those
            with either.
    """
    images = np.unique(plan.image)
    shows = np.isin(images, plan.image[plan.kind == NEGATIVE]).astype(int) + np.isin(
        images, proposals.image
    )
    chosen = images[:0]
    for things in (2, 1, 0):
        some = images[shows == things]
        count = min(num - len(chosen), len(some))
        spread = some[np.linspace(0, len(some) - 1, count).astype(int)]
        chosen = np.concatenate([chosen, spread])
    return np.sort(chosen)


def draw_image(dataset: Any, loader: Any, image: int, chips: EpochChips, out_dir: Path) -> Path:
    """Draw one image and its chips to a PNG file in ``out_dir``, and return its path."""
    info = dataset.get_data_info(image)
    boxes = slice(*chips.table.offset[image : image + 2])
    plan, negatives = chips.plan.take(chips.plan.image == image), chips.negatives
    source = Path(info['img_path'])
    title = f'{source.name}, {chips.table.width[image]}×{chips.table.height[image]} px'
    layers = {}
    if negatives is not None:
        layers['kinds'] = plan.kind
        if image in negatives.kept:
            mine = negatives.proposals.take(negatives.proposals.image == image)
            layers.update(proposals=mine.box, proposal_levels=mine.level)
        else:
            title += '; the pool has not kept its proposals'
    figure = draw_chips(
        run_checked(loader, info)['img'],
        chips.table.outlines_of(boxes),
        plan.box,
        plan.level,
        chips.pyramid,
        ignored=chips.table.ignore[boxes],
        views=list(chip_views(dataset, image, plan, chips.pyramid, chips.class_names)),
        title=title,
        **layers,
    )
    path = out_dir / f'{image:06d}_{source.stem}.png'
    save_figure(figure, path)
    return path


def browse(cfg: Config, args: argparse.Namespace) -> list[Path]:
    """Draw training images of a config with the chips of an epoch."""
    pyramid = config_pyramid(cfg).to_dict()
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = cfg.train_dataloader.dataset.to_dict()
    config, loader = viewing_dataset(dataset, pyramid, args.augment)
    dataset, loader = DATASETS.build(config), TRANSFORMS.build(in_large_version(loader))
    pool = find_pool(cfg, args.negatives)
    if args.all_negatives and pool is None:
        raise ValueError(
            'there is no pool whose chips --all-negatives could draw: name one with --negatives'
        )
    chips = plan_epoch(cfg, dataset, args.epoch, pool, args.all_negatives)
    np.random.seed(config_seed(cfg))  # of the augmentations

    proposals = chips.negatives.proposals if chips.negatives else ChipPlan.empty()
    images = choose_images(chips.plan, proposals, args.num)
    return [
        draw_image(dataset, loader, image, chips, args.out_dir)
        for image in progress(images.tolist(), 'pictures')
    ]


@exit_on_error(RuntimeError)  # of an image that cannot be read
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    paths = browse(load_config(args.config, args.cfg_options), args)
    print(f'{numbered(len(paths), "picture")} in {args.out_dir}')


if __name__ == '__main__':
    main()
