"""Many axis-parallel rectangles at once: which intersect, and which have a point in common.

Rectangles are closed, given by their corners ``lo <= hi`` of shape (n, 2), and belong to groups;
those of different groups never meet. A *label* names a set of rectangles of one group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pairs of rectangles looked at in one go, in about 100 MB of temporary memory.
_BLOCK = 1 << 21


def run_starts(values: NDArray) -> Ints:
    """Where each run of equal values begins."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def run_lengths(values: NDArray) -> Ints:
    """Length of each run of equal values."""
    return np.diff(np.append(run_starts(values), len(values)))


def ordinal(values: NDArray) -> Ints:
    """Number of each value in its run of equal values: 0, 1, ..."""
    return np.arange(len(values)) - np.repeat(run_starts(values), run_lengths(values))


def spread(n: int, count: int) -> Ints:
    """At most so many of the numbers 0 to n - 1, evenly."""
    return np.linspace(0, n - 1, min(n, count)).astype(int)


def expand(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Rows and values of the ranges ``start[i]:stop[i]``, one after the other.

    Example:
        >>> expand(np.array([5, 8]), np.array([7, 9]))
        (array([0, 0, 1]), array([5, 6, 8]))
    """
    count = stop - start
    row = np.repeat(np.arange(len(count)), count)
    value = np.arange(len(row)) + np.repeat(start - (np.cumsum(count) - count), count)
    return row, value


def blocks(start: Ints, stop: Ints) -> list[slice]:
    """Slices of the ranges ``start[i]:stop[i]`` that hold a bounded number of values each."""
    total = np.cumsum(stop - start)
    if not len(total):
        return []
    cuts = np.searchsorted(total, np.arange(_BLOCK, total[-1], _BLOCK))
    ends = sorted({0, *cuts.tolist(), len(total)})
    return [slice(start, stop) for start, stop in zip(ends, ends[1:])]


def common(lo: Floats, hi: Floats, label: Ints) -> tuple[Floats, Floats]:
    """Corners of the intersection of the rectangles with each of the labels 0, ..., all in use.

    Where ``lo > hi`` the rectangles have no point in common.
    """
    by_label = np.argsort(label, kind='stable')
    starts = run_starts(label[by_label])
    if not len(starts):
        return lo[:0], hi[:0]
    return np.maximum.reduceat(lo[by_label], starts), np.minimum.reduceat(hi[by_label], starts)


def first_equal(lo: Floats, hi: Floats, group: Ints) -> Ints:
    """For each rectangle the first one of its group with the same corners, shape (n,)."""
    order = np.lexsort((*hi.T, *lo.T, group))
    rows = np.column_stack([group, lo, hi])[order]
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    first = np.empty(len(rows), np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def numbers_in_intervals(
    lo: Floats, hi: Floats, group: Ints, x: Floats, x_group: Ints
) -> tuple[Ints, Ints, Ints]:
    """Which numbers ``x`` lie in each closed interval, shape (n,), of the same group.

    Returned are ``order, start, stop``: in interval i are ``x[order[start[i]:stop[i]]]``.
    """
    n, m = len(lo), len(x)
    # Among equal coordinates an interval's start comes before the numbers, its end after them.
    kind = np.repeat(np.array([0, 1, 2], np.int8), [n, m, n])
    keys = kind, np.concatenate([lo, x, hi]), np.concatenate([group, x_group, group])
    order = np.lexsort(keys)
    is_number = kind[order] == 1
    position = np.empty(len(order), np.int64)
    position[order] = np.cumsum(is_number)
    return order[is_number] - n, position[:n], position[n + m :]


def neighbours(lo: Floats, hi: Floats, group: Ints) -> tuple[Ints, Ints]:
    """All ordered pairs (i, j) of rectangles that meet, each with itself included, sorted."""
    n = len(lo)
    sweeps = [numbers_in_intervals(lo[:, a], hi[:, a], group, lo[:, a], group) for a in (0, 1)]
    axis = int(np.argmin([(stop - start).sum() for _, start, stop in sweeps]))
    order, start, stop = sweeps[axis]
    other = 1 - axis
    keys = [np.arange(n) * (n + 1)]
    for block in blocks(start, stop):
        i, j = expand(start[block], stop[block])
        i, j = i + block.start, order[j]
        # Intervals with the same start find each other twice, and each finds itself.
        once = (lo[i, axis] < lo[j, axis]) | (i < j)
        meet = once & (lo[i, other] <= hi[j, other]) & (lo[j, other] <= hi[i, other])
        i, j = i[meet], j[meet]
        keys += [i * n + j, j * n + i]
    key = np.sort(np.concatenate(keys))
    return np.divmod(key, n)


def piercings(
    lo: Floats, hi: Floats, group: Ints, points: Floats, point_group: Ints
) -> tuple[Ints, Ints]:
    """All pairs (rectangle, point) of one group in which the point is in the rectangle."""
    order, start, stop = numbers_in_intervals(lo[:, 0], hi[:, 0], group, points[:, 0], point_group)
    found = [np.zeros((2, 0), np.int64)]
    for block in blocks(start, stop):
        i, k = expand(start[block], stop[block])
        i, k = i + block.start, order[k]
        inside = (lo[i, 1] <= points[k, 1]) & (points[k, 1] <= hi[i, 1])
        found.append(np.stack([i[inside], k[inside]]))
    return tuple(np.concatenate(found, axis=1))


def maximal_cliques(lo: Floats, hi: Floats) -> csr_array:
    """Incidence matrix, (number of cliques, n), of the maximal sets of rectangles that meet.

    Such a set is pierced by the point (smallest upper end in x, smallest upper end in y) of its
    members: candidates are points of the upper ends of two rectangles that are in both.
    """
    n = len(lo)
    i, j = neighbours(lo, hi, np.zeros(n, np.int64))
    begin = np.searchsorted(i, np.arange(n + 1))
    in_both = (hi[i, 0] <= hi[j, 0]) & (hi[j, 1] <= hi[i, 1])
    a, b = i[in_both], j[in_both]
    points = np.stack([hi[a, 0], hi[b, 1]], axis=1)
    found, start, stop = [], begin[a], begin[a + 1]
    for block in blocks(start, stop):
        # All that can have the point in them, or meet the clique, are neighbours of a.
        row, k = expand(start[block], stop[block])
        k, point = j[k], points[block][row]
        inside = ((lo[k] <= point) & (point <= hi[k])).all(axis=1)
        slack_lo, slack_hi = common(lo[k[inside]], hi[k[inside]], row[inside])
        meets = ((lo[k] <= slack_hi[row]) & (slack_lo[row] <= hi[k])).all(axis=1)
        maximal = np.bincount(row[inside]) == np.bincount(row[meets])
        kept, slack = inside & maximal[row], np.hstack([slack_lo, slack_hi])
        found.append((slack[maximal], row[kept] + block.start, k[kept]))
    slack, row, member = map(np.concatenate, zip(*found))
    # A maximal clique is all that meets its slack: equal slacks mean equal cliques.
    first = np.unique(slack, axis=0, return_index=True)[1]
    starts = np.append(run_starts(row), len(row))
    return csr_array((np.ones(len(row)), member, starts), shape=(len(slack), n))[first]
