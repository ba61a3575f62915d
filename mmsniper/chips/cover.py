"""Covering boxes with few chips, seen from the chips' origins.

A chip encloses a box if its origin (left, top) lies in a certain rectangle: the fewest chips that
cover boxes are the fewest points that pierce axis-parallel rectangles. Rectangles that meet
pairwise have a point in common, so a chip is a clique of the graph of rectangles that meet, and its
origin is any point of their common rectangle: the chip's *slack*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips import integer_program, local_search
from mmsniper.chips.cliques import clique_cover
from mmsniper.chips.rectangles import (
    Floats,
    Ints,
    common,
    first_equal,
    piercings,
    run_lengths,
    run_starts,
    spread,
)

# Above this sum over rectangles of (number of neighbours)^2, which is what the rules compare, they
# would take over a minute and gigabytes.
_MAX_WORK = 1e8
# Rectangles whose neighbours are counted to estimate that sum: to about a tenth, in milliseconds.
_SAMPLE = 200
# Lines per axis of the grid that is tried above it: counting its points takes under a millisecond.
_COARSE = 256


@dataclass(frozen=True)
class Cover:
    """Points that pierce rectangles.

    Attributes:
        assignment: Point of every rectangle, shape (n,); -1: none (:func:`grid_cover` only).
        lo, hi: Corners of each point's slack, shape (k, 2).
        group: Group of every point, shape (k,), ascending.
        unproven: Groups for which fewer points might do, because the search was cut off.
    """

    assignment: Ints
    lo: Floats
    hi: Floats
    group: Ints
    unproven: Ints

    def __len__(self) -> int:
        return len(self.lo)


def minimum_cover(
    lo: ArrayLike, hi: ArrayLike, group: ArrayLike | None = None, *, node_limit: int = 1000
) -> Cover:
    """The fewest points that pierce every rectangle, for many independent groups at once.

    Args:
        lo, hi (ArrayLike): Corners of the closed rectangles, ``lo <= hi``, shape (n, 2).
        group (ArrayLike | None): Rectangles of different groups never share a point, shape (n,).
            Defaults to one group.
        node_limit (int): Nodes of the integer program's search tree for a connected component,
            after which its cover stays unproven. Defaults to 1000.

    Returns:
        Cover: Ordered by group and first rectangle. A group's part does not depend on the others.

    Raises:
        ValueError: If a rectangle is empty or the shapes differ.
    """
    lo, hi, group = _arrays(lo, hi, group, np.float64)
    empty = np.flatnonzero(~(lo <= hi).all(axis=1))  # `not <=` rather than `>`: catches NaN
    if len(empty):
        i = empty[0]
        raise ValueError(f'rectangle {i} is empty: from {lo[i]} to {hi[i]}')
    if not len(lo):
        return Cover(group, lo, hi, group, group)
    order = np.argsort(group, kind='stable')
    lo, hi, group = lo[order], hi[order], group[order]
    label, unproven = _label(lo, hi, group, node_limit)
    cover = _as_cover(lo, hi, group, _widen_slack(lo, hi, group, label), group[unproven])
    return _assigned(cover, order, len(lo))


def _arrays(
    lo: ArrayLike, hi: ArrayLike, group: ArrayLike | None, dtype: type
) -> tuple[NDArray, NDArray, Ints]:
    lo, hi = np.asarray(lo, dtype).reshape(-1, 2), np.asarray(hi, dtype).reshape(-1, 2)
    group = np.zeros(len(lo), np.int64) if group is None else np.asarray(group, np.int64)
    if not len(lo) == len(hi) == len(group):
        raise ValueError(f'got {len(lo)} lower corners, {len(hi)} upper ones, {len(group)} groups')
    return lo, hi, group


def _assigned(cover: Cover, order: Ints, n: int) -> Cover:
    """The cover of some of n rectangles, at the places ``order``, as one of all."""
    assignment = np.full(n, -1, np.int64)
    assignment[order] = cover.assignment
    return replace(cover, assignment=assignment)


def _label(lo: Floats, hi: Floats, group: Ints, node_limit: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Label without gaps of every rectangle, in sorted groups, and whether its group is unproven.

    A group that is a clique gets one label, others are covered by the graph's structure.
    """
    starts, lengths = run_starts(group), run_lengths(group)
    label = np.repeat(np.arange(len(starts)), lengths)
    unproven = np.zeros(len(lo), bool)
    meet = (np.maximum.reduceat(lo, starts) <= np.minimum.reduceat(hi, starts)).all(axis=1)
    rest = np.flatnonzero(np.repeat(~meet, lengths))
    if len(rest):
        # What pierces a rectangle pierces its duplicates.
        distinct, which = np.unique(
            first_equal(lo[rest], hi[rest], group[rest]), return_inverse=True
        )
        distinct = rest[distinct]
        clique, open_ = _cover_distinct(lo[distinct], hi[distinct], group[distinct], node_limit)
        label[rest], unproven[rest] = len(starts) + clique[which], open_[which]
    return np.unique(label, return_inverse=True)[1], unproven


