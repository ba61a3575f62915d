"""What the network sees of images that are tested at the levels of a pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

from mmsniper.chips.focus import FocusMap
from mmsniper.chips.windows import Box, Window, pixel_window
from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.utils.checks import check_box_shape

TEXT_KEYS = ('text', 'custom_entities', 'caption_prompt', 'tokens_positive')
"""Metainfo of an image by which a detector that takes texts is told what to find."""

# A window's edge this close to a pixel's edge (original px) lies on it: coordinates are float64.
_ON_PIXEL = 1e-6


@dataclass
class Scene:
    """An image while it is tested.

    Attributes:
        image: Shape (3, H, W), original pixels, or one of which windows are read.
        chips: What was looked at, of each level so far, coarse to fine; boxes (n, 4) in original
            pixels.
        maps: FocusPixels of these levels.
        found: Detections of each window so far, see ``PyramidDetector.detect``.
        pixels: How many pixels the detector has seen.
        text: What of :data:`TEXT_KEYS` the image has.
    """

    image: Tensor | ImageWindows
    chips: list[NDArray[np.float64]] = field(default_factory=list)
    maps: list[list[FocusMap]] = field(default_factory=list)
    found: list[InstanceData] = field(default_factory=list)
    pixels: int = 0
    text: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return image_size(self.image)


@dataclass
class SeenBatch:
    """Windows that were seen together.

    Attributes:
        windows: The windows.
        samples: As the network got them.
        feats: Their feature maps, None if they were not kept.
    """

    windows: Sequence[Window]
    samples: SampleList
    feats: Sequence[Tensor] | None


def image_size(image: Tensor | ImageWindows) -> tuple[int, int]:
    """Width and height of a tensor (3, H, W), or of an image of which windows are read."""
    height, width = image.shape[:2] if isinstance(image, ImageWindows) else image.shape[1:]
    return width, height


def area_share(box: Box, size: tuple[int, int]) -> float:
    """Share of an image's area that a box has."""
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) / (size[0] * size[1])


def whole_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that are cut out for a window: an edge at the image's is there exactly."""
    return pixel_window(box, *size, _ON_PIXEL)


def load_window(scene: Scene, box: Box, scale: float) -> tuple[Tensor, DetDataSample]:
    """A window of an image at a level's scale, as a pipeline would give it."""
    x1, y1, x2, y2 = whole_pixels(box, scene.size)
    out = max(int((x2 - x1) * scale + 0.5), 1), max(int((y2 - y1) * scale + 0.5), 1)
    # On the CPU by OpenCV, as ChipSampler and LevelResize do: the same pixels.
    if isinstance(scene.image, ImageWindows):
        pixels = scene.image.read((x1, y1, x2, y2), out)
    else:
        crop = scene.image[:, y1:y2, x1:x2].permute(1, 2, 0)
        pixels = mmcv.imresize(np.ascontiguousarray(crop.cpu().numpy()), out)
    pixels = pixels.reshape(*out[::-1], -1)  # one channel, of which OpenCV drops the axis
    info = dict(
        img_shape=out[::-1],
        ori_shape=(y2 - y1, x2 - x1),
        scale_factor=(out[0] / (x2 - x1), out[1] / (y2 - y1)),
        **scene.text,
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

    Raises:
        ValueError: If boxes have another shape, such as that of rotated boxes.
    """
    check_box_shape(boxes.shape)
    (x1, y1, x2, y2), (width, height) = window, size
    inner = torch.tensor([x1 > 0, y1 > 0, x2 < width, y2 < height], device=boxes.device)
    distance = (boxes - boxes.new_tensor(window)) * boxes.new_tensor([1, 1, -1, -1])
    return ((distance > edge) | ~inner).all(dim=1)
