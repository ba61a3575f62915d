"""Windows that cover an image of any size, so that the network sees it in bounded pieces."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .rectangles import Floats


def overlapping_windows(
    width: int, height: int, side: float, overlap: float
) -> tuple[Floats, Floats]:
    """Cover an image with windows of one size, and share the image out to them.

    Whatever is at most ``overlap`` wide and high and has its centre in a window's core lies whole
    in that window, or is cut by the image's edge only.

    Args:
        width, height: Image size, pixels.
        side: Side of a window, pixels; a window ends where the image ends.
        overlap: Least overlap of neighbours, pixels, less than ``side``.

    Returns:
        Windows and their cores, xyxy, shape (n, 4) each, row by row. The cores do not overlap and
        fill the image.

    Raises:
        ValueError: If the windows are not larger than their overlap.

    Example:
        >>> windows, cores = overlapping_windows(250, 80, side=100, overlap=20)
        >>> windows[:, [0, 2]].tolist()
        [[0.0, 100.0], [75.0, 175.0], [150.0, 250.0]]
        >>> cores[:, [0, 2]].tolist()
        [[0.0, 87.5], [87.5, 162.5], [162.5, 250.0]]
    """
    if not 0 <= overlap < side:
        raise ValueError(f'windows of {side} px cannot overlap by {overlap} px')
    (x, core_x), (y, core_y) = (_along(length, side, overlap) for length in (width, height))
    return _grid(x, y), _grid(core_x, core_y)


def _along(length: int, side: float, overlap: float) -> tuple[Floats, Floats]:
    """Start and end of the windows and of their cores along one axis, shape (n, 2) each."""
    count = max(math.ceil((length - overlap) / (side - overlap) - 1e-9), 1)
    start = np.linspace(0.0, max(length - side, 0.0), count)
    windows = np.stack([start, np.minimum(start + side, length)], axis=1)
    between = (windows[1:, 0] + windows[:-1, 1]) / 2
    ends = np.concatenate([[0.0], between, [length]])
    return windows, np.stack([ends[:-1], ends[1:]], axis=1)


def _grid(x: Floats, y: Floats) -> NDArray[np.float64]:
    """All pairs of the intervals in x and in y as boxes, row by row."""
    row, column = np.divmod(np.arange(len(x) * len(y)), len(x))
    return np.stack([x[column, 0], y[row, 0], x[column, 1], y[row, 1]], axis=1)
