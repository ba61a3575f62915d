"""Rectangles to cover, and covers found by ways that share nothing with the code under test."""

from itertools import combinations

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp


@st.composite
def rectangles(draw, max_size=6, extent=10):
    """Corners of some rectangles with whole coordinates: shape (n, 2) twice, n from 1."""
    coordinate = st.integers(0, extent)
    corners = draw(
        st.lists(
            st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=max_size
        )
    )
    corners = np.array(corners, float)
    a, b = corners[:, :2], corners[:, 2:]
    return np.minimum(a, b), np.maximum(a, b)


def bars(count, extent, seed):
    """Long thin rectangles, lying and standing: graphs with holes, which no rule solves."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, extent, (count, 2))
    size = np.where(rng.random((count, 1)) < 0.5, [[extent // 2, 1]], [[1, extent // 2]])
    size = rng.integers(0, size + 1)
    return start.astype(float), (start + size).astype(float)


def grid_points(lo, hi):
    """All points with whole coordinates that any of the rectangles holds."""
    x0, y0 = lo.min(axis=0).astype(int)
    x1, y1 = hi.max(axis=0).astype(int)
    return np.stack(np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)), -1).reshape(-1, 2)


def holds(lo, hi, points):
    """Which point is in which rectangle, shape (points, n)."""
    return ((lo <= points[:, None]) & (points[:, None] <= hi)).all(axis=2)


def fewest_points(lo, hi):
    """Fewest points of the integer grid, by trying all sets of one point, two, ..."""
    sets = {tuple(row) for row in holds(lo, hi, grid_points(lo, hi)).tolist()}
    for count in range(1, len(lo) + 1):
        for choice in combinations(sets, count):
            if np.any(choice, axis=0).all():
                return count
    raise AssertionError


def fewest_classes(lo, hi):
    """Fewest classes of pairwise intersecting rectangles, by trying all partitions."""
    meet = ((lo[:, None] <= hi) & (lo <= hi[:, None])).all(axis=2)
    best = len(lo)

    def place(k, classes):
        nonlocal best
        if k == len(lo):
            best = min(best, len(classes))
            return
        for c in classes:
            if meet[k, c].all():
                c.append(k)
                place(k + 1, classes)
                c.pop()
        place(k + 1, [*classes, [k]])

    place(0, [])
    return best


def end_points(lo, hi):
    """Points made of the upper ends of two rectangles that both hold them."""
    points = np.stack(np.broadcast_arrays(hi[:, :1], hi[:, 1]), axis=-1)
    i, j = np.nonzero(
        ((lo[:, None] <= points) & (points <= hi[:, None]) & (lo <= points) & (points <= hi)).all(
            axis=2
        )
    )
    return points[i, j]


def fewest_by_integer_program(lo, hi, points=None):
    """Fewest of the given points (of the integer grid), for more rectangles than can be tried."""
    points = grid_points(lo, hi) if points is None else points
    a = np.unique(holds(lo, hi, points), axis=0).T.astype(float)
    result = milp(
        np.ones(a.shape[1]), constraints=LinearConstraint(a, 1), integrality=1, bounds=Bounds(0, 1)
    )
    assert result.status == 0
    return round(result.fun)


def dense_scene(count, width, side, seed=0):
    """Origins of the chips of a given side that enclose each of many boxes in one image."""
    rng = np.random.default_rng(seed)
    wh = np.exp(rng.uniform(np.log(8), np.log(60), (count, 2)))
    start = np.floor(rng.uniform(0, width - wh))
    hi = np.minimum(start, width - side)
    return np.minimum(np.maximum(start + wh - side, 0), hi), hi


def strip(count, width, height=600, side=170, seed=0):
    """As :func:`dense_scene`, of boxes of 20 px in a long image."""
    size = np.array([width, height])
    start = np.floor(np.random.default_rng(seed).uniform(0, size - 20, (count, 2)))
    hi = np.minimum(start, size - side)
    return np.minimum(np.maximum(start + 20 - side, 0), hi), hi


def check_cover(cover, lo, hi, group=None):
    """Every rectangle holds the whole slack of its point, which is as large as it can be."""
    group = np.zeros(len(lo), int) if group is None else np.asarray(group)
    assert (cover.lo <= cover.hi).all()
    assert set(cover.assignment.tolist()) == set(range(len(cover)))
    for k in range(len(cover)):
        mine = cover.assignment == k
        np.testing.assert_array_equal(cover.lo[k], lo[mine].max(axis=0))
        np.testing.assert_array_equal(cover.hi[k], hi[mine].min(axis=0))
        assert set(group[mine].tolist()) == {cover.group[k]}
    assert (np.diff(cover.group) >= 0).all()
