"""Windows that cover an image of any size, so that the network sees it in bounded pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.pyramid import TOLERANCE, ScalePyramid
from mmsniper.chips.rectangles import Floats, Ints

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class LevelWindows:
    """The windows in which a network sees images whole, at every level of a pyramid.

    At a level where an image is larger than the windows may be, it is seen in overlapping windows,
    as small as their number allows. Whatever fits into a chip is whole in one of them.

    Attributes:
        pyramid: The scale pyramid.
        width, height: Image sizes in original pixels, shape (n,).
        shape: Height and width of the windows in scaled pixels, shape (n, num_levels, 2).
        count: Number of windows, shape (n, num_levels).
    """

    pyramid: ScalePyramid
    width: Ints
    height: Ints
    shape: Ints
    count: Ints

    @classmethod
    def of(
        cls, pyramid: ScalePyramid, width: ArrayLike, height: ArrayLike, window_size: int
    ) -> LevelWindows:
        """The windows of images of the given sizes.

        Args:
            pyramid (ScalePyramid): The scale pyramid.
            width, height (ArrayLike): Image sizes in original pixels, shape (n,).
            window_size (int): Largest side of a window in scaled pixels, more than the chip size.

        Raises:
            ValueError: If the windows are not larger than a chip.
        """
        if not window_size > pyramid.chip_size:
            raise ValueError(
                f'window_size {window_size} must exceed the chip size, {pyramid.chip_size}: '
                f'windows overlap by a chip, so that nothing that fits into one is cut'
            )
        size = np.stack([height, width], axis=1).astype(np.int64)
        scaled = size[:, None] * pyramid.scales(size[:, 1], size[:, 0])[..., None]
        tiling = scaled[..., 1], scaled[..., 0], window_size, pyramid.chip_size
        shape = np.minimum(_whole(scaled), _whole(least_side(*tiling))[..., None])
        return cls(pyramid, size[:, 1], size[:, 0], shape, window_counts(*tiling))

    def __len__(self) -> int:
        return len(self.width)

    @property
    def pixels(self) -> Ints:
        """Scaled pixels of all windows of each image, shape (n,)."""
        return (self.count * self.shape.prod(axis=-1)).sum(axis=-1)

    def of_image(self, i: int) -> Iterator[tuple[int, Box, Box]]:
        """Level, window and core (see :func:`overlapping_windows`) of each window of an image."""
        width, height = int(self.width[i]), int(self.height[i])
        for level, scale in enumerate(self.pyramid.scales(width, height).tolist()):
            if self.count[i, level] == 1:
                whole = (0.0, 0.0, float(width), float(height))
                yield level, whole, whole
                continue
            boxes, cores = overlapping_windows(
                width, height, self.shape[i, level].max() / scale, self.pyramid.chip_size / scale
            )
            for box, core in zip(boxes.tolist(), cores.tolist()):
                yield level, tuple(box), tuple(core)


def _whole(pixels: Floats) -> Ints:
    """Round up, but not what rounding has put above a whole number."""
    return np.ceil(pixels * (1 - TOLERANCE)).astype(np.int64)


def overlapping_windows(
    width: int, height: int, side: float, overlap: float
) -> tuple[Floats, Floats]:
    """Cover an image with windows of one size, and share the image out to them.

    Whatever is at most ``overlap`` wide and high and has its centre in a window's core lies whole
    in that window, or is cut by the image's edge only.

    Args:
        width, height (int): Image size, pixels.
        side (float): Side of a window, pixels; a window ends where the image ends.
        overlap (float): Least overlap of neighbours, pixels, less than ``side``.

    Returns:
        tuple[Floats, Floats]: Windows and their cores, xyxy, shape (n, 4) each, row by row. The
        cores do not overlap and fill the image.

    Raises:
        ValueError: If the windows are not larger than their overlap.

    Example:
        >>> windows, cores = overlapping_windows(250, 80, side=100, overlap=20)
        >>> windows[:, [0, 2]].tolist()
        [[0.0, 100.0], [75.0, 175.0], [150.0, 250.0]]
        >>> cores[:, [0, 2]].tolist()
        [[0.0, 87.5], [87.5, 162.5], [162.5, 250.0]]
    """
    _check(side, overlap)
    (x, core_x), (y, core_y) = (_along(length, side, overlap) for length in (width, height))
    return _grid(x, y), _grid(core_x, core_y)


def window_counts(
    width: ArrayLike, height: ArrayLike, side: ArrayLike, overlap: ArrayLike
) -> NDArray[np.int64]:
    """How many windows :func:`overlapping_windows` makes.

    Args:
        width, height, side, overlap (ArrayLike): As there, of any shapes that broadcast.

    Example:
        >>> window_counts([250, 99], [80, 101], side=100, overlap=20)
        array([3, 2])
    """
    return _count(width, side, overlap) * _count(height, side, overlap)


def least_side(width: ArrayLike, height: ArrayLike, side: ArrayLike, overlap: ArrayLike) -> Floats:
    """The least side of windows with which no more of them are needed, along either axis.

    An image just larger than a window is seen in two halves, not in two whole windows.

    Args:
        width, height (ArrayLike): Image sizes, pixels.
        side (ArrayLike): Largest side of a window, pixels.
        overlap (ArrayLike): Least overlap of neighbours, pixels, less than ``side``.

    Returns:
        Floats: Sides in pixels, of the shape to which the arguments broadcast.

    Raises:
        ValueError: If the windows are not larger than their overlap.

    Example:
        >>> least_side([110, 110, 300], [30, 80, 30], side=100, overlap=20)
        array([65., 80., 90.])
    """
    _check(side, overlap)
    sides = []
    for length in (np.asarray(width), np.asarray(height)):
        count = _count(length, side, overlap)
        sides.append((length + (count - 1) * overlap) / count)
    return np.minimum(np.maximum(*sides), side)


def _check(side: ArrayLike, overlap: ArrayLike) -> None:
    if not (np.less_equal(0, overlap) & np.less(overlap, side)).all():
        raise ValueError(f'windows of {side} px cannot overlap by {overlap} px')


def _count(length: ArrayLike, side: ArrayLike, overlap: ArrayLike) -> NDArray[np.int64]:
    """Windows along one axis."""
    length, side, overlap = (np.asarray(value, np.float64) for value in (length, side, overlap))
    needed = np.ceil((length - overlap) / (side - overlap) - 1e-9)
    return np.maximum(needed, 1).astype(np.int64)


def _along(length: int, side: float, overlap: float) -> tuple[Floats, Floats]:
    """Start and end of the windows and of their cores along one axis, shape (n, 2) each."""
    start = np.linspace(0.0, max(length - side, 0.0), int(_count(length, side, overlap)))
    windows = np.stack([start, np.minimum(start + side, length)], axis=1)
    between = (windows[1:, 0] + windows[:-1, 1]) / 2
    ends = np.concatenate([[0.0], between, [length]])
    return windows, np.stack([ends[:-1], ends[1:]], axis=1)


def _grid(x: Floats, y: Floats) -> NDArray[np.float64]:
    """All pairs of the intervals in x and in y as boxes, row by row."""
    row, column = np.divmod(np.arange(len(x) * len(y)), len(x))
    return np.stack([x[column, 0], y[row, 0], x[column, 1], y[row, 1]], axis=1)


def pixel_window(box: Box, width: int, height: int, slack: float) -> tuple[int, int, int, int]:
    """The smallest window of whole pixels that holds a box, inside the image.

    Args:
        box (Box): Window (x1, y1, x2, y2), original pixels.
        width, height (int): Image size.
        slack (float): An edge this close to a pixel's edge (original px) lies on it.

    Returns:
        tuple[int, int, int, int]: (x1, y1, x2, y2) of at least one pixel a side.
    """
    x1 = min(max(math.floor(box[0] + slack), 0), width - 1)
    y1 = min(max(math.floor(box[1] + slack), 0), height - 1)
    x2 = max(min(math.ceil(box[2] - slack), width), x1 + 1)
    y2 = max(min(math.ceil(box[3] - slack), height), y1 + 1)
    return x1, y1, x2, y2
