"""Masks of objects that were found in windows of an image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from torch import Tensor

MAX_MASK_PIXELS = 2**29
"""Pixels of the masks of an image, at most, for which there is one tensor: half a GB."""


@dataclass(frozen=True)
class PlacedMask:
    """A mask as large as its object.

    Attributes:
        mask: Bool, (h, w).
        corner: x and y of its upper left pixel in the image.
    """

    mask: NDArray[np.bool_]
    corner: tuple[int, int]

    def moved(self, by: tuple[int, int]) -> PlacedMask:
        """The mask so many pixels further to the right and down."""
        return PlacedMask(self.mask, (self.corner[0] + by[0], self.corner[1] + by[1]))

    def rle(self, width: int, height: int) -> dict[str, Any]:
        """COCO's compressed RLE of the mask in an image, which is never made as a whole."""
        x, y = self.corner
        columns = np.pad(self.mask, ((1, 1), (0, 0))).astype(np.int8).T
        step = np.diff(columns, axis=1)
        column, row = np.nonzero(step)  # starts and ends of runs in turn, column by column
        at = (x + column) * height + y + row
        # Runs of full height meet at the edges of columns.
        meet = np.flatnonzero(at[1:-1:2] == at[2::2])
        at = np.delete(at, np.concatenate([2 * meet + 1, 2 * meet + 2]))
        end = [] if len(at) and at[-1] == width * height else [width * height]
        counts = np.diff(np.concatenate([[0], at, end])).astype(int).tolist()
        return coco_masks.frPyObjects(dict(size=[height, width], counts=counts), height, width)


class EncodedMask(dict):
    """COCO's RLE of a mask, which is the array (h, w) where it is indexed as one."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else coco_masks.decode(self)[key]


class EncodedMasks:
    """The ``EncodedMask`` of each object of an image, for MMDetection's code that has a tensor.

    Args:
        masks (Iterable[EncodedMask]): The masks.
        shape (tuple[int, int]): Height and width of the image.
    """

    def __init__(self, masks: Iterable[EncodedMask], shape: tuple[int, int]) -> None:
        self.masks, self.shape = list(masks), shape

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, key: int | slice) -> EncodedMask | EncodedMasks:
        if isinstance(key, slice):
            return EncodedMasks(self.masks[key], self.shape)
        return self.masks[key]

    def cat(self, parts: Iterable[EncodedMasks]) -> EncodedMasks:
        """Masks one after the other, by which ``InstanceData`` chooses some."""
        return EncodedMasks((mask for part in parts for mask in part.masks), self.shape)

    def numpy(self) -> EncodedMasks:
        """As it is: ``DumpDetResults`` encodes masks one by one."""
        return self

    def astype(self, dtype: Any) -> NDArray[Any]:
        """The masks (n, h, w), which visualizers draw."""
        masks = np.zeros((len(self), *self.shape), dtype)
        for canvas, mask in zip(masks, self.masks):
            canvas[:] = mask[:]
        return masks


class ImageMasks:
    """The masks of an image's objects, as they come.

    They become a tensor, as MMDetection has them, or :class:`EncodedMasks` where the tensor would
    have more than :data:`MAX_MASK_PIXELS`. MMDetection's metrics, inferencer and visualizers take
    either.

    Args:
        count (int): Number of objects.
        size (tuple[int, int]): Width and height of the image.
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.count, self.size = count, size
        self.as_tensor = count * math.prod(size) <= MAX_MASK_PIXELS
        self._placed: dict[int, PlacedMask] = {}
        self._encoded: dict[int, EncodedMask] = {}

    def add(self, objects: Sequence[int], masks: Sequence[PlacedMask]) -> None:
        """Give some objects their masks."""
        for i, mask in zip(objects, masks):
            if self.as_tensor:
                self._placed[i] = mask
            else:
                self._encoded[i] = EncodedMask(mask.rle(*self.size))

    def finished(self, device: torch.device) -> Tensor | EncodedMasks:
        """The masks of all objects."""
        shape = self.size[::-1]
        if not self.as_tensor:
            return EncodedMasks((self._encoded[i] for i in range(self.count)), shape)
        masks = np.zeros((self.count, *shape), bool)
        for i, canvas in enumerate(masks):
            placed = self._placed[i]
            (x, y), (height, width) = placed.corner, placed.mask.shape
            canvas[y : y + height, x : x + width] = placed.mask
        return torch.from_numpy(masks).to(device)
