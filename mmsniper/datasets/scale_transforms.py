"""Which transforms an input does not keep the scale of its level through."""

from __future__ import annotations

from typing import Any

from mmsniper.datasets.wrappers import all_transforms

# They change the scale of objects, or put objects of another scale beside them. All others keep
# it, those that crop or pad too (RandomCrop, MinIoURandomCrop, RandomCenterCropPad, Expand, Pad).
RESCALING = frozenset(
    (
        'Resize',
        'FixScaleResize',
        'ResizeShortestEdge',
        'FixShapeResize',
        'RandomResize',
        'RandomChoiceResize',
        'RandomAffine',
        'Mosaic',
        'CachedMosaic',
        'MixUp',
        'CachedMixUp',
        'CopyPaste',
    )
)


def rescaling(pipeline: Any) -> list[str]:
    """The types of the transforms that change the scale of objects or mix images.

    Args:
        pipeline (Any): A built ``Compose``, or a list of transforms. Those inside
            ``RandomChoice`` and the like count.
    """
    return [type(step).__name__ for step in all_transforms(pipeline) if _rescales(step)]


def is_a(transform: Any, name: str) -> bool:
    """Whether a transform's class, or one that it derives from, has this name."""
    return name in {kind.__name__ for kind in type(transform).__mro__}


def _rescales(transform: Any) -> bool:
    if any(is_a(transform, name) for name in RESCALING):
        # A RandomAffine may only rotate, shear and shift.
        return tuple(getattr(transform, 'scaling_ratio_range', ())) != (1, 1)
    return hasattr(transform, 'get_indexes')  # by which MultiImageMixDataset finds what to mix in
