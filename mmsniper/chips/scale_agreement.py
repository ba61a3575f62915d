"""Whether a pyramid shows images at the same scale in testing as in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.pyramid import ScalePyramid

SCALE_TOLERANCE = 1.25
"""Training and test scales of a level may differ by up to this factor."""
# A level is reported if the scales of more than this share of the images differ. The paper's own
# pyramid differs on 15% of COCO's images, those that are smaller than most.
_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class ScaleDisagreement:
    """By how much a pyramid's training and test scales differ on some images.

    Attributes:
        factors: Training scale over test scale of each level, the median of the images, shape
            (num_levels,), fine to coarse.
        share: Share of the images whose scales differ by more than ``SCALE_TOLERANCE``, shape
            (num_levels,).
        message: A sentence for the user if that is so at a level for more than a quarter of the
            images, else ''.
    """

    factors: NDArray[np.float64]
    share: NDArray[np.float64]
    message: str


def scale_disagreement(
    pyramid: ScalePyramid, width: ArrayLike, height: ArrayLike
) -> ScaleDisagreement:
    """Compare the scales of training and testing.

    A detector knows objects at the sizes that training has shown. Where a level is tested at
    another scale, they have other sizes.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Of the images, original pixels, scalars or shape (n,).

    Returns:
        ScaleDisagreement: For each level by how much they differ, and a sentence if that matters.

    Example:
        >>> level = dict(resize=dict(factor=3), test_resize=dict(factor=1), valid_range=(0, 80))
        >>> found = scale_disagreement(ScalePyramid(512, (level,)), 1920, 1080)
        >>> found.factors, found.share, found.message[:59]
        (array([3.]), array([1.]), 'the pyramid trains level 0 at 3 times the scale of its test')
    """
    width, height = (np.atleast_1d(side) for side in np.broadcast_arrays(width, height))
    if not len(width):
        return ScaleDisagreement(np.ones(pyramid.num_levels), np.zeros(pyramid.num_levels), '')
    factors = pyramid.scales(width, height) / pyramid.scales(width, height, test=True)
    differs = np.maximum(factors, 1 / factors) > SCALE_TOLERANCE
    share = differs.mean(axis=0)
    reported = differs & (share > _SHARE)
    affected = reported.any(axis=1)
    message = ''
    if affected.any():
        i = _most_common(width, height, affected)
        message = _message(factors[i], reported[i], (width[i], height[i]), affected.mean())
    return ScaleDisagreement(np.median(factors, axis=0), share, message)


def _most_common(width: NDArray, height: NDArray, mask: NDArray[np.bool_]) -> int:
    """Index of the first image that has the most common size of those in ``mask``."""
    sizes = np.stack([width[mask], height[mask]], axis=1)
    _, first, count = np.unique(sizes, axis=0, return_index=True, return_counts=True)
    return int(np.flatnonzero(mask)[first[np.argmax(count)]])


def _message(
    factors: NDArray[np.float64],
    reported: NDArray[np.bool_],
    size: tuple[float, float],
    affected: float,
) -> str:
    levels = ' and '.join(
        f'level {level} at {factors[level]:.3g} times' for level in np.flatnonzero(reported)
    )
    share = '' if affected == 1 else f', {affected:.0%} of the images differ by over 1.25'
    return (
        f'the pyramid trains {levels} the scale of its test (images of {size[0]:g}x{size[1]:g} px'
        f'{share}): give both the same rules, as the pyramid has that '
        f'tools/analysis_tools/suggest_pyramid.py writes for your annotations, or '
        f'configs/_base_/pyramids/resolution.py for images of 400 to 1000 px'
    )
