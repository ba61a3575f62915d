"""Covering boxes with few chips, seen from the chips' origins.

A box is enclosed by a chip whose origin (left, top) lies in a certain rectangle. The fewest chips
that cover a set of boxes are therefore the fewest points that pierce a set of axis-parallel
rectangles. Such rectangles have Helly number two: those that intersect pairwise have a point in
common. So a chip is a clique of the rectangles' intersection graph, and the boxes of a clique can
share a chip whose origin is any point of the clique's common rectangle: the chip's *slack*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pairs of rectangles looked at in one go; bounds the temporary memory.
_BLOCK = 1 << 22
# Components up to this size are searched with Python's integers as bit sets.
_SMALL = 64
_SEARCH_NODES = 5_000


@dataclass(frozen=True)
class Cover:
    """Points that pierce rectangles, and which rectangle is pierced by which point.

    Attributes:
        assignment: Point of every rectangle, shape (n,).
        lo, hi: Where each point may lie without leaving any rectangle assigned to it: the corners
            of its slack, shape (k, 2).
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
    lo: ArrayLike, hi: ArrayLike, group: ArrayLike | None = None, *, time_limit: float = 10.0
) -> Cover:
    """The fewest points that pierce every rectangle, for many independent groups at once.

    Args:
        lo, hi: Corners of the closed rectangles ``lo <= hi``, shape (n, 2).
        group: Rectangles of different groups never share a point, shape (n,). Default: one group.
        time_limit: Seconds for the exact search in one connected component. Default: 10.

    Returns:
        The cover, ordered by group and then by the first rectangle of each point.

    Raises:
        ValueError: If a rectangle is empty or the shapes differ.
    """
    lo, hi, group = _check_rectangles(lo, hi, group)
    order = np.argsort(group, kind='stable')
    lo, hi, group = lo[order], hi[order], group[order]
    starts = _run_starts(group)
    sizes = np.diff(np.append(starts, len(group)))
    label, unproven = np.repeat(np.arange(len(starts)), sizes), np.zeros(0, np.int64)
    if len(starts):
        common = np.maximum.reduceat(lo, starts) <= np.minimum.reduceat(hi, starts)
        hard = np.flatnonzero(np.repeat(~common.all(axis=1), sizes))
        if len(hard):
            cliques, open_ = _clique_cover(lo[hard], hi[hard], group[hard], time_limit)
            label[hard] = len(starts) + cliques
            unproven = np.unique(group[hard][open_])
    return _as_cover(lo, hi, group, label, order, unproven)


def _check_rectangles(
    lo: ArrayLike, hi: ArrayLike, group: ArrayLike | None
) -> tuple[Floats, Floats, Ints]:
    lo, hi = np.asarray(lo, np.float64).reshape(-1, 2), np.asarray(hi, np.float64).reshape(-1, 2)
    group = np.zeros(len(lo), np.int64) if group is None else np.asarray(group, np.int64)
    if not len(lo) == len(hi) == len(group):
        raise ValueError(f'got {len(lo)} lower corners, {len(hi)} upper ones, {len(group)} groups')
    empty = np.flatnonzero(~(lo <= hi).all(axis=1))  # `not <=` rather than `>`: catches NaN
    if len(empty):
        i = empty[0]
        raise ValueError(f'rectangle {i} is empty: from {lo[i]} to {hi[i]}')
    return lo, hi, group


def _run_starts(values: NDArray) -> Ints:
    """Where each run of equal values begins."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _as_cover(
    lo: Floats, hi: Floats, group: Ints, label: Ints, order: Ints, unproven: Ints
) -> Cover:
    """From labelled rectangles, sorted by group, to a cover in the caller's order."""
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    # Number the points in the order of their first rectangle: independent of other groups.
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    label = rank[label]
    lo_k, hi_k = _intersections(lo, hi, label)
    assignment = np.empty(len(lo), np.int64)
    assignment[order] = label
    return Cover(assignment, lo_k, hi_k, group[np.sort(first)], unproven)


def _intersections(lo: Floats, hi: Floats, label: Ints) -> tuple[Floats, Floats]:
    """Common rectangle of the rectangles with each label 0, 1, ..."""
    by_label = np.argsort(label, kind='stable')
    starts = _run_starts(label[by_label])
    if not len(starts):
        return lo[:0], hi[:0]
    return (
        np.maximum.reduceat(lo[by_label], starts), np.minimum.reduceat(hi[by_label], starts),
    )


# --- the intersection graph -----------------------------------------------------------------------


def _stabbed(
    lo: Floats, hi: Floats, group: Ints, x: Floats, x_group: Ints
) -> tuple[Ints, Ints, Ints]:
    """Which values lie in each interval of the same group.

    Returns:
        Order that sorts the values, and for every interval the first and last + 1 of its values
        in that order.
    """
    n, m = len(lo), len(x)
    # Equal coordinates: an interval's start comes before values, its end after them.
    kind = np.repeat([0, 1, 2], [n, m, n])
    by = np.lexsort((kind, np.concatenate([lo, x, hi]), np.concatenate([group, x_group, group])))
    before = np.cumsum(kind[by] == 1)
    position = np.empty(len(by), np.int64)
    position[by] = before
    order = by[kind[by] == 1] - n
    return order, position[:n], position[n + m:]