def _cover_distinct(
    lo: Floats, hi: Floats, group: Ints, node_limit: int
) -> tuple[Ints, NDArray[np.bool_]]:
    """As :func:`_label`, for groups that are no cliques, with gaps in the labels."""
    label, unproven = np.zeros(len(lo), np.int64), np.zeros(len(lo), bool)
    together = np.ones(len(lo), bool)

    def cover(part: NDArray[np.bool_] | slice, shared: bool) -> tuple[Ints, NDArray[np.bool_]]:
        solve = partial(_solve, node_limit=node_limit, shared=shared)
        return clique_cover(lo[part], hi[part], group[part], solve)

    for start, length in zip(run_starts(group).tolist(), run_lengths(group).tolist()):
        if length <= 2 * _SAMPLE:
            continue
        part = slice(start, start + length)
        together[part] = False
        if _work(lo[part], hi[part]) > _MAX_WORK:
            coarse = _coarse_cover(lo[part], hi[part])
            label[part] = local_search.improve(lo[part], hi[part], coarse)
            unproven[part] = True
        else:
            label[part], unproven[part] = cover(part, shared=True)
        label[part] += len(lo) + start
    label[together], unproven[together] = cover(together, shared=False)
    return label, unproven


def _solve(
    components: list[tuple[Floats, Floats]], node_limit: int, shared: bool
) -> list[tuple[Ints, bool]]:
    """Labels of each component and whether they are proven to be the fewest.

    Those of one group share the effort of the search for what is not proven.
    """
    found = [integer_program.solve(lo, hi, node_limit) for lo, hi in components]
    left = sum(len(label) for label, proven in found if not proven)
    for k, ((lo, hi), (label, proven)) in enumerate(zip(components, found)):
        if not proven:
            share = len(lo) / left if shared else 1.0
            found[k] = local_search.improve(lo, hi, label, share), False
    return found


def _as_cover(lo: Floats, hi: Floats, group: Ints, label: Ints, unproven: Ints) -> Cover:
    """Number the points in the order of their first rectangle."""
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    label = rank[label]
    return Cover(label, *common(lo, hi, label), group[np.sort(first)], np.unique(unproven))


def _widen_slack(lo: Floats, hi: Floats, group: Ints, label: Ints) -> Ints:
    """Labels with larger slacks: rectangles that confine a point go to one they do not confine."""
    slack_lo, slack_hi = common(lo, hi, label)
    point_group = np.empty(len(slack_lo), np.int64)
    point_group[label] = group
    _, group_index, points = np.unique(point_group, return_inverse=True, return_counts=True)
    confines = ((lo == slack_lo[label]) | (hi == slack_hi[label])).any(axis=1)
    some = np.flatnonzero(confines & (points[group_index] > 1)[label])
    i, k = piercings(lo[some], hi[some], group[some], slack_lo, point_group)
    i = some[i]
    free = (k != label[i]) & (slack_hi[k] <= hi[i]).all(axis=1)
    # Of several, the point that has the least to lose.
    order = np.lexsort(((slack_hi - slack_lo).prod(axis=1)[k[free]], i[free]))
    i, k = i[free][order], k[free][order]
    first = run_starts(i)
    label = label.copy()
    label[i[first]] = k[first]
    return label


def _work(lo: Floats, hi: Floats) -> float:
    """Estimate of the sum of squares of the rectangles' numbers of neighbours."""
    some = spread(len(lo), _SAMPLE)
    meets = [((lo <= hi[k]) & (lo[k] <= hi)).all(axis=1).sum() for k in some]
    return len(lo) * float(np.mean(np.square(meets, dtype=float)))


def _coarse_cover(lo: Floats, hi: Floats) -> Ints:
    """Greedy covers with points of coarse grids, whose lines are upper ends of some rectangles."""
    label = np.zeros(len(lo), np.int64)
    open_: Ints = np.arange(len(lo))
    while len(open_):
        some = open_[spread(len(open_), _COARSE)]
        first, last = np.empty((2, len(open_), 2), np.int64)
        for axis in (0, 1):
            lines = np.unique(hi[some, axis])
            first[:, axis] = np.searchsorted(lines, lo[open_, axis])
            last[:, axis] = np.searchsorted(lines, hi[open_, axis], side='right') - 1
        chosen, _ = grid_greedy(first, last)
        done = chosen >= 0
        label[open_[done]] = label.max() + 1 + chosen[done]
        open_ = open_[~done]
    return label


