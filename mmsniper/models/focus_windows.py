"""Pixels of an image for the detector of AutoFocus, and which detections a cut spares."""

from __future__ import annotations

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from mmsniper.chips.windows import Box, pixel_window

# A window's edge this close to a pixel's edge (original px) lies on it: coordinates are float64.
_ON_PIXEL = 1e-6


def image_size(image: Tensor) -> tuple[int, int]:
    """Width and height of an image (3, H, W)."""
    return image.shape[2], image.shape[1]


def area_share(box: Box, size: tuple[int, int]) -> float:
    """Share of an image's area that a box has."""
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) / (size[0] * size[1])


def whole_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that are cut out for a window: an edge at the image's is there exactly."""
    return pixel_window(box, *size, _ON_PIXEL)


def load_window(image: Tensor, box: Box, scale: float) -> tuple[Tensor, DetDataSample]:
    """A window of an image at a level's scale, as a pipeline would give it."""
    x1, y1, x2, y2 = whole_pixels(box, image_size(image))
    crop = image[:, y1:y2, x1:x2]
    out = tuple(max(int(side * scale + 0.5), 1) for side in (x2 - x1, y2 - y1))
    # On the CPU by OpenCV, as ChipSampler and LevelResize do: the same pixels.
    pixels = mmcv.imresize(np.ascontiguousarray(crop.permute(1, 2, 0).cpu().numpy()), out)
    info = dict(
        img_shape=out[::-1],
        ori_shape=(y2 - y1, x2 - x1),
        scale_factor=(out[0] / (x2 - x1), out[1] / (y2 - y1)),
    )
    inputs = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return inputs, DetDataSample(metainfo=info)


def uncut(boxes: Tensor, window: Box, size: tuple[int, int], edge: float) -> Tensor:
    """Which boxes do not touch an edge of their window that is not an edge of the image.

    Args:
        boxes (Tensor): Shape (n, 4), xyxy in original pixels.
        window (Box): The window in original pixels.
        size (tuple[int, int]): Width and height of the image.
        edge (float): A box this close to an edge, original pixels, touches it.

    Returns:
        Tensor: Bool tensor of shape (n,).
    """
    (x1, y1, x2, y2), (width, height) = window, size
    inner = torch.tensor([x1 > 0, y1 > 0, x2 < width, y2 < height], device=boxes.device)
    distance = (boxes - boxes.new_tensor(window)) * boxes.new_tensor([1, 1, -1, -1])
    return ((distance > edge) | ~inner).all(dim=1)
