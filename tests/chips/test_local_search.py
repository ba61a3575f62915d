"""The local search: which rectangles it covers anew, and that covers get smaller."""

import numpy as np
from brute_force_covers import bars, holds, rectangles, strip
from hypothesis import given
from hypothesis import strategies as st

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


@given(rectangles(max_size=8), st.lists(st.tuples(*[st.integers(0, 10)] * 2), min_size=1))
def test_only_rectangles_near_points_are_compared_with_them(corners, points):
    points = np.array(points, float)
    there, times = local_search.pierced_by(*corners, points)
    expected = holds(*corners, points).sum(axis=0)
    assert there.tolist() == np.flatnonzero(expected).tolist()
    assert times.tolist() == expected[there].tolist()


def test_a_share_of_the_search_is_that_of_its_neighbourhoods(monkeypatch):
    lo, hi = bars(120, extent=40, seed=0)
    before, seen = greedy_cover(lo, hi), []
    monkeypatch.setattr(
        local_search, 'pierce_again', lambda lo, hi, max_points: seen.append(max_points)
    )
    monkeypatch.setattr(local_search, 'NEIGHBOURHOODS_OF_ALL', 40)
    local_search.improve(lo, hi, before, share=0.1)
    assert len(seen) == 4


def test_in_a_strip_neighbourhoods_are_long_pieces_of_it(monkeypatch):
    lo, hi = strip(900, width=9000)
    before, seen, pierce_again = greedy_cover(lo, hi), [], local_search.pierce_again

    def again(lo, hi, max_points, part):
        seen.append((max_points, part))
        return pierce_again(lo, hi, max_points, part)

    monkeypatch.setattr(local_search, 'pierce_again', again)
    after = local_search.improve(lo, hi, before)
    slack_lo, slack_hi = common(lo, hi, after)
    assert (slack_lo <= slack_hi).all()
    assert after.max() < before.max()
    assert {part for _, part in seen} == {local_search.RECTANGLES_OF_STRIP}
    assert min(points for points, _ in seen) > local_search.MAX_POINTS
    each = seen[0][0] * len(seen) / (before.max() + 1)
    assert local_search.OVERLAP - 1 < each <= local_search.OVERLAP
