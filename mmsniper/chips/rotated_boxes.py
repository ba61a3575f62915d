"""Rotated boxes as the corners of rectangles: those around polygons, what encloses them, sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Float = TypeVar('_Float', bound=np.floating)


def enclosing_boxes(corners: NDArray[np.floating]) -> NDArray[np.float32]:
    """The upright boxes that enclose rotated ones.

    Args:
        corners (NDArray[np.floating]): x1, y1, ..., x4, y4, shape (n, 8).

    Returns:
        NDArray[np.float32]: xyxy, shape (n, 4).
    """
    points = np.asarray(corners, np.float32).reshape(-1, 4, 2)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def box_corners(boxes: NDArray[_Float]) -> NDArray[_Float]:
    """The corners (n, 8) of upright boxes (n, 4), xyxy, one after the other."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]]


def rectangle_sides(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    """Lengths of both sides of rectangles.

    Args:
        corners (NDArray[np.floating]): x1, y1, ..., x4, y4, one after the other, shape (n, 8).

    Returns:
        NDArray[np.float64]: Shape (n, 2).
    """
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    return np.linalg.norm(points[:, 1:3] - points[:, :2], axis=2)


def smallest_rectangles(polygons: Iterable[ArrayLike]) -> NDArray[np.float64]:
    """The smallest rectangles around polygons.

    People draw four corners by hand, so that they are hardly ever a rectangle. MMRotate learns from
    the smallest one around them, whatever the format.

    Args:
        polygons (Iterable[ArrayLike]): x1, y1, x2, y2, ... of each, at least one point.

    Returns:
        NDArray[np.float64]: Their corners, one after the other, shape (n, 8). NaN where a
        coordinate is not finite.
    """
    points = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    # One side of the smallest rectangle goes through two neighbours of the convex hull.
    points = [_hull(some) if len(some) > 4 else some for some in points]
    counts = np.array([len(some) for some in points], int)
    rectangles = np.full((len(points), 8), np.nan)
    for count in np.unique(counts):
        mine = np.flatnonzero(counts == count)
        rectangles[mine] = _smallest(np.stack([points[i] for i in mine]))
    return rectangles


def _smallest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest rectangles (n, 8) around k points each, (n, k, 2); more than 4 are a hull."""
    best = np.full((len(points), 8), np.nan)
    least = np.full(len(points), np.inf)
    for i, j in _sides(points.shape[1]):
        along = points[:, j] - points[:, i]
        with np.errstate(invalid='ignore', divide='ignore'):  # of coordinates that are not finite
            length = np.linalg.norm(along, axis=1, keepdims=True)
            along = np.where(length > 0, along / length, [1.0, 0.0])
            axes = np.stack([along, along[:, ::-1] * [-1, 1]], axis=1)
            placed = points @ axes.transpose(0, 2, 1)
            (u0, v0), (u1, v1) = placed.min(axis=1).T, placed.max(axis=1).T
            area = (u1 - u0) * (v1 - v0)
            corners = np.stack([u0, v0, u1, v0, u1, v1, u0, v1], axis=1).reshape(-1, 4, 2) @ axes
        smaller = area < least
        least[smaller] = area[smaller]
        best[smaller] = corners.reshape(-1, 8)[smaller]
    return best


def _sides(count: int) -> Iterator[tuple[int, int]]:
    if count < 2:
        yield 0, 0
    elif count <= 4:  # in any order
        yield from combinations(range(count), 2)
    else:
        yield from ((i, (i + 1) % count) for i in range(count))


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of the convex hull of points (k, 2), in order (Andrew's monotone chain)."""
    if not np.isfinite(points).all():
        return np.full((1, 2), np.nan)
    ordered = sorted(set(map(tuple, points.tolist())))
    if len(ordered) < 3:
        return np.array(ordered)
    ends = [_chain(ordered)[:-1], _chain(ordered[::-1])[:-1]]
    return np.array(ends[0] + ends[1])


def _chain(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of points in ascending or descending order behind which the others lie."""
    chain: list[tuple[float, float]] = []
    for x, y in ordered:
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            chain.pop()
        chain.append((x, y))
    return chain
