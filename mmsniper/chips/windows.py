"""Windows over images of any size, so that the network sees them in bounded pieces.

How an image is cut into overlapping windows, how windows go into batches, and which window a
detection belongs to. Mining and AutoFocus both ask here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.pyramid import TOLERANCE, ScalePyramid
from mmsniper.chips.rectangles import Floats, Ints

Box = tuple[float, float, float, float]

# Four times the paper's chips of 512 px, by which windows overlap: a large scene then costs
# (2048 / 1536)^2, or 1.8, times its pixels.
WINDOW_SIZE = 2048
"""Default of every ``window_size``: the longest side of what the network sees at once, pixels."""


@dataclass(frozen=True)
class Window:
    """A piece of an image that the network sees at once, at a level of the pyramid.

    Attributes:
        image: Index of the image.
        level: Pyramid level, 0 is the finest.
        box: The piece (x1, y1, x2, y2) in original pixels.
        core: The part of the box (x1, y1, x2, y2) whose detections belong to this window. The
            cores of overlapping windows do not overlap.
        shape: Height and width in pixels of the level.
    """

    image: int
    level: int
    box: Box
    core: Box
    shape: tuple[int, int]

    @property
    def pixels(self) -> int:
        """Pixels of the level."""
        return self.shape[0] * self.shape[1]

    def owns(self, boxes: Any, width: int, height: int) -> Any:
        """Which detections or proposals belong to this window: those centred in its core.

        A centre where two cores meet belongs to the right or lower one, and a centre on the right
        or bottom edge of the image to the last one.

        Args:
            boxes (NDArray | Tensor): Shape (n, 4), xyxy in original pixels.
            width, height (int): Size of the whole image.

        Returns:
            NDArray | Tensor: Booleans, shape (n,).
        """
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        x1, y1, x2, y2 = self.core
        if x2 >= width:
            x2 = math.inf
        if y2 >= height:
            y2 = math.inf
        return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def check_window_size(window_size: int, pyramid: ScalePyramid) -> None:
    """Check that windows can overlap by a chip.

    Args:
        window_size (int): Longest side of a window, pixels of the level.
        pyramid (ScalePyramid): The scale pyramid.

    Raises:
        ValueError: If windows are not larger than a chip.
    """
    if not window_size > pyramid.chip_size:
        raise ValueError(
            f'window_size {window_size} must exceed the chip size, {pyramid.chip_size}: windows '
            f'overlap by a chip, so that nothing that fits into one is cut'
        )


class LevelWindows:
    """The windows in which the network sees whole images, at every level of a pyramid.

    At a level where an image is larger than the windows may be, it is seen in overlapping windows,
    as small as their number allows. Whatever fits into a chip is whole in one of them.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Image sizes in original pixels, shape (n,).
        window_size (int): Longest side of a window, pixels of the level, more than the chip size.
        image (ArrayLike | None): Index that the windows of each image carry, shape (n,). Defaults
            to None, 0 to n - 1.

    Attributes:
        count (Ints): Number of windows, shape (n, num_levels).
        shape (Ints): Height and width of the windows, pixels of the level, shape (n, num_levels,
            2).

    Raises:
        ValueError: If the windows are not larger than a chip.
    """

    def __init__(
        self,
        pyramid: ScalePyramid,
        width: ArrayLike,
        height: ArrayLike,
        window_size: int,
        image: ArrayLike | None = None,
    ) -> None:
        check_window_size(window_size, pyramid)
        self.pyramid = pyramid
        self.width, self.height = np.asarray(width, np.int64), np.asarray(height, np.int64)
        self.image = np.arange(len(self.width)) if image is None else np.asarray(image, np.int64)
        scales = pyramid.scales(self.width, self.height)
        tiling = *(side[:, None] * scales for side in (self.width, self.height)), window_size
        self.count = window_counts(*tiling, pyramid.chip_size)
        side = round_up(min_window_side(*tiling, pyramid.chip_size))
        self._side = np.where(self.count > 1, side, window_size)
        self.shape = _window_shape(*tiling[:2], self._side)

    def __len__(self) -> int:
        return len(self.width)

    @property
    def pixels(self) -> Ints:
        """Pixels of all windows of each image, at their levels, shape (n,)."""
        return (self.count * self.shape.prod(axis=-1)).sum(axis=-1)

    def of_image(self, i: int) -> Iterator[Window]:
        """The windows of the image at a position, finest level first."""
        width, height = float(self.width[i]), float(self.height[i])
        scales = self.pyramid.scales(width, height).tolist()
        for level, (scale, side) in enumerate(zip(scales, self._side[i].tolist())):
            yield from cut_windows(
                (0.0, 0.0, width, height),
                scale,
                side,
                self.pyramid.chip_size,
                image=int(self.image[i]),
                level=level,
            )


def cut_windows(
    region: Box, scale: float, window_size: int, overlap: float, *, image: int = 0, level: int = 0
) -> Iterator[Window]:
    """Cover an image, or a region of it, with overlapping windows of a level.

    A region that fits into a window is one window.

    Args:
        region (Box): What to cover (x1, y1, x2, y2), original pixels.
        scale (float): Pixels of the level per original pixel.
        window_size (int): Side of a window, pixels of the level.
        overlap (float): Least overlap of neighbours, pixels of the level, less than
            ``window_size``.
        image (int): Index of the image. Defaults to 0.
        level (int): The level. Defaults to 0.

    Raises:
        ValueError: If the windows are not larger than their overlap.
    """
    x1, y1, x2, y2 = region
    shape = tuple(_window_shape((x2 - x1) * scale, (y2 - y1) * scale, window_size).tolist())
    boxes, cores = overlapping_windows(region, window_size / scale, overlap / scale)
    for box, core in zip(boxes.tolist(), cores.tolist()):
        yield Window(image, level, tuple(box), tuple(core), shape)


def overlapping_windows(region: Box, side: float, overlap: float) -> tuple[Floats, Floats]:
    """Cover a region with windows of one size, and share the region out to them.

    Whatever is at most ``overlap`` wide and high and has its centre in a window's core lies whole
    in that window, or is cut by the region's edge only.

    Args:
        region (Box): What to cover (x1, y1, x2, y2), pixels.
        side (float): Side of a window, pixels; a window ends where the region ends.
        overlap (float): Least overlap of neighbours, pixels, less than ``side``.

    Returns:
        tuple[Floats, Floats]: Windows and their cores, xyxy, shape (n, 4) each, row by row. The
        cores do not overlap and fill the region.

    Raises:
        ValueError: If the windows are not larger than their overlap.

    Example:
        >>> windows, cores = overlapping_windows((0, 0, 250, 80), side=100, overlap=20)
        >>> windows[:, [0, 2]].tolist()
        [[0.0, 100.0], [75.0, 175.0], [150.0, 250.0]]
        >>> cores[:, [0, 2]].tolist()
        [[0.0, 87.5], [87.5, 162.5], [162.5, 250.0]]
    """
    _check_overlap(side, overlap)
    x1, y1, x2, y2 = region
    (x, core_x), (y, core_y) = _intervals(x1, x2, side, overlap), _intervals(y1, y2, side, overlap)
    return _grid(x, y), _grid(core_x, core_y)


def window_counts(
    width: ArrayLike, height: ArrayLike, side: ArrayLike, overlap: ArrayLike
) -> NDArray[np.int64]:
    """How many windows :func:`overlapping_windows` makes.

    Args:
        width, height (ArrayLike): Sizes of regions, pixels.
        side, overlap (ArrayLike): As there. All four broadcast.

    Example:
        >>> window_counts([250, 99], [80, 101], side=100, overlap=20)
        array([3, 2])
    """
    return _count(width, side, overlap) * _count(height, side, overlap)


def min_window_side(
    width: ArrayLike, height: ArrayLike, side: ArrayLike, overlap: ArrayLike
) -> Floats:
    """The smallest side of windows with which no more of them are needed, along either axis.

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
        >>> min_window_side([110, 110, 300], [30, 80, 30], side=100, overlap=20)
        array([65., 80., 90.])
    """
    _check_overlap(side, overlap)
    sides = []
    for length in (np.asarray(width), np.asarray(height)):
        count = _count(length, side, overlap)
        sides.append((length + (count - 1) * overlap) / count)
    return np.minimum(np.maximum(*sides), side)


def window_batches(
    windows: Iterable[Window],
    max_pixels: int,
    *,
    max_padding: float = 1.0,
    pad_size_divisor: int = 1,
) -> Iterator[list[Window]]:
    """Put windows of about the same shape into batches, each window into one.

    The order of the windows counts only among those of one shape and one image.

    Args:
        windows (Iterable[Window]): The windows.
        max_pixels (int): Pixels of a batch with its padding, at most; but a batch has at least one
            window.
        max_padding (float): A batch has at most so many times the pixels of its windows. Defaults
            to 1, only windows of the same shape go together.
        pad_size_divisor (int): Heights and widths are rounded up to multiples of it first. Defaults
            to 1.
    """

    def padded(window: Window) -> tuple[int, ...]:
        return tuple(-(-side // pad_size_divisor) * pad_size_divisor for side in window.shape)

    batch: list[Window] = []
    largest, unpadded = (0, 0), 0
    for window in sorted(windows, key=lambda w: (w.level, padded(w), w.image)):
        shape = padded(window)
        larger = tuple(map(max, largest, shape))
        pixels = (len(batch) + 1) * math.prod(larger)
        if batch and pixels > min(max_pixels, max_padding * (unpadded + math.prod(shape))):
            yield batch
            batch, larger, unpadded = [], shape, 0
        batch.append(window)
        largest, unpadded = larger, unpadded + math.prod(shape)
    if batch:
        yield batch


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


def round_up(pixels: ArrayLike) -> Ints:
    """Round up to whole pixels, but not what float arithmetic has put above a whole number."""
    return np.ceil(np.asarray(pixels) * (1 - TOLERANCE)).astype(np.int64)


def _window_shape(width: ArrayLike, height: ArrayLike, side: ArrayLike) -> Ints:
    """Height and width of windows over regions, all in pixels of the level, shape (..., 2)."""
    return np.stack([np.minimum(round_up(length), side) for length in (height, width)], axis=-1)


def _check_overlap(side: ArrayLike, overlap: ArrayLike) -> None:
    if not (np.less_equal(0, overlap) & np.less(overlap, side)).all():
        raise ValueError(f'windows of {side} px cannot overlap by {overlap} px')


def _count(length: ArrayLike, side: ArrayLike, overlap: ArrayLike) -> NDArray[np.int64]:
    """Windows along one axis."""
    length, side, overlap = (np.asarray(value, np.float64) for value in (length, side, overlap))
    needed = np.ceil((length - overlap) / (side - overlap) - TOLERANCE)
    return np.maximum(needed, 1).astype(np.int64)


def _intervals(first: float, last: float, side: float, overlap: float) -> tuple[Floats, Floats]:
    """Start and end of the windows and of their cores along one axis, shape (n, 2) each."""
    count = int(_count(last - first, side, overlap))
    start = np.linspace(first, max(last - side, first), count)
    windows = np.stack([start, start + side], axis=1)
    windows[-1, 1] = last
    between = (windows[1:, 0] + windows[:-1, 1]) / 2
    ends = np.concatenate([[first], between, [last]])
    return windows, np.stack([ends[:-1], ends[1:]], axis=1)


def _grid(x: Floats, y: Floats) -> NDArray[np.float64]:
    """All pairs of the intervals in x and in y as boxes, row by row."""
    row, column = np.divmod(np.arange(len(x) * len(y)), len(x))
    return np.stack([x[column, 0], y[row, 0], x[column, 1], y[row, 1]], axis=1)
