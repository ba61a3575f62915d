"""Boxes of any type of MMDetection: upright ones, and the rotated ones that MMRotate registers.

Nothing here imports MMRotate. What it registers is used where it has been imported.
"""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np
import torch
from mmcv.ops import box_iou_rotated
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes, get_box_tensor
from mmdet.structures.bbox.box_type import box_types
from numpy.typing import NDArray
from torch import Tensor

from mmsniper.utils.checks import check_box_shape


def is_rotated(boxes: Tensor | BaseBoxes) -> TypeGuard[BaseBoxes]:
    """Whether boxes are of a type that is not upright."""
    return isinstance(boxes, BaseBoxes) and not isinstance(boxes, HorizontalBoxes)


def typed(boxes: Tensor | BaseBoxes) -> BaseBoxes:
    """Boxes with their type, which for a tensor is told by how many numbers a box has.

    It is for what a model has predicted: a box and its score are not one row there.

    Args:
        boxes (Tensor | BaseBoxes): Shape (n, 4), or that of a registered type.

    Raises:
        ValueError: If no type has so many numbers; that of rotated boxes is MMRotate's.
    """
    if isinstance(boxes, BaseBoxes):
        return boxes
    for kind in box_types.values():
        if boxes.shape[-1] == kind.box_dim:
            return kind(boxes, clone=False)
    check_box_shape(boxes.shape)
    raise AssertionError('upright boxes are always registered')


def enclosing(boxes: Tensor | BaseBoxes) -> Tensor:
    """The upright boxes that enclose boxes of any type.

    Args:
        boxes (Tensor | BaseBoxes): Shape (n, 4), xyxy, or rotated ones.

    Returns:
        Tensor: Shape (n, 4), xyxy.

    Raises:
        ValueError: If a tensor has another shape.
    """
    if is_rotated(boxes):
        if type(boxes) not in box_types.values():
            check_box_shape(boxes.shape)
        return boxes.convert_to('hbox').tensor
    corners = get_box_tensor(boxes)
    check_box_shape(corners.shape)
    return corners


def outlines(boxes: BaseBoxes) -> NDArray[np.float32]:
    """Boxes of any type as plain numbers: xyxy (n, 4), or the corners (n, 8) of rotated ones."""
    return (boxes.convert_to('qbox') if is_rotated(boxes) else boxes).numpy()


def box_areas(boxes: Tensor | BaseBoxes) -> Tensor:
    """Areas of boxes of any type, of rotated ones their own.

    Args:
        boxes (Tensor | BaseBoxes): Shape (..., 4), xyxy, or rotated ones.

    Returns:
        Tensor: float64, shape (...). NaN for boxes that are turned inside out.

    Raises:
        ValueError: If a tensor has another shape.
    """
    if is_rotated(boxes):
        boxes = type(boxes)(boxes.tensor.detach().double(), clone=False)
        return boxes.areas.where((boxes.widths >= 0) & (boxes.heights >= 0), math.nan)
    corners = get_box_tensor(boxes).detach()
    check_box_shape(corners.shape[-2:])
    # Areas of half precision boxes would overflow.
    sides = corners[..., 2:].double() - corners[..., :2].double()
    return sides.prod(dim=-1).where((sides >= 0).all(dim=-1), math.nan)


def visible_shares(boxes: BaseBoxes, width: float, height: float) -> Tensor:
    """How much of rotated boxes is inside an input.

    Args:
        boxes (BaseBoxes): n rotated boxes, in pixels of the input.
        width, height (float): Of the input.

    Returns:
        Tensor: Shares of their areas, from 0 to 1, shape (n,).
    """
    window = torch.tensor([[width / 2, height / 2, width, height, 0.0]])
    rotated = boxes.convert_to('rbox').tensor.float()
    return box_iou_rotated(rotated, window, mode='iof')[:, 0].clamp(0, 1)
