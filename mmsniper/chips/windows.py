"""Windows over images of any size: how they are cut, go into batches, and share out detections.

Mining, AutoFocus and inference see large images in such bounded pieces.
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
from mmsniper.utils.checks import check_box_shape

Box = tuple[float, float, float, float]

WINDOW_SIZE = 2048
"""Default of every ``window_size``, the longest side of a window in pixels of its level. As windows
overlap by a chip, the paper's of 512 px, a large scene costs (2048 / 1536)^2 = 1.8 times its
pixels."""

CHIP_SLACK = 2e-3
"""A chip's edge this close to a pixel's edge (original px) lies on it: float32 coordinates of
20,000 px scenes are exact to 0.001 px."""


@dataclass(frozen=True)
class Window:
    """A piece of an image that the network sees at once, at a level of the pyramid.

    Attributes:
        image: Index of the image.
        level: Pyramid level, 0 is the finest.
        box: The piece (x1, y1, x2, y2) in original pixels.
        core: The part of the box whose detections belong to this window. Cores do not overlap.
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
        """Which detections belong to this window: those whose centre is in its core.

        A centre where two cores meet belongs to the right or lower one; one on the right or bottom
        edge of the image belongs to the last window.

        Args:
            boxes (NDArray | Tensor): Shape (n, 4), xyxy in original pixels.
            width, height (int): Size of the whole image.

        Returns:
            NDArray | Tensor: Booleans, shape (n,).

        Raises:
            ValueError: If boxes have another shape, such as that of rotated boxes.
        """
        check_box_shape(boxes.shape)
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        x1, y1, x2, y2 = self.core
        x2, y2 = (x2 if x2 < width else math.inf), (y2 if y2 < height else math.inf)
        return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def check_window_size(window_size: int, pyramid: ScalePyramid) -> None:
    """Raise a ValueError if windows of up to ``window_size`` px a side cannot overlap by a chip."""
    if not window_size > pyramid.chip_size:
        raise ValueError(
            f'window_size {window_size} must exceed the chip size, {pyramid.chip_size}: windows '
            f'overlap by a chip, so that nothing that fits into one is cut'
        )


