"""The local search: which rectangles it covers anew, and that covers get smaller."""

import numpy as np
from brute_force_covers import bars, holds

from mmsniper.chips import local_search
from mmsniper.chips.integer_program import first_label, greedy
from mmsniper.chips.rectangles import common, maximal_cliques


def greedy_cover(lo, hi):
    cliques = maximal_cliques(lo, hi)
    return first_label(cliques[greedy(cliques)])


def test_it_covers_again_only_what_is_left_uncovered(monkeypatch):
    lo, hi = bars(120, extent=40, seed=0)
    before = greedy_cover(lo, hi)
    points = common(lo, hi, before)[1]
    times_pierced = holds(lo, hi, points).sum(axis=0)
    sizes = []
    monkeypatch.setattr(
        local_search, 'pierce_again', lambda lo, hi, max_points: sizes.append((len(lo), max_points))
    )
    local_search.improve(lo, hi, before)
    expected = []
    for centre in points:
        near = np.abs(points - centre).max(axis=1).argsort(kind='stable')[: sizes[0][1]]
        removed = holds(lo, hi, points[near]).sum(axis=0)
        expected.append((((removed > 0) & (removed == times_pierced)).sum(), len(near)))
    assert sizes == expected


def test_it_makes_covers_smaller():
    improved = 0
    for seed in range(4):
        lo, hi = bars(120, extent=40, seed=seed)
        before = greedy_cover(lo, hi)
        after = local_search.improve(lo, hi, before)
        slack_lo, slack_hi = common(lo, hi, after)
        assert (slack_lo <= slack_hi).all()
        assert after.max() <= before.max()
        improved += after.max() < before.max()
    assert improved >= 3


def test_where_it_finds_nothing_the_number_stays(monkeypatch):
    lo, hi = bars(60, extent=30, seed=0)
    before = greedy_cover(lo, hi)
    monkeypatch.setattr(local_search, 'pierce_again', lambda lo, hi, max_points: None)
    assert local_search.improve(lo, hi, before).max() == before.max()


def test_points_for_some_rectangles_are_completed_to_points_for_all(monkeypatch):
    lo, hi = bars(120, extent=40, seed=1)
    monkeypatch.setattr(local_search, 'PART', 20)
    points = local_search.pierce_again(lo, hi, max_points=100)
    assert holds(lo, hi, points).any(axis=0).all()
    assert local_search.pierce_again(lo, hi, max_points=len(points) - 1) is None
    monkeypatch.setattr(local_search, 'ATTEMPTS', 1)
    assert local_search.pierce_again(lo, hi, max_points=100) is None
