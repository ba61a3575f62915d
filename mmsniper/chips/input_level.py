"""Which level of the pyramid an input of the network belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmsniper.chips.pyramid import ScalePyramid

# A scale may differ by this (relative) beside rounding to whole pixels: it matters to no range.
_SCALE_TOLERANCE = 0.02


def levels_of_input(
    info: Mapping[str, Any], pyramid: ScalePyramid
) -> tuple[tuple[int, ...], float]:
    """Levels that an input belongs to, and its scale.

    ``ChipSampler`` and ``LevelResize`` write the ``level``. Without it (plain ``Resize``, or a
    ``PackDetInputs`` that does not pack it) it is found from ``scale_factor``.

    Args:
        info (dict): Results of a pipeline or a data sample's metainfo: ``ori_shape`` (h, w) of the
            whole image; ``level`` and ``homography_matrix``, or ``scale_factor`` (w, h).
        pyramid (ScalePyramid): The pyramid that the input was made with.

    Returns:
        tuple[tuple[int, ...], float]: The level, or those of :meth:`ScalePyramid.levels_at`; and
        input pixels per original pixel.

    Raises:
        ValueError: If a key is missing or malformed, or the input's scale is not its level's.
    """
    level, matrix = info.get('level'), info.get('homography_matrix')
    if level is None or matrix is None:
        scale_w, scale_h = _pair_of(info, 'scale_factor')
        scale = math.sqrt(scale_w * scale_h)
    else:
        # A second resize overwrites scale_factor, which then tells its own share only.
        scale = homography_scale(matrix)
    height, width = _pair_of(info, 'ori_shape')
    if level is None:
        return pyramid.levels_at(scale, (width, height)), scale
    _check_scale(scale, level, pyramid, (width, height))
    return (level,), scale


def homography_scale(matrix: Any) -> float:
    """Pixels per original pixel of a 3x3 homography, flips and rotations included."""
    return math.sqrt(abs(np.linalg.det(np.asarray(matrix, np.float64)[:2, :2])))


def _check_scale(
    scale: float, level: int, pyramid: ScalePyramid, size: tuple[float, float]
) -> None:
    if not 0 <= level < pyramid.num_levels:
        raise ValueError(
            f'the input was made for level {level}, but the pyramid has the levels 0 to '
            f'{pyramid.num_levels - 1}: use the same pyramid in the pipeline and the model'
        )
    wanted = float(pyramid.scales(*size)[level])
    # A window is rounded outwards, by up to 2 original px, and the input by up to 1 px.
    side = min(pyramid.chip_size, wanted * min(size))
    if not abs(scale / wanted - 1) <= _SCALE_TOLERANCE + (2 * wanted + 1) / side:
        raise ValueError(
            f'the input was made for level {level}, at which its image has '
            f'a scale of {wanted:.3g}, but it has one of {scale:.3g}: '
            f'drop the transform after ChipSampler or LevelResize that changes the scale (such as '
            f'Resize, RandomResize, RandomAffine or Mosaic), and use the same pyramid in the '
            f'pipeline and the model'
        )


def _pair_of(info: Mapping[str, Any], key: str) -> tuple[float, float]:
    value = info.get(key)
    if value is None:
        raise ValueError(
            f"a data sample has no '{key}' in its metainfo (it has {sorted(info)}), but its "
            f'pyramid level is derived from it. Use a pipeline with ChipSampler, LevelResize or '
            f"Resize, and keep '{key}' in PackDetInputs' meta_keys"
        )
    try:
        first, second = (float(v) for v in value[:2])
    except (TypeError, ValueError, IndexError):
        raise ValueError(f"metainfo '{key}' must be a pair of numbers, got {value!r}") from None
    if not (first > 0 and second > 0):
        raise ValueError(f"metainfo '{key}' must be positive, got {value!r}")
    return first, second
