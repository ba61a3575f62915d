"""Transforms after which an input no longer has the scale of its level."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from mmdet.registry import TRANSFORMS

from mmsniper.datasets.wrappers import all_transforms, class_names, class_of, type_name

# They change the scale of objects, or put objects of another scale beside them. All others keep
# it, those that crop or pad too (RandomCrop, MinIoURandomCrop, RandomCenterCropPad, Expand, Pad).
RESCALING = frozenset(
    {'Resize', 'FixScaleResize', 'ResizeShortestEdge', 'FixShapeResize'}
    | {'RandomResize', 'RandomChoiceResize', 'RandomAffine'}
    | {'Mosaic', 'CachedMosaic', 'MixUp', 'CachedMixUp', 'CopyPaste'}
)


# Those of Albumentations, which an `Albu` has as configs. It records in no key what they do.
_ALBUMENTATIONS = frozenset(
    {'Affine', 'LongestMaxSize', 'Perspective', 'RandomResizedCrop', 'RandomScale', 'Resize'}
    | {'RandomSizedBBoxSafeCrop', 'RandomSizedCrop', 'ShiftScaleRotate', 'SmallestMaxSize'}
)

# With these values they keep the scale.
_UNSCALED = dict(scale_limit=(0, [0, 0], (0, 0)), scale=(1, [1, 1], (1, 1)))


def rescaling(pipeline: Any) -> list[str]:
    """The types of a pipeline's transforms that change the scale of objects or mix images.

    Args:
        pipeline (Any): A pipeline that has been built, or the configs of its transforms.
    """
    return [type_name(step) for step in all_transforms(pipeline) if _rescales(step)]


def behind_the_cut(pipeline: Any) -> list[Any]:
    """The transforms of a pipeline behind the one that is, or has in it, a ``ChipSampler``.

    Args:
        pipeline (Any): A pipeline that has been built, or the configs of its transforms.

    Returns:
        list[Any]: All of them are to keep the scale; none if nothing cuts chips.
    """
    steps = list(getattr(pipeline, 'transforms', pipeline) or ())
    for i, step in enumerate(steps):
        if any('ChipSampler' in class_names(part, TRANSFORMS) for part in all_transforms([step])):
            return steps[i + 1 :]
    return []


def _rescales(transform: Any) -> bool:
    if isinstance(transform, Mapping) and type_name(transform) in _ALBUMENTATIONS:
        return not any(transform.get(key, ...) in values for key, values in _UNSCALED.items())
    if RESCALING.intersection(class_names(transform, TRANSFORMS)):
        # A RandomAffine may only rotate, shear and shift.
        given = transform.get if isinstance(transform, Mapping) else partial(getattr, transform)
        return tuple(given('scaling_ratio_range', ())) != (1, 1)
    # By this method MultiImageMixDataset mixes.
    return hasattr(class_of(transform, TRANSFORMS), 'get_indexes')
