"""Covers of connected rectangles for which the rules of ``cover.py`` do not find the minimum.

A cover is a list of points; *cliques* is the incidence matrix of the maximal sets of rectangles
that one point can pierce.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mmsniper.chips.rectangles import Floats, Ints, common, maximal_cliques, piercings

# Up to this many rectangles: exact search in Python, with integers as sets, for so many nodes.
SEARCH_SIZE = 100
SEARCH_NODES = 2_000
# Up to this many rectangles: proof by HiGHS, which takes it about a second. Of more, it may spend
# minutes before the first node, where no limit but one of time would stop it.
PROOF_SIZE = 160
# The local search: windows looked at again, and points in each.
WINDOWS = 400
WINDOW_POINTS = (6, 20)
WINDOW_RECTANGLES = 150

CoverWindow = Callable[[Floats, Floats, int], Floats | None]


def solve(
    lo: Floats, hi: Floats, node_limit: int, cover_window: CoverWindow | None = None
) -> tuple[Ints, bool]:
    """Cover connected rectangles with cliques.

    Few rectangles are searched exactly; of more, HiGHS is asked. Where neither comes to an end, or
    there are too many, a greedy cover is improved window by window.

    Args:
        lo, hi (Floats): Corners, shape (n, 2).
        node_limit (int): Nodes for HiGHS.
        cover_window (CoverWindow | None): Points that pierce part of the rectangles, at most so
            many; None if it finds none. Defaults to these rectangles are such a part, only the
            first search is made.

    Returns:
        tuple[Ints, bool]: Label of every rectangle's clique, 0, 1, ..., and whether their number is
        proven minimal.
    """
    cliques = maximal_cliques(lo, hi)
    chosen, proven = greedy(cliques), False
    if len(lo) <= SEARCH_SIZE:
        chosen, proven = search(cliques, chosen)
    if not proven and cover_window is not None and len(lo) <= PROOF_SIZE:
        chosen, proven = prove(cliques, chosen, node_limit)
    labels = first_label(cliques[chosen])
    if not proven and cover_window is not None:
        labels = improve(lo, hi, labels, cover_window)
    return labels, proven


def first_label(cliques: csr_array) -> Ints:
    """For each rectangle the first of the given cliques that has it; labels without gaps."""
    by_rectangle = cliques.tocsc()
    by_rectangle.sort_indices()
    return np.unique(by_rectangle.indices[by_rectangle.indptr[:-1]], return_inverse=True)[1]


def greedy(cliques: csr_array) -> Ints:
    """Rows of cliques that cover all columns, each the first of those that add most."""
    by_rectangle = cliques.tocsc()
    gain = np.diff(cliques.indptr)
    covered = np.zeros(cliques.shape[1], bool)
    chosen = []
    while not covered.all():
        best = int(gain.argmax())
        chosen.append(best)
        members = cliques.indices[cliques.indptr[best] : cliques.indptr[best + 1]]
        new = members[~covered[members]]
        covered[new] = True
        gain -= np.bincount(by_rectangle[:, new].indices, minlength=len(gain))
    return np.array(chosen)


class _OutOfNodes(Exception):  # noqa: N818
    """The search takes too long."""


def search(cliques: csr_array, cover: Ints) -> tuple[Ints, bool]:
    """Branch and bound for few rectangles.

    Args:
        cliques (csr_array): Shape (number of cliques, number of rectangles).
        cover (Ints): Rows of a cover to start from.

    Returns:
        tuple[Ints, bool]: Rows of a cover, and whether it is proven minimal within ``SEARCH_NODES``
        nodes.
    """
    sets, adjacent, of = _as_bits(cliques)
    best = cover.tolist()
    nodes = 0

    def visit(open_: int, chosen: list[int]) -> None:
        nonlocal best, nodes
        if not open_:
            best = chosen if len(chosen) < len(best) else best
            return
        if len(chosen) + _independent(open_, adjacent) >= len(best):
            return
        nodes += 1
        if nodes > SEARCH_NODES:
            raise _OutOfNodes
        tried: list[int] = []
        lowest = (open_ & -open_).bit_length() - 1
        for c in sorted(of[lowest], key=lambda c: -(sets[c] & open_).bit_count()):
            gained = sets[c] & open_
            # A set that covers part of what another covers is no better than that one.
            if any(gained & t == gained for t in tried):
                continue
            tried.append(gained)
            visit(open_ & ~gained, [*chosen, c])

    try:
        visit((1 << cliques.shape[1]) - 1, [])
    except _OutOfNodes:
        return np.array(best), False
    return np.array(best), True


def _as_bits(cliques: csr_array) -> tuple[list[int], list[int], list[list[int]]]:
    """Cliques as bit sets, neighbourhoods as bit sets, and the cliques of each bit.

    Rectangles with few neighbours get the low bits: branching there and counting them first
    makes the bound good.
    """
    shared = (cliques.T @ cliques).tocsr()
    bit = np.empty(cliques.shape[1], np.int64)
    bit[np.argsort(np.diff(shared.indptr), kind='stable')] = np.arange(len(bit))
    weights = np.array([1 << int(b) for b in bit], object)
    sets = np.add.reduceat(weights[cliques.indices], cliques.indptr[:-1]).tolist()
    adjacent, of = [0] * len(bit), [[] for _ in bit]
    for c, members in enumerate(np.split(bit[cliques.indices], cliques.indptr[1:-1])):
        for b in members.tolist():
            adjacent[b] |= sets[c]
            of[b].append(c)
    return sets, adjacent, of


def _independent(open_: int, adjacent: list[int]) -> int:
    """Size of a set of pairwise disjoint rectangles: each needs a point of its own."""
    count = 0
    while open_:
        count += 1
        open_ &= ~adjacent[(open_ & -open_).bit_length() - 1]
    return count


def prove(cliques: csr_array, cover: Ints, node_limit: int) -> tuple[Ints, bool]:
    """Integer programming by HiGHS.

    The limit is on nodes and not on seconds: what is planned must not depend on how busy the
    machine is, or ranks would plan differently, and a resumed run differently from the first.

    Args:
        cliques (csr_array): Shape (number of cliques, number of rectangles).
        cover (Ints): Rows of a cover, to fall back on.
        node_limit (int): Nodes of the search tree.

    Returns:
        tuple[Ints, bool]: Rows of a cover, and whether it is proven minimal.
    """
    result = milp(
        np.ones(cliques.shape[0]),
        integrality=1,
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(cliques.T, 1),
        options=dict(node_limit=node_limit),
    )
    if result.x is None:
        return cover, False
    chosen = np.flatnonzero(result.x > 0.5)
    covers = np.diff(cliques[chosen].tocsc().indptr).all()
    if not covers or len(chosen) > len(cover):
        return cover, False
    return chosen, result.status == 0


def improve(lo: Floats, hi: Floats, labels: Ints, cover_window: CoverWindow) -> Ints:
    """Local search: take neighbouring points away, pierce again what only they pierced.

    Args:
        lo, hi (Floats): Corners, shape (n, 2).
        labels (Ints): A cover, shape (n,).
        cover_window (CoverWindow): See :func:`solve`.

    Returns:
        Ints: Labels of a cover that is no larger.
    """
    points, group = common(lo, hi, labels)[1], np.zeros(len(lo), np.int64)
    held = np.bincount(piercings(lo, hi, group, points, group[: len(points)])[0])
    size = int(
        np.clip(WINDOW_RECTANGLES * len(points) // len(lo), WINDOW_POINTS[0], WINDOW_POINTS[-1])
    )
    budget, before = WINDOWS, len(points) + 1
    while budget > 0 and len(points) < before:
        before = len(points)
        seeds = points[np.linspace(0, len(points) - 1, min(len(points), budget)).astype(int)]
        budget -= len(seeds)
        for seed in seeds:
            near = np.abs(points - seed).max(axis=1).argsort(kind='stable')[:size]
            out = held_by(lo, hi, points[near])
            only = np.flatnonzero(held == out.sum(axis=0))
            new = cover_window(lo[only], hi[only], len(near))
            if new is not None:
                points = np.concatenate([np.delete(points, near, axis=0), new])
                held += held_by(lo, hi, new).sum(axis=0) - out.sum(axis=0)
    rectangle, point = piercings(lo, hi, group, points, group[: len(points)])
    labels = np.empty(len(lo), np.int64)
    labels[rectangle] = point  # one of those that it holds
    return np.unique(labels, return_inverse=True)[1]


def held_by(lo: Floats, hi: Floats, points: Floats) -> np.ndarray:
    """Which rectangles hold which points, shape (number of points, n)."""
    return ((lo <= points[:, None]) & (points[:, None] <= hi)).all(axis=2)
