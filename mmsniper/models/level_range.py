"""Which box sizes count in one input of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import BaseBoxes
from numpy.typing import ArrayLike
from torch import Tensor

from mmsniper.chips.input_level import levels_of_input
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.utils.box_types import box_areas, enclosing, is_rotated


@dataclass(frozen=True)
class LevelRange:
    """The sizes that count in an input: those in the range of its pyramid level.

    Args:
        ranges (tuple[tuple[float, float], ...]): Half-open ranges ``(lo, hi)`` of sqrt(area) in
            original pixels. A size in any of them counts: levels can coincide for an image.
        area_scale (float): Area of an original pixel in pixels of the boxes. Defaults to 1.
    """

    ranges: tuple[tuple[float, float], ...]
    area_scale: float = 1.0

    @classmethod
    def of_input(cls, metainfo: Mapping[str, Any], pyramid: ScalePyramid) -> LevelRange:
        """Range for the boxes of an input, in the input's pixels (a chip or a resized image).

        Args:
            metainfo (dict): A data sample's metainfo, which tells the level, see
                :func:`~mmsniper.chips.input_level.levels_of_input`.
            pyramid (ScalePyramid): The pyramid that the input was made with.

        Raises:
            ValueError: If ``scale_factor`` or ``ori_shape`` is missing or malformed, or the input's
                scale is not that of its ``level``.
        """
        levels, scale = levels_of_input(metainfo, pyramid)
        ranges = [pyramid.levels[level].valid_range for level in levels]
        return cls(tuple((float(lo), float(hi)) for lo, hi in ranges), scale * scale)

    def contains(self, boxes: Tensor | BaseBoxes) -> Tensor:
        """Which boxes have a size in range.

        Args:
            boxes (Tensor | BaseBoxes): Shape (n, 4), xyxy, or n rotated ones.

        Returns:
            Tensor: Bool tensor of shape (n,). False for boxes that are turned inside out or NaN.

        Raises:
            ValueError: If a tensor has another shape.
        """
        boxes = boxes if is_rotated(boxes) else enclosing(boxes)
        return in_limits(box_areas(boxes), self.limits)

    @property
    def limits(self) -> tuple[float, ...]:
        """``area_scale`` and the ends of each range, as :func:`in_limits` takes them."""
        return (self.area_scale, *(end for pair in self.ranges for end in pair))


def out_of_range(
    level_ranges: Sequence[LevelRange], boxes: Sequence[Tensor | BaseBoxes]
) -> tuple[Tensor, ...]:
    """Which boxes of each input have no size in its range, in as few operations as for one input.

    Args:
        level_ranges (Sequence[LevelRange]): Of each input.
        boxes (Sequence[Tensor | BaseBoxes]): Of each input, shape (n_i, 4), xyxy, or n_i rotated
            ones.

    Returns:
        tuple[Tensor, ...]: Of each input, the opposite of what :meth:`LevelRange.contains` gives.

    Raises:
        ValueError: If a tensor has another shape.
    """
    if not boxes:
        return ()
    counts = [len(of_input) for of_input in boxes]
    if any(map(is_rotated, boxes)):
        areas = torch.cat([box_areas(of_input) for of_input in boxes])
    else:
        areas = box_areas(torch.cat([enclosing(of_input) for of_input in boxes]))
    limits = uploaded(np.repeat(_rows(level_ranges), counts, axis=0), areas.device)
    return (~in_limits(areas, limits.unbind(dim=-1))).split(counts)


def batch_limits(level_ranges: Sequence[LevelRange], device: torch.device) -> Tensor:
    """The limits of N inputs, shape (N, 1 + 2 R) for R ranges at most."""
    return uploaded(_rows(level_ranges), device)


def _rows(level_ranges: Sequence[LevelRange]) -> list[tuple[float, ...]]:
    rows = [level_range.limits for level_range in level_ranges]
    longest = max(map(len, rows))
    nothing = (math.inf, -math.inf)
    return [row + nothing * ((longest - len(row)) // 2) for row in rows]


def uploaded(rows: ArrayLike, device: torch.device) -> Tensor:
    """Numbers as a tensor (float64) on a device, without waiting for what it has to do before."""
    values = torch.as_tensor(rows, dtype=torch.float64)
    return values.pin_memory().to(device, non_blocking=True) if device.type == 'cuda' else values


def in_limits(areas: Tensor, limits: Sequence[float | Tensor]) -> Tensor:
    """Which boxes have a size in any of some ranges.

    Args:
        areas (Tensor): Of boxes (:func:`~mmsniper.utils.box_types.box_areas`), shape (...).
        limits (Sequence[float | Tensor]): The area of an original pixel in pixels of the boxes,
            then the ends of each range (sqrt(area), original pixels). Numbers, or tensors that
            can be broadcast to (...).

    Returns:
        Tensor: Bool tensor of shape (...). False for boxes that are turned inside out or NaN.
    """
    area_scale, *ends = limits
    size = (areas / area_scale).sqrt()
    inside = torch.zeros_like(size, dtype=torch.bool)
    for lo, hi in zip(ends[::2], ends[1::2]):
        inside |= (size >= lo) & (size < hi)
    return inside
