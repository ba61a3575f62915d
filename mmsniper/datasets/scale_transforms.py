"""Transforms after which an input no longer has the scale of its level."""

from __future__ import annotations

from typing import Any

from mmsniper.datasets.wrappers import all_transforms

# They change the scale of objects, or put objects of another scale beside them. All others keep
# it, those that crop or pad too (RandomCrop, MinIoURandomCrop, RandomCenterCropPad, Expand, Pad).
RESCALING = frozenset(
    {'Resize', 'FixScaleResize', 'ResizeShortestEdge', 'FixShapeResize'}
    | {'RandomResize', 'RandomChoiceResize', 'RandomAffine'}
    | {'Mosaic', 'CachedMosaic', 'MixUp', 'CachedMixUp', 'CopyPaste'}
)


def rescaling(pipeline: Any) -> list[str]:
    """The types of a pipeline's built transforms that change the scale of objects or mix images."""
    return [type(step).__name__ for step in all_transforms(pipeline) if _rescales(step)]


def class_names(transform: Any) -> set[str]:
    """Names of a transform's class and of those that it derives from."""
    return {cls.__name__ for cls in type(transform).__mro__}


def _rescales(transform: Any) -> bool:
    if RESCALING & class_names(transform):
        # A RandomAffine may only rotate, shear and shift.
        return tuple(getattr(transform, 'scaling_ratio_range', ())) != (1, 1)
    return hasattr(transform, 'get_indexes')  # by which MultiImageMixDataset finds what to mix in
