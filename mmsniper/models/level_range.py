"""Which box sizes count in one input of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from torch import Tensor

from mmsniper.chips.input_level import levels_of_input
from mmsniper.chips.pyramid import ScalePyramid


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
        ranges = pyramid.ranges()[list(levels)]
        return cls(tuple((float(lo), float(hi)) for lo, hi in ranges), scale * scale)

    def contains(self, boxes: Tensor | BaseBoxes) -> Tensor:
        """Which boxes have a size in range.

        Args:
            boxes (Tensor | BaseBoxes): Shape (n, 4), xyxy.

        Returns:
            Tensor: Bool tensor of shape (n,). False for boxes that are turned inside out or NaN.

        Raises:
            ValueError: If ``boxes`` has another shape, such as that of rotated boxes.
        """
        boxes = get_box_tensor(boxes).detach()
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(
                f'boxes must have the shape (n, 4), xyxy, got {tuple(boxes.shape)}; other boxes, '
                f'such as rotated ones, are not supported'
            )
        # Areas of half precision boxes would overflow.
        wh = boxes[:, 2:].double() - boxes[:, :2].double()
        size = (wh.prod(dim=1) / self.area_scale).sqrt()
        inside = torch.zeros_like(size, dtype=torch.bool)
        for lo, hi in self.ranges:
            inside |= (size >= lo) & (size < hi)
        return inside & (wh >= 0).all(dim=1)
