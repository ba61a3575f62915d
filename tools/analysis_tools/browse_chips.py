"""Draw training images with their boxes and chips, and the chips as the network sees them.

The chips are those that training would have in the given epoch: the same plan, cut out by the
config's own pipeline. With a pool of negative chips, the proposals for which they were made are
drawn too. They were mined against the positive chips of another epoch, so that some may lie in the
positive chips of this one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

from mmsniper.checks.classes import label_names
from mmsniper.chips import NEGATIVE, AnnotationTable, ChipPlan, NegativeChipPool, ScalePyramid
from mmsniper.chips.negative_pool import shown_images
from mmsniper.convert import load_config
from mmsniper.convert.pyramid import config_pyramid
from mmsniper.convert.training_chips import config_seed, negative_chip_hook, positive_sampler
from mmsniper.datasets import IGNORE_REGION, Chip, ChipAwareSampler, ChipIndex
from mmsniper.datasets.decoding import run_checked
from mmsniper.datasets.transforms.load_large_image import in_large_version
from mmsniper.datasets.wrappers import inner_datasets, replace_datasets, type_name
from mmsniper.engine.negative_chip_hook import POOL_FILE
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.visualization import CROWD, INVALID, VALID, ChipView, draw_chips, save_figure

CUTTING = ('ChipSampler', 'ScaleRangeFilter')
PACKING = 'PackDetInputs'


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


def viewing_pipeline(pipeline: list[dict], augment: bool) -> list[dict]:
    """The part of a training pipeline after which a chip can be looked at.

    Args:
        pipeline (list[dict]): Training pipeline with a ``ChipSampler``.
        augment (bool): Keep all but the packing, instead of stopping when the chip is cut.
    """
    types = [type_name(transform) for transform in pipeline]
    if 'ChipSampler' not in types:
        raise ValueError(f'the pipeline of the ChipDataset has no ChipSampler; it has {types}')
    if augment:
        return [transform for transform in pipeline if type_name(transform) != PACKING]
    last = max(i for i, name in enumerate(types) if name in CUTTING)
    return list(pipeline[: last + 1])


def viewing_dataset(config: Any, pyramid: dict, augment: bool) -> tuple[dict, dict]:
    """Change a training data set's config so that it gives chips to look at.

    Args:
        config (dict): A ``ChipDataset``, possibly inside wrappers, or a plain data set; that is
            wrapped, with its own pipeline if there is a ``ChipSampler`` in it.
        pyramid (dict): The pyramid.
        augment (bool): See :func:`viewing_pipeline`.

    Returns:
        tuple[dict, dict]: The config, and that of the transform that loads an image.
    """
    loaders: list[dict] = []

    def replacement(dataset: dict) -> dict | None:
        if type_name(dataset) != 'ChipDataset':
            return None
        loaders.append(dataset['pipeline'][0])
        return {**dataset, 'pipeline': viewing_pipeline(dataset['pipeline'], augment)}

    if not inner_datasets(config):
        config = _in_chip_dataset(config, pyramid)
    changed = replace_datasets(config, replacement)
    if not loaders:
        raise ValueError(
            f'there is no ChipDataset in the {type_name(config)} of train_dataloader.dataset; wrap '
            f"the data set inside it: dict(type='ChipDataset', dataset=..., pipeline=...)"
        )
    return changed, loaders[0]


def _in_chip_dataset(config: dict, pyramid: dict) -> dict:
    pipeline = config.get('pipeline') or []
    if 'ChipSampler' not in map(type_name, pipeline):
        pipeline = [
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True},
            {'type': 'ChipSampler', 'pyramid': pyramid},
            {'type': 'ScaleRangeFilter', 'pyramid': pyramid},
        ]
    return {'type': 'ChipDataset', 'dataset': {**config, 'pipeline': []}, 'pipeline': pipeline}


def chip_view(results: dict, class_names: Sequence[str], pyramid: ScalePyramid) -> ChipView:
    """What a pipeline made of a chip, as plain arrays.

    Args:
        results (dict): After ``ChipSampler`` and ``ScaleRangeFilter``.
        class_names (Sequence[str]): Name of each label.
        pyramid (ScalePyramid): The pyramid.
    """
    level, (height, width) = results['chip'].level, results['ori_shape']
    labels = np.asarray(results['gt_bboxes_labels'])
    ignored = np.asarray(results['gt_ignore_flags'], bool)
    states = np.where(ignored, np.where(labels == IGNORE_REGION, CROWD, INVALID), VALID)
    names = [class_names[label] if label >= 0 else '' for label in labels]
    return ChipView(
        results['img'],
        results['gt_bboxes'].tensor.numpy(),
        states,
        level,
        float(pyramid.scales(width, height)[level]),
        names,
        results['chip'].kind,
    )


def chip_views(
    dataset: Any, image: int, plan: ChipPlan, pyramid: ScalePyramid, class_names: Sequence[str]
) -> Iterator[ChipView]:
    """The chips of one image, as the network sees them.

    Args:
        dataset (BaseDataset): Built from :func:`viewing_dataset`'s config.
        image (int): Index of the image.
        plan (ChipPlan): The chips of the image.
        pyramid (ScalePyramid): The pyramid.
        class_names (Sequence[str]): Name of each label.
    """
    for level, box, kind in zip(plan.level, plan.box, plan.kind, strict=True):
        chip = Chip(int(level), tuple(box.tolist()), int(kind))
        results = dataset[ChipIndex(image, chip)]
        # Where an augmentation drops a chip, the data set gives another image instead.
        if results['chip'] is chip:
            yield chip_view(results, class_names, pyramid)


class Negatives(NamedTuple):
    """What a pool says of a data set's images.

    Attributes:
        chips (ChipPlan): All its chips.
        proposals (ChipPlan): Its uncovered proposals, as if they were chips.
        kept (np.ndarray): (n,) indices of the images whose uncovered proposals it has kept.
    """

    chips: ChipPlan
    proposals: ChipPlan
    kept: NDArray[np.int32]


def match_pool(pool: NegativeChipPool, sampler: ChipAwareSampler, name: str) -> Negatives:
    """Find what a pool has for each image of a sampler's data set.

    Args:
        pool (NegativeChipPool): The pool.
        sampler (ChipAwareSampler): The sampler.
        name (str): Name of the pool in errors.

    Raises:
        ValueError: If the pool belongs to other images.
    """
    paths, table = sampler.img_paths(), sampler.planner.table

    def matched(image: NDArray, level: NDArray, box: NDArray) -> ChipPlan:
        plan = ChipPlan(image, level, box, np.full(len(image), NEGATIVE, np.int8))
        plan = plan.take(np.argsort(image, kind='stable'))
        return replace(pool, chips=plan).chips_for(paths, table.width, table.height, name)

    # A pool shows up to 1000 of the images that were mined, which may be fewer than it knows. One
    # with negative chips has uncovered proposals: where there are none they were not kept.
    seen = np.unique(pool.uncovered_image)
    kept = np.union1d(seen, np.flatnonzero(shown_images(len(pool.img_path))))
    kept = np.setdiff1d(kept, np.setdiff1d(pool.chips.image, seen))
    return Negatives(
        pool.chips_for(paths, table.width, table.height, name),
        matched(pool.uncovered_image, pool.uncovered_level, pool.uncovered_box),
        matched(kept, np.zeros(len(kept), np.int8), np.zeros((len(kept), 4))).image,
    )


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
        proposals (ChipPlan): See :class:`Negatives`.
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


class EpochChips(NamedTuple):
    """The chips of all images in an epoch.

    Attributes:
        table (AnnotationTable): The images' sizes and boxes.
        pyramid (ScalePyramid): The pyramid.
        plan (ChipPlan): The chips.
        class_names (tuple[str, ...]): Name of each label, by the annotation file.
        negatives (Negatives | None): What a pool says of the images, None without one.
    """

    table: AnnotationTable
    pyramid: ScalePyramid
    plan: ChipPlan
    class_names: tuple[str, ...]
    negatives: Negatives | None = None


def draw_image(dataset: Any, loader: Any, image: int, chips: EpochChips, out_dir: Path) -> Path:
    """Draw one image and its chips to a PNG file in ``out_dir``, and return its path."""
    info = dataset.get_data_info(image)
    boxes = slice(*chips.table.offset[image : image + 2])
    plan, negatives = chips.plan.take(chips.plan.image == image), chips.negatives
    source = Path(info['img_path'])
    title = f'{source.name}, {info["width"]}×{info["height"]} px'
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
        chips.table.boxes[boxes],
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


def plan_chips(cfg: Config, dataset: Any, args: argparse.Namespace) -> EpochChips:
    """The chips of all images in the epoch to draw, and what there is to say of negative ones.

    Raises:
        ValueError: If ``--all-negatives`` is asked for without a pool, or the pool is of other
            images or another pyramid.
    """
    pool = find_pool(cfg, args.negatives)
    if args.all_negatives and pool is None:
        raise ValueError(
            'there is no pool whose chips --all-negatives could draw: name one with --negatives'
        )
    sampler = DATA_SAMPLERS.build(dict(positive_sampler(cfg), dataset=dataset))
    sampler.set_epoch(args.epoch)
    table, pyramid, names = sampler.planner.table, sampler.pyramid, label_names(dataset)
    if pool is None:
        return EpochChips(table, pyramid, sampler.plan, names)
    content = NegativeChipPool.from_file(pool)
    sampler.set_negatives(content, negative_chip_hook(cfg).get('chips_per_image'), name=pool)
    negatives = match_pool(content, sampler, pool)
    plan = sampler.plan
    if args.all_negatives:
        plan = ChipPlan.joined([sampler.positives(), negatives.chips])
    return EpochChips(table, pyramid, plan, names, negatives)


def browse(cfg: Config, args: argparse.Namespace) -> list[Path]:
    """Draw training images of a config with the chips of an epoch."""
    pyramid = config_pyramid(cfg).to_dict()
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = cfg.train_dataloader.dataset.to_dict()
    config, loader = viewing_dataset(dataset, pyramid, args.augment)
    dataset, loader = DATASETS.build(config), TRANSFORMS.build(in_large_version(loader))
    chips = plan_chips(cfg, dataset, args)
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
    print(f'{len(paths)} pictures in {args.out_dir}')


if __name__ == '__main__':
    main()
