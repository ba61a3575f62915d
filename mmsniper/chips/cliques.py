"""Covers with the fewest cliques: exact rules, which leave little to a solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from mmsniper.chips.rectangles import Floats, Ints, neighbours, run_starts

# Up to this many rectangles a dense matrix is faster than a sparse one.
_DENSE = 300

Solve = Callable[[list[tuple[Floats, Floats]]], list[tuple[Ints, bool]]]


def clique_cover(
    lo: Floats, hi: Floats, group: Ints, solve: Solve
) -> tuple[Ints, NDArray[np.bool_]]:
    """Cover rectangles, corners (n, 2), by cliques: by the rules, and what they leave by a solver.

    ``solve`` gets the corners of the connected components that are left and returns, for each,
    labels 0, 1, ... of cliques, and whether their number is proven minimal. Returned are the label
    of every rectangle's clique, 0, 1, ..., and the mask of rectangles in components without such a
    proof.
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
            dropped, kept = _dominated(i, j)
            if not len(dropped):
                break
            keeper[dropped] = kept
        alive = (label < 0) & (keeper == itself)
        keep = alive[i] & alive[j]
        i, j = i[keep], j[keep]
    unproven = np.zeros(n, bool)
    components = _components(i, j, n)
    found = solve([(lo[members], hi[members]) for members in components])
    for members, (clique, proven) in zip(components, found):
        # Unlike the labels of other components and of forced cliques, which are below n.
        label[members] = n * (1 + clique) + members[0]
        unproven[members] = not proven
    while (keeper[keeper] != keeper).any():
        keeper = keeper[keeper]
    return np.unique(label[keeper], return_inverse=True)[1], unproven[keeper]


def _forced(lo: Floats, hi: Floats, i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Cliques that some minimum cover has: neighbourhoods that are cliques.

    A point that pierces rectangle r pierces nothing but neighbours of r: if all of these meet, no
    choice is better. Returned are a clique's name (such an r) and a member, for every member.
    """
    starts = run_starts(i)
    meet = (np.maximum.reduceat(lo[j], starts) <= np.minimum.reduceat(hi[j], starts)).all(axis=1)
    simplicial = np.zeros(len(lo), bool)
    simplicial[i[starts[meet]]] = True
    # Such r that are neighbours of each other have the same clique; the last one names it.
    chosen = simplicial[i]
    return i[chosen], j[chosen]


def _dominated(i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Rectangles r that can join the clique of a neighbour q, and such a q for each.

    If the neighbours of q are all neighbours of r as well, any clique with q can take in r.
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


def _components(i: Ints, j: Ints, n: int) -> list[Ints]:
    """Members of each connected component of the graph of the pairs (i, j)."""
    if not len(i):
        return []
    vertex = np.unique(i)
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n))
    component = connected_components(graph)[1][vertex]
    order = np.argsort(component, kind='stable')
    return np.split(vertex[order], run_starts(component[order])[1:])
