"""Which transforms an input does not keep the scale of its level through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


def rescaling(transforms: Any) -> list[str]:
    """The types of the transforms that change the scale of objects or mix images.

    Args:
        transforms (Any): A built transform, or a list of them. Those inside ``RandomChoice`` and
            the like count.
    """
    return [type(t).__name__ for t in flattened(transforms) if _rescales(t)]


def flattened(transforms: Any) -> Iterator[Any]:
    """Built transforms, and those inside ``Compose``, ``RandomChoice`` and the like."""
    if isinstance(transforms, (list, tuple)):
        for transform in transforms:
            yield from flattened(transform)
        return
    yield transforms
    yield from flattened(getattr(transforms, 'transforms', ()))


def type_names(transform: Any) -> set[str]:
    """The names of a transform's class and of those that it derives from."""
    return {kind.__name__ for kind in type(transform).__mro__}


def _rescales(transform: Any) -> bool:
    if type_names(transform) & RESCALING:
        # A RandomAffine may only rotate, shear and shift.
        return tuple(getattr(transform, 'scaling_ratio_range', ())) != (1, 1)
    return hasattr(transform, 'get_indexes')  # by which MultiImageMixDataset finds what to mix in
