"""Rotated boxes, given by their corners: what encloses them, and how large they are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def enclosing_boxes(corners: NDArray[np.floating]) -> NDArray[np.float32]:
    """The upright boxes that enclose rotated ones.

    Args:
        corners (NDArray[np.floating]): x1, y1, ..., x4, y4, shape (n, 8).

    Returns:
        NDArray[np.float32]: xyxy, shape (n, 4).
    """
    points = np.asarray(corners, np.float32).reshape(-1, 4, 2)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def corner_sizes(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sizes of rotated boxes: sqrt(width times height) of the smallest rectangle around each.

    People draw four corners by hand, so that they are hardly ever a rectangle. MMRotate learns from
    the smallest one around them, too.

    Args:
        corners (NDArray[np.floating]): x1, y1, ..., x4, y4, shape (n, 8).

    Returns:
        NDArray[np.float64]: Shape (n,).
    """
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    areas = np.full(len(points), np.inf)
    # One side of the smallest rectangle goes through two of the points.
    for i, j in combinations(range(4), 2):
        along = points[:, j] - points[:, i]
        length = np.linalg.norm(along, axis=1, keepdims=True)
        along = np.where(length > 0, along / np.where(length > 0, length, 1), [1.0, 0.0])
        across = along[:, ::-1] * [-1, 1]
        axes = np.stack([along, across], axis=-1)
        areas = np.minimum(areas, np.ptp(points @ axes, axis=1).prod(axis=-1))
    return np.sqrt(areas)