def _expand(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Rows and values of the ranges ``start[i]:stop[i]``, one after the other."""
    count = stop - start
    row = np.repeat(np.arange(len(count)), count)
    value = np.arange(len(row)) + np.repeat(start - (np.cumsum(count) - count), count)
    return row, value


def _neighbours(lo: Floats, hi: Floats, group: Ints) -> tuple[Ints, Ints]:
    """All ordered pairs (i, j) of intersecting rectangles of one group, i = j included, sorted."""
    sweeps = [_stabbed(lo[:, a], hi[:, a], group, lo[:, a], group) for a in (0, 1)]
    axis = int(np.argmin([(stop - start).sum() for _, start, stop in sweeps]))
    order, start, stop = sweeps[axis]
    pairs = []
    bounds = np.append(np.searchsorted(np.cumsum(stop - start),
                                       np.arange(0, (stop - start).sum(), _BLOCK)), len(lo))
    for a, b in zip(bounds[:-1], bounds[1:]):
        i, j = _expand(start[a:b], stop[a:b])
        i, j = i + a, order[j]
        other = 1 - axis
        # Two intervals with the same start find each other twice.
        keep = (lo[i, other] <= hi[j, other]) & (lo[j, other] <= hi[i, other]) & (
            (lo[i, axis] < lo[j, axis]) | (i < j))
        pairs.append((i[keep], j[keep]))
    i = np.concatenate([p[0] for p in pairs])
    j = np.concatenate([p[1] for p in pairs])
    n = len(lo)
    loop = np.arange(n)
    key = np.sort(np.concatenate([i * n + j, j * n + i, loop * n + loop]))
    return key // n, key % n


def _clique_cover(
    lo: Floats, hi: Floats, group: Ints, time_limit: float
) -> tuple[Ints, NDArray[np.bool_]]:
    """Minimum cover of a graph's vertices with cliques: the rules, then a search for the rest.

    Returns:
        Label of every rectangle's clique (arbitrary integers), and the mask of rectangles in
        components without a proof of minimality.
    """
    n = len(lo)
    i, j = _neighbours(lo, hi, group)
    label = np.full(n, -1, np.int64)
    keeper = np.arange(n)
    while len(i):
        forced, members = _simplicial(lo, hi, i, j)
        if len(forced):
            label[members] = forced  # a shared member goes to any of its cliques
        else:
            dropped, by = _dominated(lo, hi, i, j)
            if not len(dropped):
                break
            keeper[dropped] = by
        alive = (label < 0) & (keeper == np.arange(n))
        keep = alive[i] & alive[j]
        i, j = i[keep], j[keep]
    open_ = np.zeros(n, bool)
    if len(i):
        _solve_kernels(lo, hi, i, j, label, open_, time_limit)
    while (keeper[keeper] != keeper).any():
        keeper = keeper[keeper]
    return label[keeper], open_


def _simplicial(lo: Floats, hi: Floats, i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Cliques that some minimum cover must have: the neighbourhoods that are cliques.

    The point that pierces rectangle r pierces nothing but neighbours of r. Where all of these have
    a point in common, no other choice can be better.

    Returns:
        For every member of such a clique: the clique's name (its first such r), and the member.
    """
    starts = _run_starts(i)
    vertex = i[starts]
    common = (np.maximum.reduceat(lo[j], starts) <= np.minimum.reduceat(hi[j], starts)).all(axis=1)
    simplicial = np.zeros(len(lo), bool)
    simplicial[vertex[common]] = True
    # Adjacent simplicial vertices have the same neighbourhood: keep the first.
    inner = simplicial[i] & simplicial[j] & (j < i)
    simplicial[i[inner]] = False
    chosen = simplicial[i]
    return i[chosen], j[chosen]


def _dominated(lo: Floats, hi: Floats, i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Rectangles that are pierced for free, because a neighbour's neighbours are all theirs too.

    Where N[q] is a subset of N[r], any clique with q can take in r.

    Returns:
        The rectangles r that may be left out, and a q for each.
    """
    n = len(lo)
    adjacency = csr_array((np.ones(len(i), np.int32), (i, j)), shape=(n, n))
    shared = np.asarray((adjacency @ adjacency)[i, j]).ravel()
    degree = np.bincount(i, minlength=n)
    # (i, j) = (q, r); equals keep the first.
    drop = (shared == degree[i]) & ((degree[i] < degree[j]) | (i < j)) & (i != j)
    dropped, first = np.unique(j[drop], return_index=True)
    return dropped, i[drop][first]


# --- what the rules leave over --------------------------------------------------------------------


def _solve_kernels(
    lo: Floats, hi: Floats, i: Ints, j: Ints, label: Ints, open_: NDArray[np.bool_],
    time_limit: float,
) -> None:
    """Label the rectangles that the rules left over, one connected component at a time."""
    n = len(lo)
    vertex = np.unique(i)
    _, component = connected_components(coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n)))
    by = vertex[np.argsort(component[vertex], kind='stable')]
    for members in np.split(by, _run_starts(component[by])[1:]):
        cliques, proven = _solve(lo[members], hi[members], time_limit)
        # A name of its own: rectangles' indices name the forced cliques.
        label[members] = n + members[0] + n * cliques
        open_[members] = not proven


def _solve(lo: Floats, hi: Floats, time_limit: float) -> tuple[Ints, bool]:
    cliques = _maximal_cliques(lo, hi)
    a = csr_array(cliques.T.astype(float))
    result = milp(np.ones(a.shape[1]), constraints=LinearConstraint(a, 1), integrality=1,
                  bounds=Bounds(0, 1), options=dict(time_limit=time_limit))
    chosen = np.flatnonzero(result.x > 0.5)
    return cliques[chosen].argmax(axis=0), result.status == 0


def _maximal_cliques(lo: Floats, hi: Floats) -> NDArray[np.bool_]:
    inx = (lo[:, 0] <= hi[:, :1]) & (hi[:, :1] <= hi[:, 0])
    iny = (lo[:, 1] <= hi[:, 1:]) & (hi[:, 1:] <= hi[:, 1])
    sets = np.unique((inx[:, None] & iny[None]).reshape(-1, len(lo)), axis=0)
    return sets[sets.any(axis=1)]
