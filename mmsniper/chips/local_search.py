"""A local search for covers that are too large to be proven minimal.

It takes the points of a neighbourhood away and pierces again, by fewer points if it can, what only
they pierced.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips import integer_program
from mmsniper.chips.cliques import clique_cover
from mmsniper.chips.rectangles import Floats, Ints, common, piercings, spread

# Neighbourhoods that are looked at. 5000 boxes in 4000x4000 px take 8 s and get 1% more chips than
# with twice as many, which take 14 s.
NEIGHBOURHOODS = 200
# Those of all components of an image together, which take 10 s.
NEIGHBOURHOODS_OF_ALL = 1000
# A neighbourhood has about so many rectangles, which the rules and HiGHS cover in 10 to 30 ms, but
# at least 6 points, as fewer can seldom be reduced, and at most 20, whose other choices are too
# many to be all compared.
RECTANGLES = 150
MIN_POINTS, MAX_POINTS = 6, 20
# HiGHS proves nearly all covers of a neighbourhood at the first node.
NODE_LIMIT = 100
# In a strip (see integer_program.py) of few rectangles for a point, HiGHS copes with more of them.
# Each point is then in so many neighbourhoods.
RECTANGLES_OF_STRIP, OVERLAP = 250, 2
# Rectangles of a neighbourhood that are looked at first, and at most added each time that they do
# not suffice. Where boxes are crowded a neighbourhood has hundreds, most of them no constraint.
PART, ATTEMPTS = 100, 12


def improve(lo: Floats, hi: Floats, labels: Ints, share: float = 1.0) -> Ints:
    """Labels of a cover of one group that is no larger than the given one; 0, 1, ... both.

    ``share`` is that of these rectangles in all of the group that are searched.
    """
    points, group = common(lo, hi, labels)[1], np.zeros(len(lo), np.int64)
    times_pierced = np.bincount(piercings(lo, hi, group, points, group[: len(points)])[0])
    count = int(np.clip(RECTANGLES * len(points) // len(lo), MIN_POINTS, MAX_POINTS))
    budget = min(NEIGHBOURHOODS, int(np.ceil(NEIGHBOURHOODS_OF_ALL * share)))
    again, before = pierce_again, np.inf
    if count == MAX_POINTS and integer_program.is_strip(lo, hi):
        count = RECTANGLES_OF_STRIP * len(points) // len(lo)
        budget = min(budget, OVERLAP * len(points) // count)
        again = partial(pierce_again, part=RECTANGLES_OF_STRIP)
    while budget > 0 and len(points) < before:
        before = len(points)
        centres = points[spread(len(points), budget)]
        budget -= len(centres)
        for centre in centres:
            near = np.abs(points - centre).max(axis=1).argsort(kind='stable')[:count]
            there, removed = pierced_by(lo, hi, points[near])
            only = there[times_pierced[there] == removed]
            new = again(lo[only], hi[only], len(near))
            if new is not None:
                points = np.concatenate([np.delete(points, near, axis=0), new])
                times_pierced[there] -= removed
                there, added = pierced_by(lo, hi, new)
                times_pierced[there] += added
    rectangle, point = piercings(lo, hi, group, points, group[: len(points)])
    labels = np.empty(len(lo), np.int64)
    labels[rectangle] = point  # one of those that pierce it
    return np.unique(labels, return_inverse=True)[1]


def pierce_again(lo: Floats, hi: Floats, max_points: int, part: int | None = None) -> Floats | None:
    """Pierce rectangles by at most so many points (k, 2); None if that many do not suffice.

    Points for ``part`` (default: ``PART``) of the rectangles are often points for all; where not,
    some of the others are added. Where even some need more than ``max_points``, so do all.
    """
    part = PART if part is None else part
    chosen = np.zeros(len(lo), bool)
    missed: Ints = np.arange(len(lo))
    for _ in range(ATTEMPTS):
        chosen[missed[spread(len(missed), part)]] = True
        part_lo, part_hi = lo[chosen], hi[chosen]
        group = np.zeros(len(part_lo), np.int64)
        label, _ = clique_cover(part_lo, part_hi, group, _solve)
        points = common(part_lo, part_hi, np.unique(label, return_inverse=True)[1])[1]
        if len(points) > max_points:
            return None
        missed = np.flatnonzero(~pierced(lo, hi, points).any(axis=0))
        if not len(missed):
            return points
    return None


def _solve(components: list[tuple[Floats, Floats]]) -> list[tuple[Ints, bool]]:
    return [integer_program.solve(lo, hi, NODE_LIMIT) for lo, hi in components]


def pierced(lo: Floats, hi: Floats, points: Floats) -> NDArray[np.bool_]:
    """Which points pierce which rectangles, shape (number of points, n)."""
    return np.all((lo <= points[:, None]) & (points[:, None] <= hi), axis=2)


def pierced_by(lo: Floats, hi: Floats, points: Floats) -> tuple[Ints, Ints]:
    """The rectangles that points of a neighbourhood pierce, ascending, and how many pierce each."""
    near = np.flatnonzero(
        (lo <= points.max(axis=0)).all(axis=1) & (points.min(axis=0) <= hi).all(1)
    )
    times = pierced(lo[near], hi[near], points).sum(axis=0)
    return near[times > 0], times[times > 0]
