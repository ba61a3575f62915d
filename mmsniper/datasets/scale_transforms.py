"""Transforms after which an input no longer has the scale of its level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsniper.datasets.wrappers import all_transforms, type_name

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
    """The types of a pipeline's built transforms that change the scale of objects or mix images."""
    return [type_name(step) for step in all_transforms(pipeline) if _rescales(step)]


def class_names(transform: Any) -> set[str]:
    """Names of a transform's class and of those that it derives from."""
    return {cls.__name__ for cls in type(transform).__mro__}


def _rescales(transform: Any) -> bool:
    if isinstance(transform, Mapping):
        keeps = any(transform.get(key, ...) in values for key, values in _UNSCALED.items())
        return type_name(transform) in _ALBUMENTATIONS and not keeps
    if RESCALING & class_names(transform):
        # A RandomAffine may only rotate, shear and shift.
        return tuple(getattr(transform, 'scaling_ratio_range', ())) != (1, 1)
    return hasattr(transform, 'get_indexes')  # by which MultiImageMixDataset finds what to mix in
