"""Masks from small maps of a window, enlarged only where their objects are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmsniper.models.masks import PlacedMask

# Pixels that are computed at once, at most (but at least a row).
_BAND = 2**22

# An enlarged pixel is made of cells that are nearer to it than this: two resizes, each by its two
# neighbours, of which the first one enlarges.
_REACH = 2


class Resize(NamedTuple):
    """A bilinear resize along an axis, as ``F.interpolate`` makes it.

    Attributes:
        length: Of the axis before.
        ratio: Length of a pixel afterwards, in those before.
    """

    length: int
    ratio: float

    def _places(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Where the pixels from ``start`` to ``stop`` lie among those before."""
        pixels = torch.arange(start, stop, dtype=torch.float64, device=device)
        return ((pixels + 0.5) * self.ratio - 0.5).clamp(0, self.length - 1)

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """From where to where the pixels before are needed."""
        first, last = self._places(start, stop, torch.device('cpu'))[[0, -1]].tolist()
        return math.floor(first), min(math.floor(last) + 2, self.length)

    def __call__(self, values: Tensor, start: int, stop: int, offset: int = 0) -> Tensor:
        """The pixels from ``start`` to ``stop``, along the first axis.

        Args:
            values (Tensor): Those before from ``offset`` on, at least those that it needs.
            start (int): The first pixel.
            stop (int): The one behind the last pixel.
            offset (int): Defaults to 0.
        """
        places = self._places(start, stop, values.device)
        before = places.floor().long()
        share = (places - before).to(values.dtype)[:, None]
        after = (before + 1).clamp(max=self.length - 1)
        return values[before - offset] * (1 - share) + values[after - offset] * share


class Axis(NamedTuple):
    """How an axis of a map becomes one of the window: two resizes, of which the first enlarges.

    Attributes:
        first: Of the map's cells.
        second: Of what the first has made.
        length: Pixels of the window.
    """

    first: Resize
    second: Resize
    length: int

    def around(self, cells: Tensor) -> tuple[int, int]:
        """From where to where pixels may be made of cells, of which those that are True count."""
        chosen = cells.nonzero()[:, 0].tolist()
        scale = self.first.ratio * self.second.ratio
        start = max(math.floor((chosen[0] - _REACH) / scale), 0)
        return start, min(math.ceil((chosen[-1] + 1 + _REACH) / scale), self.length)

    def __call__(self, values: Tensor, start: int, stop: int) -> Tensor:
        """The window's pixels from ``start`` to ``stop``, of a map, along its first axis."""
        needed = self.second.needs(start, stop)
        return self.second(self.first(values, *needed), start, stop, offset=needed[0])


def enlarged_mask(
    logits: Tensor, rows: Axis, columns: Axis, threshold: float
) -> tuple[PlacedMask, float]:
    """The mask of an object in a window, of its map.

    Memory goes by the size of the object, not of the window.

    Args:
        logits (Tensor): The map, shape (h, w).
        rows (Axis): How its first axis becomes the window's.
        columns (Axis): How its second one does.
        threshold (float): What is above it belongs to the object.

    Returns:
        tuple[PlacedMask, float]: The mask in the window, as large as its object, and the mean
        probability of its pixels. An empty mask has one pixel, and 0.
    """
    inside = logits > threshold
    nothing = PlacedMask(np.zeros((1, 1), bool), (0, 0))
    if not inside.any():
        return nothing, 0.0
    (top, bottom), (left, right) = rows.around(inside.any(dim=1)), columns.around(inside.any(dim=0))
    if top >= bottom or left >= right:  # it is in the padding only
        return nothing, 0.0
    height = max(_BAND // (right - left), 1)
    bands, total = [], 0.0
    for start in range(top, bottom, height):
        band = rows(logits, start, min(start + height, bottom))
        band = columns(band.T, left, right).T
        above = band > threshold
        total += float(band[above].sigmoid().sum())
        bands.append(above.cpu().numpy())
    mask = np.concatenate(bands)
    y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(y):
        return nothing, 0.0
    mask = mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    corner = (left + int(x[0]), top + int(y[0]))
    return PlacedMask(mask, corner), total / int(mask.sum())
