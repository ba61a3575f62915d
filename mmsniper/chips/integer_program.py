"""Clique covers by integer programming: greedy choice, then proof by HiGHS, which SciPy brings.

*cliques* is the incidence matrix of the maximal sets of rectangles that one point can pierce, shape
(number of cliques, number of rectangles).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mmsniper.chips.rectangles import Floats, Ints, maximal_cliques

# HiGHS takes about a second to prove a cover of this many rectangles. On more it may spend minutes
# before the first node, where nothing but a limit of time would stop it.
MAX_RECTANGLES = 160
# Nor on more, if their cliques have so few members in all: a second again.
MAX_MEMBERS = 2000
# Where rectangles form a strip, at most this many of them wide, HiGHS proves more in that time.
STRIP, MAX_MEMBERS_OF_STRIP = 5, 10_000


def solve(lo: Floats, hi: Floats, node_limit: int) -> tuple[Ints, bool]:
    """Label of every rectangle's clique, 0, 1, ..., and whether their number is proven minimal.

    The rectangles, with corners of shape (n, 2), are connected; ``node_limit`` is that of HiGHS.
    """
    cliques = maximal_cliques(lo, hi)
    chosen = greedy(cliques)
    # Fewer cliques, were they all as large as the largest one, would not reach all rectangles.
    proven = bool((len(chosen) - 1) * np.diff(cliques.indptr).max() < len(lo))
    if not proven and (len(lo) <= MAX_RECTANGLES or is_sparse(lo, hi, cliques)):
        chosen, proven = prove(cliques, chosen, node_limit)
    return first_label(cliques[chosen]), proven


def is_sparse(lo: Floats, hi: Floats, cliques: csr_array) -> bool:
    """Whether HiGHS proves a cover by these cliques in seconds, however many there are."""
    return cliques.nnz <= (MAX_MEMBERS_OF_STRIP if is_strip(lo, hi) else MAX_MEMBERS)


def is_strip(lo: Floats, hi: Floats) -> bool:
    """Whether the rectangles lie along an axis."""
    return bool((hi.max(axis=0) - lo.min(axis=0) <= STRIP * (hi - lo).mean(axis=0)).any())


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


def prove(cliques: csr_array, cover: Ints, node_limit: int) -> tuple[Ints, bool]:
    """Rows of a minimum cover and whether that is proven; the given cover if none is found.

    The limit is on nodes of the search tree and not on seconds: ranks, and a resumed run, must plan
    the same however busy the machine is.
    """
    by_clique = cliques.T
    # Before SciPy 1.15 milp takes indices of 32 bits only.
    by_clique.indices = by_clique.indices.astype(np.int32)
    by_clique.indptr = by_clique.indptr.astype(np.int32)
    result = milp(
        np.ones(cliques.shape[0]),
        integrality=1,
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(by_clique, 1),
        options=dict(node_limit=node_limit),
    )
    if result.x is None:
        return cover, False
    chosen = np.flatnonzero(result.x > 0.5)
    covers = np.diff(cliques[chosen].tocsc().indptr).all()
    if not covers or len(chosen) > len(cover):
        return cover, False
    # Of two that are as small, not the one that depends on HiGHS's version.
    return (chosen if len(chosen) < len(cover) else cover), result.status == 0
