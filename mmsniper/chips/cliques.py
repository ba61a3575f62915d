"""Minimum covers with cliques: rules that shrink the problem, and a search for what they leave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from mmsniper.chips.local_search import held_by, solve
from mmsniper.chips.rectangles import Floats, Ints, common, neighbours, run_starts

# Up to this many rectangles a matrix is faster than a sparse one.
_DENSE = 300
# Rectangles that a window of the local search starts with, or adds, and how often.
_PART, _ATTEMPTS = 100, 12


def clique_cover(
    lo: Floats, hi: Floats, group: Ints, node_limit: int, *, window: bool = False
) -> tuple[Ints, NDArray[np.bool_]]:
    """Minimum cover of a graph's vertices with cliques: the rules, then a search for the rest.

    Args:
        lo, hi, group: Rectangles, shape (n, 2), (n, 2), (n,).
        node_limit (int): As in :func:`minimum_cover`.
        window (bool): The rectangles are a part of a larger component.

    Returns:
        tuple[Ints, NDArray[np.bool_]]: Label of every rectangle's clique (arbitrary integers), and
        the mask of rectangles in components without a proof of minimality.
    """
    n = len(lo)
    label, itself = np.full(n, -1, np.int64), np.arange(n)
    keeper = itself.copy()
    i, j = neighbours(lo, hi, group)
    while len(i):
        clique, member = _forced(lo, hi, i, j)
        if len(member):
            label[member] = clique  # a member of several goes to any of them
        else:
            dropped, by = _dominated(i, j)
            if not len(dropped):
                break
            keeper[dropped] = by
        alive = (label < 0) & (keeper == itself)
        keep = alive[i] & alive[j]
        i, j = i[keep], j[keep]
    unproven = _solve_rest(lo, hi, i, j, label, node_limit, window)
    while (keeper[keeper] != keeper).any():
        keeper = keeper[keeper]
    return label[keeper], unproven[keeper]


def _forced(lo: Floats, hi: Floats, i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Cliques that some minimum cover has: neighbourhoods that are cliques.

    A point that pierces rectangle r pierces nothing but neighbours of r. Where all of these have a
    point in common, no other choice is better.

    Returns:
        tuple[Ints, Ints]: For every member of such a clique: the clique's name (such an r), and the
        member. Later names replace earlier ones.
    """
    starts = run_starts(i)
    meet = (np.maximum.reduceat(lo[j], starts) <= np.minimum.reduceat(hi[j], starts)).all(axis=1)
    simplicial = np.zeros(len(lo), bool)
    simplicial[i[starts[meet]]] = True
    # Such r that are neighbours of each other have the same clique; the last one names it.
    chosen = simplicial[i]
    return i[chosen], j[chosen]


def _dominated(i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Rectangles that need no thought: whatever pierces a certain neighbour can pierce them too.

    If the neighbours of q are all neighbours of r as well, any clique with q can take in r.

    Returns:
        tuple[Ints, Ints]: The rectangles r, and a q for each.
    """
    vertex = np.unique(i)
    i, j = np.searchsorted(vertex, [i, j])
    shape = (len(vertex), len(vertex))
    if len(vertex) <= _DENSE:
        adjacency = np.zeros(shape, np.float32)
        adjacency[i, j] = 1
        shared = (adjacency @ adjacency)[i, j]
    else:
        adjacency = csr_array((np.ones(len(i), np.int32), (i, j)), shape=shape)
        shared = (adjacency @ adjacency).multiply(adjacency).tocsr()
        shared.sort_indices()
        shared = shared.data
    degree = np.bincount(i)
    # Of two with the same neighbours the first stays.
    drop = (shared == degree[i]) & ((degree[i] < degree[j]) | (i < j)) & (i != j)
    dropped, first = np.unique(j[drop], return_index=True)
    return vertex[dropped], vertex[i[drop][first]]


def _solve_rest(
    lo: Floats, hi: Floats, i: Ints, j: Ints, label: Ints, node_limit: int, window: bool
) -> NDArray[np.bool_]:
    """Label what the rules left over, one connected component at a time."""
    n = len(lo)
    unproven = np.zeros(n, bool)
    if not len(i):
        return unproven
    vertex = np.unique(i)
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n))
    component = connected_components(graph)[1][vertex]
    by = np.argsort(component, kind='stable')
    for members in np.split(vertex[by], run_starts(component[by])[1:]):
        clique, proven = solve(
            lo[members], hi[members], node_limit, None if window else cover_window
        )
        # Names unlike those of other components and those of forced cliques, which are below n.
        label[members] = n * (1 + clique) + members[0]
        unproven[members] = not proven
    return unproven


def cover_window(lo: Floats, hi: Floats, most: int) -> Floats | None:
    """Pierce rectangles by at most so many points, starting with some of the rectangles.

    The points for some are often points for all; where not, some of the others are added. Where
    even some need more points than ``most``, so do all.
    """
    chosen = np.zeros(len(lo), bool)
    missed = np.arange(len(lo))
    for _ in range(_ATTEMPTS):
        chosen[missed[spread(len(missed), _PART)]] = True
        part_lo, part_hi = lo[chosen], hi[chosen]
        group = np.zeros(len(part_lo), np.int64)
        label, _ = clique_cover(part_lo, part_hi, group, node_limit=0, window=True)
        points = common(part_lo, part_hi, np.unique(label, return_inverse=True)[1])[1]
        if len(points) > most:
            return None
        missed = np.flatnonzero(~held_by(lo, hi, points).any(axis=0))
        if not len(missed):
            return points
    return None


def spread(n: int, count: int) -> Ints:
    """At most so many of the numbers 0 to n - 1, evenly."""
    return np.linspace(0, n - 1, min(n, count)).astype(int)
