"""From proposals to a pool of negative chips, some images at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips import (
    AnnotationTable,
    ChipPlan,
    Level,
    NegativeChipPool,
    ResizeRule,
    ScalePyramid,
    plan_negative_chips,
)
from mmsniper.chips.negative_pool import shown_images
from mmsniper.chips.rectangles import expand
from mmsniper.datasets import ChipAwareSampler
from mmsniper.mining.parts import mined_images

PLACED = ('fixed', 'anew')
"""Epochs draw from the windows that were mined, or find theirs anew around their positive chips."""


class PoolPlanner:
    """Plans the negative chips of a data set, some of its images at a time.

    Args:
        sampler (ChipAwareSampler): Its data set is mined, around its current positive chips.
        images (NDArray[np.int64]): Indices of the images that are mined, ascending.
        origin (str): What the pool is mined from.
        options (Mapping[str, Any]): Arguments of :func:`~mmsniper.chips.plan_negative_chips`.
        placed (str): One of ``PLACED``.
    """

    def __init__(
        self,
        sampler: ChipAwareSampler,
        images: NDArray[np.int64],
        origin: str,
        options: Mapping[str, Any],
        placed: str,
    ) -> None:
        self.sampler = sampler
        self.images = images
        self.origin = origin
        self.options = dict(options)
        self.anew = placed == 'anew'
        self.positives = sampler.positives()
        self.shown = np.zeros(len(sampler.planner.table), bool)
        self.shown[images] = shown_images(len(images))

    def plan(self, images: NDArray[np.int64], boxes: Sequence[NDArray]) -> NegativeChipPool:
        """The pool of some images.

        Args:
            images (NDArray[np.int64]): Indices of the images, ascending.
            boxes (Sequence[NDArray]): Proposals in each of them, xyxy in original pixels.
        """
        table, pyramid = self.sampler.planner.table, self.sampler.pyramid
        width, height = table.width[images], table.height[images]
        proposals = AnnotationTable.from_images(
            [(w, h, some, None) for w, h, some in zip(width, height, boxes)]
        )
        positives = chips_of_images(self.positives, images)
        chips = plan_negative_chips(proposals, positives, pyramid, **self.options)
        uncovered = chips.uncovered.take(self.shown[images][chips.uncovered.image])
        kept = ~proposals.ignore & self.anew
        paths = self.sampler.img_paths()
        return NegativeChipPool(
            pyramid=pyramid,
            img_path=np.array([paths[i] for i in images.tolist()]),
            width=width,
            height=height,
            chips=chips.chips,
            proposals_per_chip=chips.proposals_per_chip,
            statistics=chips.statistics,
            uncovered_image=uncovered.image.astype(np.int32),
            uncovered_level=uncovered.level.astype(np.int8),
            uncovered_box=uncovered.box.astype(np.float32),
            origin=self.origin,
            options=self.options if self.anew else None,
            proposal_image=proposals.image[kept].astype(np.int32),
            proposal_box=proposals.boxes[kept],
        )

    def joined(self, pools: Sequence[NegativeChipPool]) -> NegativeChipPool:
        """The whole pool, given those of all images that are mined.

        Images that are not mined, those without objects, are in it without chips.
        """
        rest = np.setdiff1d(mined_images(self.sampler), self.images)
        if len(rest):
            without = self.plan(rest, [np.zeros((0, 4))] * len(rest))
            without = replace(without, statistics=replace(without.statistics, images=0))
            pools = [*pools, without]
        return NegativeChipPool.joined(pools)


def check_options(options: Mapping[str, Any], placed: str) -> None:
    """Check what a :class:`PoolPlanner` gets, by planning for no image."""
    if placed not in PLACED:
        raise ValueError(f'placed must be one of {PLACED}, got {placed!r}')
    pyramid = ScalePyramid(1, (Level(ResizeRule(factor=1.0), (0, math.inf)),))
    nothing = AnnotationTable.from_images([])
    plan_negative_chips(nothing, ChipPlan.empty(), pyramid, **options)


def chips_of_images(plan: ChipPlan, images: NDArray[np.int64]) -> ChipPlan:
    """The chips of some images, ascending as the plan is, as chips of images 0, 1, ..."""
    start, stop = (np.searchsorted(plan.image, images, side) for side in ('left', 'right'))
    position, chip = expand(start, stop)
    return replace(plan.take(chip), image=position.astype(np.int32))
