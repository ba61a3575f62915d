"""Which box sizes count in one input of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from torch import Tensor

from mmsniper.chips.pyramid import ScalePyramid


@dataclass(frozen=True)
class LevelRange:
    """The sizes that count in an input: those in the range of its pyramid level.

    Args:
        ranges (tuple[tuple[float, float], ...]): Half-open ranges ``(lo, hi)`` of sqrt(area) in
            original pixels. There are several if levels coincide for the image; a size in any of
            them counts.
        area_scale (float): Area of an original pixel in the pixels of the boxes that will be asked
            about.
    """

    ranges: tuple[tuple[float, float], ...]
    area_scale: float = 1.0

    @classmethod
    def of_input(
        cls, metainfo: Mapping[str, Any], pyramid: ScalePyramid, *, test: bool = False
    ) -> LevelRange:
        """Range for the boxes of an input, in the input's pixels (a chip or a resized image).

        Args:
            metainfo (dict): A data sample's metainfo. ``scale_factor`` (w, h) and ``ori_shape`` (h,
                w) of the whole image tell the level.
            pyramid (ScalePyramid): The pyramid that the input was made with.
            test (bool): Use the pyramid's test rules and ranges.

        Raises:
            ValueError: If ``scale_factor`` or ``ori_shape`` is missing or malformed.
        """
        levels, scale = levels_of_input(metainfo, pyramid, test=test)
        ranges = pyramid.ranges(test=test)[list(levels)]
        return cls(tuple((float(lo), float(hi)) for lo, hi in ranges), scale * scale)

    def in_original_pixels(self) -> LevelRange:
        """The same range, for boxes that were mapped back to original pixels."""
        return LevelRange(self.ranges)

    def contains(self, boxes: Tensor | BaseBoxes) -> Tensor:
        """Which boxes have a size in range.

        Args:
            boxes (Tensor | BaseBoxes): Shape (n, 4), xyxy.

        Returns:
            Tensor: Bool tensor of shape (n,). False for boxes that are turned inside out or NaN.
        """
        # Areas of half precision boxes would overflow.
        wh = get_box_tensor(boxes).detach().double().reshape(-1, 4)
        wh = wh[:, 2:] - wh[:, :2]
        size = (wh.prod(dim=1) / self.area_scale).sqrt()
        inside = torch.zeros_like(size, dtype=torch.bool)
        for lo, hi in self.ranges:
            inside |= (size >= lo) & (size < hi)
        return inside & (wh >= 0).all(dim=1)


def levels_of_input(
    metainfo: Mapping[str, Any], pyramid: ScalePyramid, *, test: bool = False
) -> tuple[tuple[int, ...], float]:
    """Levels that an input belongs to, and its scale.

    Args:
        metainfo (dict): A data sample's metainfo, with ``scale_factor`` (w, h) and ``ori_shape``
            (h, w) of the whole image.
        pyramid (ScalePyramid): The pyramid that the input was made with.
        test (bool): Use the pyramid's test rules.

    Returns:
        tuple[tuple[int, ...], float]: The levels, as by :meth:`ScalePyramid.levels_at`, and input
        pixels per original pixel.

    Raises:
        ValueError: If ``scale_factor`` or ``ori_shape`` is missing or malformed.
    """
    scale_w, scale_h = _pair_of(metainfo, 'scale_factor')
    height, width = _pair_of(metainfo, 'ori_shape')
    scale = math.sqrt(scale_w * scale_h)
    return pyramid.levels_at(scale, (width, height), test=test), scale


def _pair_of(metainfo: Mapping[str, Any], key: str) -> tuple[float, float]:
    value = metainfo.get(key)
    if value is None:
        raise ValueError(
            f"a data sample has no '{key}' in its metainfo (it has {sorted(metainfo)}), but its "
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
