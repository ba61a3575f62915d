"""An epoch's chips to be looked at: planned as in training, cut out by the config's pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from mmdet.registry import DATA_SAMPLERS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from numpy.typing import NDArray

from mmsniper.checks.classes import label_names
from mmsniper.chips import NEGATIVE, AnnotationTable, ChipPlan, NegativeChipPool, ScalePyramid
from mmsniper.chips.negative_pool import shown_images
from mmsniper.convert.training_chips import negative_chip_hook, positive_sampler
from mmsniper.datasets import IGNORE_REGION, Chip, ChipAwareSampler, ChipIndex
from mmsniper.datasets.wrappers import class_names, inner_datasets, replace_datasets, type_name
from mmsniper.utils.box_types import outlines
from mmsniper.visualization import CROWD, INVALID, VALID, ChipView

_CUTTING = frozenset({'ChipSampler', 'ScaleRangeFilter'})
_PACKING = 'PackDetInputs'


def viewing_pipeline(pipeline: Sequence[Any], augment: bool) -> list[Any]:
    """The part of a training pipeline after which a chip can be looked at.

    Args:
        pipeline (Sequence[Any]): Training pipeline with a ``ChipSampler``: transforms or their
            configs.
        augment (bool): Keep all but the packing, instead of stopping when the chip is cut.
    """
    kinds = [class_names(transform, TRANSFORMS) for transform in pipeline]
    if not any('ChipSampler' in names for names in kinds):
        types = [type_name(transform) for transform in pipeline]
        raise ValueError(f'the pipeline of the ChipDataset has no ChipSampler; it has {types}')
    if augment:
        return [transform for transform in pipeline if type_name(transform) != _PACKING]
    last = max(i for i, names in enumerate(kinds) if _CUTTING.intersection(names))
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


def viewed(dataset: Any) -> Any:
    """A copy of a built training data set that gives chips to look at, as they are cut.

    Args:
        dataset (BaseDataset): With a ``ChipDataset``, possibly inside wrappers. It shares its
            annotations with the copy.
    """

    def replacement(part: Any) -> Any:
        if type_name(part) != 'ChipDataset':
            return None
        part = copy(part)
        part.pipeline = Compose(viewing_pipeline(part.pipeline.transforms, augment=False))
        return part

    return replace_datasets(dataset, replacement)


def _in_chip_dataset(config: dict, pyramid: dict) -> dict:
    pipeline = config.get('pipeline') or []
    if not any('ChipSampler' in class_names(step, TRANSFORMS) for step in pipeline):
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
        outlines(results['gt_bboxes']),
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


def plan_epoch(
    cfg: Config,
    dataset: Any,
    epoch: int = 0,
    pool: str | os.PathLike | None = None,
    all_negatives: bool = False,
    sampler: ChipAwareSampler | None = None,
) -> EpochChips:
    """The chips of all images in an epoch, and what there is to say of negative ones.

    Args:
        cfg (Config): The config, with a pyramid and a ``train_dataloader``.
        dataset (BaseDataset): Built from :func:`viewing_dataset`'s config.
        epoch (int): The epoch, from 0. Defaults to 0.
        pool (str | os.PathLike | None): File of a pool of negative chips. Defaults to None, there
            are none.
        all_negatives (bool): All negative chips of the pool instead of those of the epoch. Defaults
            to False.
        sampler (ChipAwareSampler | None): Of the same data, without negative chips, where there is
            one that has planned already. Defaults to None, one is built.

    Raises:
        ValueError: If there is no chip, or the pool is of other images or another pyramid.
    """
    if sampler is None:
        sampler = DATA_SAMPLERS.build(dict(positive_sampler(cfg), dataset=dataset))
    sampler.set_epoch(epoch)
    table, pyramid, names = sampler.planner.table, sampler.pyramid, label_names(dataset)
    if pool is None:
        return EpochChips(table, pyramid, sampler.plan, names)
    content, name = NegativeChipPool.from_file(pool), str(pool)
    sampler.set_negatives(content, negative_chip_hook(cfg).get('chips_per_image'), name=name)
    negatives = match_pool(content, sampler, name)
    plan = sampler.plan
    if all_negatives:
        plan = ChipPlan.joined([sampler.positives(), negatives.chips])
    return EpochChips(table, pyramid, plan, names, negatives)