class LevelWindows:
    """The windows in which the network sees whole images, at every level of a pyramid.

    Where an image is larger than ``window_size``, its windows overlap by a chip, so that whatever
    fits into a chip is whole in one, and are as small as their number allows.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Image sizes in original pixels, shape (n,).
        window_size (int): Longest side of a window, pixels of the level.
        image (ArrayLike | None): Index that the windows of each image carry, shape (n,). Defaults
            to None, 0 to n - 1.

    Attributes:
        count (Ints): Number of windows, shape (n, num_levels).
        shape (Ints): Their height and width, pixels of the level, shape (n, num_levels, 2).

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
        size = self.width[:, None] * scales, self.height[:, None] * scales
        self.count, side = fewest_windows(*size, window_size, pyramid.chip_size)
        self._side = np.where(self.count > 1, round_up(side), window_size)
        self.shape = _window_shape(*size, self._side)

    def __len__(self) -> int:
        return len(self.width)

    @property
    def pixels(self) -> Ints:
        """Pixels of all windows of each image, at their levels, shape (n,)."""
        return (self.count * self.shape.prod(axis=-1)).sum(axis=-1)

    def of_image(self, i: int) -> Iterator[Window]:
        """The windows of the image at a position, finest level first."""
        for level in range(self.pyramid.num_levels):
            yield from self.of_level(i, level)

    def of_level(self, i: int, level: int) -> Iterator[Window]:
        """The windows of the image at a position, at a level."""
        region = (0.0, 0.0, float(self.width[i]), float(self.height[i]))
        scale, side = float(self.pyramid.scales(*region[2:])[level]), float(self._side[i, level])
        image, overlap = int(self.image[i]), self.pyramid.chip_size
        return cut_windows(region, scale, side, overlap, image=image, level=level)


def cut_windows(
    region: Box, scale: float, side: float, overlap: float, *, image: int = 0, level: int = 0
) -> Iterator[Window]:
    """Cover an image, or a region of it, with windows of one size, row by row.

    Cores fill the region. What is at most ``overlap`` wide and high and has its centre in a core is
    whole in that window, unless the region's edge cuts it.

    Args:
        region (Box): What to cover (x1, y1, x2, y2), original pixels.
        scale (float): Pixels of the level per original pixel.
        side (float): Side of a window, pixels of the level; a window ends where the region ends.
        overlap (float): Least overlap of neighbours, pixels of the level.
        image, level (int): What the windows carry. Default to 0.

    Returns:
        Iterator[Window]: The windows.

    Raises:
        ValueError: If the windows are not larger than their overlap.

    Example:
        >>> windows = list(cut_windows((0, 0, 250, 80), 1, side=100, overlap=20))
        >>> [window.box[0::2] for window in windows]
        [(0.0, 100.0), (75.0, 175.0), (150.0, 250.0)]
        >>> [window.core[0::2] for window in windows]
        [(0.0, 87.5), (87.5, 162.5), (162.5, 250.0)]
    """
    _check_overlap(side, overlap)
    x1, y1, x2, y2 = region
    shape = tuple(_window_shape((x2 - x1) * scale, (y2 - y1) * scale, side).tolist())
    side, overlap = side / scale, overlap / scale
    columns = list(zip(*_intervals(x1, x2, side, overlap)))
    for (top, bottom), (core_top, core_bottom) in zip(*_intervals(y1, y2, side, overlap)):
        for (left, right), (core_left, core_right) in columns:
            box, core = (left, top, right, bottom), (core_left, core_top, core_right, core_bottom)
            yield Window(image, level, box, core, shape)


def fewest_windows(
    width: ArrayLike, height: ArrayLike, side: float | NDArray, overlap: float | NDArray
) -> tuple[Ints, Floats]:
    """How many windows :func:`cut_windows` makes, and how small as many could be.

    An image just larger than a window is better seen in two halves than in two whole windows.

    Args:
        width, height (ArrayLike): Sizes of regions, pixels of the level.
        side, overlap (float | NDArray): As there. All four broadcast.

    Returns:
        tuple[Ints, Floats]: Numbers, and the smallest sides that need no more windows along either
        axis, both of the broadcast shape.

    Example:
        >>> fewest_windows([110, 110, 300], [30, 80, 30], side=100, overlap=20)
        (array([2, 2, 4]), array([65., 80., 90.]))
    """
    _check_overlap(side, overlap)
    lengths = np.asarray(width), np.asarray(height)
    counts = [_count(length, side, overlap) for length in lengths]
    sides = [(length + (n - 1) * overlap) / n for length, n in zip(lengths, counts)]
    return counts[0] * counts[1], np.minimum(np.maximum(*sides), side)


def window_batches(
    windows: Iterable[Window],
    max_pixels: int,
    *,
    max_padding: float = 1.0,
    pad_size_divisor: int = 1,
) -> Iterator[list[Window]]:
    """Put windows of about the same shape into batches; their order hardly matters.

    Args:
        windows (Iterable[Window]): The windows, of one image or several.
        max_pixels (int): Most pixels of a batch of several windows, with its padding.
        max_padding (float): Most pixels of a batch over those of its windows. Defaults to 1, only
            windows of one shape go together.
        pad_size_divisor (int): Divisor that heights and widths are padded to. Defaults to 1.

    Returns:
        Iterator[list[Window]]: The batches.
    """

    def padded(window: Window) -> tuple[int, ...]:
        return tuple(-(-side // pad_size_divisor) * pad_size_divisor for side in window.shape)

    batch: list[Window] = []
    largest: tuple[int, ...] = (0, 0)
    unpadded = 0
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
    """The smallest window (x1, y1, x2, y2) of whole pixels, one at least, that holds a box.

    Args:
        box (Box): Original pixels.
        width, height (int): Image size, which the window stays inside.
        slack (float): An edge this close to a pixel's edge (original px) lies on it.
    """
    x1 = min(max(math.floor(box[0] + slack), 0), width - 1)
    y1 = min(max(math.floor(box[1] + slack), 0), height - 1)
    x2 = max(min(math.ceil(box[2] - slack), width), x1 + 1)
    y2 = max(min(math.ceil(box[3] - slack), height), y1 + 1)
    return x1, y1, x2, y2


def chip_window(
    box: Box, level: int, pyramid: ScalePyramid, width: int, height: int
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """What is cut out of an image for a chip, and the size that it is resized to.

    Args:
        box (Box): What the chip shows, xyxy, original pixels.
        level (int): Its level.
        pyramid (ScalePyramid): The pyramid.
        width, height (int): Image size.

    Returns:
        tuple[tuple[int, int, int, int], tuple[int, int]]: The window (x1, y1, x2, y2) in whole
        original pixels, and the chip's width and height: the chip size, or less where the image
        is smaller.
    """
    x1, y1, x2, y2 = window = pixel_window(box, width, height, CHIP_SLACK)
    scale = pyramid.scales(width, height)[level]
    # Rounding to whole pixels must not exceed the chip.
    sides = np.clip(np.round(np.multiply((x2 - x1, y2 - y1), scale)), 1, pyramid.chip_size)
    w, h = sides.astype(int).tolist()
    return window, (w, h)


def round_up(pixels: ArrayLike) -> Ints:
    """Round up to whole pixels, but not what float arithmetic has put above a whole number."""
    return np.ceil(np.asarray(pixels) * (1 - TOLERANCE)).astype(np.int64)


def _window_shape(width: ArrayLike, height: ArrayLike, side: ArrayLike) -> Ints:
    """Height and width of windows over regions, all in pixels of the level, shape (..., 2)."""
    return np.stack([np.minimum(round_up(length), side) for length in (height, width)], axis=-1)


def _check_overlap(side: float | NDArray, overlap: float | NDArray) -> None:
    if not np.all(np.less_equal(0, overlap) & np.less(overlap, side)):
        raise ValueError(f'windows of {side} px cannot overlap by {overlap} px')


def _count(length: ArrayLike, side: ArrayLike, overlap: ArrayLike) -> Ints:
    """Windows along one axis."""
    length, side, overlap = (np.asarray(value, np.float64) for value in (length, side, overlap))
    needed = np.ceil((length - overlap) / (side - overlap) - TOLERANCE)
    return np.maximum(needed, 1).astype(np.int64)


def _intervals(
    first: float, last: float, side: float, overlap: float
) -> tuple[list[list[float]], list[list[float]]]:
    """Start and end of the windows and of their cores along one axis."""
    count = int(_count(last - first, side, overlap))
    start = np.linspace(first, max(last - side, first), count)
    windows = np.stack([start, start + side], axis=1)
    windows[-1, 1] = last
    between = (windows[1:, 0] + windows[:-1, 1]) / 2
    ends = np.concatenate([[first], between, [last]])
    return windows.tolist(), np.stack([ends[:-1], ends[1:]], axis=1).tolist()