def grid_cover(
    first: ArrayLike,
    last: ArrayLike,
    group: ArrayLike | None = None,
    draws: ArrayLike | None = None,
) -> Cover:
    """Pierce rectangles with grid points: the paper's choice of chips (section 3.2).

    Greedily takes the point that pierces most of what is left, until none pierces any.

    Args:
        first, last (ArrayLike): Integers, first and last grid lines of each rectangle, shape (n,
            2). One without a grid line (``first > last``) stays uncovered.
        group (ArrayLike | None): As in :func:`minimum_cover`.
        draws (ArrayLike | None): Numbers in [0, 1), shape (n,): the k-th in a group decides between
            equally good points for the k-th choice. Defaults to zeros, the first point.

    Returns:
        Cover: The cover; ``lo`` and ``hi`` are both the chosen point.
    """
    first, last, group = _arrays(first, last, group, np.int64)
    n = len(first)
    draws = np.zeros(n) if draws is None else np.asarray(draws, np.float64)
    exists = np.flatnonzero((first <= last).all(axis=1))
    order = exists[np.argsort(group[exists], kind='stable')]
    group = group[order]
    point, label = _grid_points(first[order], last[order], group, draws[order])
    return _assigned(_as_cover(point, point, group, label, group[:0]), order, n)


def _grid_points(
    first: Ints, last: Ints, group: Ints, draws: NDArray[np.float64]
) -> tuple[Floats, Ints]:
    """The point that pierces each rectangle, and a label that names it; groups are sorted."""
    if not len(group):
        return np.zeros((0, 2)), group
    starts, lengths = run_starts(group), run_lengths(group)
    label = np.repeat(starts, lengths)
    # Where one point pierces a whole group, the greedy choice is one of the points that all share.
    corner = np.maximum.reduceat(first, starts)
    count = np.minimum.reduceat(last, starts) - corner + 1
    index = (draws[starts] * count.prod(axis=1)).astype(np.int64)
    wide = np.maximum(count[:, 1], 1)
    point = np.repeat(corner + np.stack([index // wide, index % wide], axis=1), lengths, axis=0)
    for g in np.flatnonzero((count < 1).any(axis=1)):
        part = slice(starts[g], starts[g] + lengths[g])
        chosen, points = grid_greedy(first[part], last[part], draws[part])
        label[part] += chosen
        point[part] = points[chosen]
    return point.astype(np.float64), label


def grid_greedy(
    first: Ints, last: Ints, draws: NDArray[np.float64] | None = None, min_gain: int = 1
) -> tuple[Ints, Ints]:
    """Greedy choice for one group; see :func:`grid_cover`.

    Ends when no point pierces ``min_gain`` of what is left. Returns for every rectangle the number
    of its point or -1, and the points, shape (k, 2).
    """
    chosen = np.full(len(first), -1, np.int64)
    points: list[Ints] = []
    exists = (first <= last).all(axis=1)
    if not exists.any():
        return chosen, np.zeros((0, 2), np.int64)
    origin = first[exists].min(axis=0)
    gain = _depth(first[exists] - origin, last[exists] - origin)
    # The best points are found by rows: of millions, a choice changes a few rows.
    row_max = gain.max(axis=1)
    row_count = (gain == row_max[:, None]).sum(axis=1)
    open_ = np.flatnonzero(exists)
    while (max_gain := row_max.max()) >= min_gain:
        rows = np.flatnonzero(row_max == max_gain)
        count = np.cumsum(row_count[rows])
        number = 0 if draws is None else int(draws[len(points)] * count[-1])
        i = np.searchsorted(count, number, side='right')
        best = np.flatnonzero(gain[rows[i]] == max_gain)[number - count[i]]  # from the row's end
        point = np.array([rows[i], best]) + origin
        hit = ((first[open_] <= point) & (point <= last[open_])).all(axis=1)
        new, open_ = open_[hit], open_[~hit]
        corner = first[new].min(axis=0)
        depth = _depth(first[new] - corner, last[new] - corner)
        (x, y), (w, h) = (corner - origin).tolist(), depth.shape
        changed = gain[x : x + w]
        changed[:, y : y + h] -= depth
        row_max[x : x + w] = changed.max(axis=1)
        row_count[x : x + w] = (changed == row_max[x : x + w, None]).sum(axis=1)
        chosen[new] = len(points)
        points.append(point)
    return chosen, np.array(points, np.int64).reshape(-1, 2)


def _depth(first: Ints, last: Ints) -> Ints:
    """How many of the rectangles each point of the grid of lines 0, 1, ... is in, int32."""
    (a, c), (b, d) = first.T, (last + 1).T
    wide, high = b.max() + 1, d.max() + 1
    corners = np.concatenate([a * high + c, b * high + d, a * high + d, b * high + c])
    sign = np.repeat([1.0, 1.0, -1.0, -1.0], len(first))
    steps = np.bincount(corners, sign, wide * high).astype(np.int32).reshape(wide, high)
    return steps.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)[:-1, :-1]
