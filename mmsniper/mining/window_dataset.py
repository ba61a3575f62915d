"""A training data set whose pipelines give windows instead of chips to learn from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmdet.datasets.transforms import FilterAnnotations, PackDetInputs
from mmengine.dataset import Compose

from mmsniper.chips import NEGATIVE, ScalePyramid
from mmsniper.chips.windows import Window, round_up
from mmsniper.datasets import Chip, ChipDataset, ChipIndex, ChipSampler
from mmsniper.datasets.decoding import run_checked
from mmsniper.datasets.wrappers import replace_datasets

_META_KEYS = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'homography_matrix', 'chip')


def window_index(window: Window) -> ChipIndex:
    """The index with which a :func:`window_dataset` gives a window."""
    return ChipIndex(window.image, Chip(window.level, window.box, NEGATIVE))


def window_dataset(dataset: Any, pyramid: ScalePyramid) -> Any:
    """A copy of a data set that loads images as the training does and cuts windows out of them.

    Args:
        dataset (Any): A ``ChipDataset``, with any wrappers around it.
        pyramid (ScalePyramid): The training's pyramid.

    Returns:
        Any: The data set, whose items are asked for by :func:`window_index`.

    Raises:
        ValueError: If a pipeline has no ``ChipSampler``.
    """

    def with_windows(part: Any) -> Any:
        if not isinstance(part, ChipDataset):
            return None
        part = copy.copy(part)
        part.pipeline = _window_pipeline(part.pipeline.transforms, pyramid)
        return part

    return replace_datasets(dataset, with_windows)


def _window_pipeline(transforms: Sequence[Any], pyramid: ScalePyramid) -> Compose:
    cut = next((i for i, t in enumerate(transforms) if isinstance(t, ChipSampler)), None)
    if cut is None:
        raise ValueError(
            f'the pipeline of the ChipDataset has no ChipSampler to cut windows out with; it has '
            f'{[type(t).__name__ for t in transforms]}'
        )
    load = [t for t in transforms[:cut] if not isinstance(t, (LoadAnnotations, FilterAnnotations))]
    return _WindowPipeline(
        [*load, _WindowSampler(transforms[cut], pyramid), PackDetInputs(meta_keys=_META_KEYS)]
    )


class _WindowPipeline(Compose):
    """Transforms that must give the window: a data set would try another image instead."""

    def __call__(self, data: dict) -> dict:
        for transform in self.transforms:
            changed = run_checked(transform, data)
            if changed is None:
                raise ValueError('a transform returned None, so the image cannot be mined')
            data = changed
        return data


class _WindowSampler:
    """Cuts windows out with a ``ChipSampler``, to which each is a chip of its size."""

    def __init__(self, sampler: ChipSampler, pyramid: ScalePyramid) -> None:
        self.sampler = copy.copy(sampler)
        self.pyramid = pyramid

    def __call__(self, results: dict) -> dict | None:
        height, width = results['img'].shape[:2]
        level, (x1, y1, x2, y2), _ = results['chip']
        side = max(x2 - x1, y2 - y1) * self.pyramid.scales(width, height)[level]
        self.sampler.pyramid = replace(self.pyramid, chip_size=int(round_up(side)))
        return self.sampler(results)
