"""Which rectangles meet, and in which sets: against looking at all of them."""

from itertools import combinations

import numpy as np
import pytest
from brute_force_covers import rectangles
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import rectangles as module
from mmsniper.chips.rectangles import (
    blocks,
    common,
    expand,
    first_equal,
    maximal_cliques,
    neighbours,
    numbers_in_intervals,
    piercings,
    run_lengths,
    run_starts,
)


def meeting(lo, hi, group):
    return ((lo[:, None] <= hi) & (lo <= hi[:, None])).all(axis=2) & (group[:, None] == group)


def test_run_starts():
    assert run_starts(np.array([3, 3, 5, 3])).tolist() == [0, 2, 3]
    assert run_starts(np.array([])).tolist() == []


def test_run_lengths():
    assert run_lengths(np.array([3, 3, 5, 3])).tolist() == [2, 1, 1]
    assert run_lengths(np.array([])).tolist() == []


def test_the_first_equal_rectangle_has_the_same_corners_and_group():
    lo = np.array([[1, 0], [0, 0], [1, 0], [1, 0], [0, 0], [1, 0.0]])
    hi = np.array([[2, 2], [2, 2], [2, 2], [2, 3], [2, 2], [2, 2.0]])
    group = np.array([0, 0, 0, 0, 0, 1])
    assert first_equal(lo, hi, group).tolist() == [0, 1, 0, 3, 1, 5]


def test_expand():
    row, value = expand(np.array([5, 2, 8]), np.array([7, 2, 9]))
    assert row.tolist() == [0, 0, 2]
    assert value.tolist() == [5, 6, 8]


def test_common_is_the_intersection_of_each_label():
    lo = np.array([[0, 0], [2, 1], [5, 5.0]])
    hi = np.array([[4, 4], [6, 3], [7, 7.0]])
    slack_lo, slack_hi = common(lo, hi, np.array([0, 0, 1]))
    assert slack_lo.tolist() == [[2, 1], [5, 5]]
    assert slack_hi.tolist() == [[4, 3], [7, 7]]


@pytest.mark.parametrize('size', [1, 3, 100])
def test_blocks_hold_all_ranges_once_and_are_bounded(size, monkeypatch):
    monkeypatch.setattr(module, '_BLOCK', size)
    count = np.array([2, 0, 1, 3, 0, 5, 1])
    parts = blocks(np.zeros(7, int), count)
    assert np.concatenate([np.arange(7)[part] for part in parts]).tolist() == list(range(7))
    for part in parts:  # exceeded by no more than the range that fills it
        assert count[part].sum() <= size + count.max()
    assert blocks(np.zeros(0, int), np.zeros(0, int)) == []


def test_an_interval_holds_its_ends_but_not_those_of_other_groups():
    lo, hi = np.array([1.0, 1.0]), np.array([3.0, 1.0])
    x = np.array([0.5, 1.0, 2.0, 3.0, 3.5, 2.0])
    order, start, stop = numbers_in_intervals(
        lo, hi, np.array([0, 1]), x, np.array([0, 0, 0, 0, 0, 1])
    )
    assert x[order[start[0] : stop[0]]].tolist() == [1, 2, 3]
    assert order[start[1] : stop[1]].tolist() == []


@given(rectangles(max_size=12), st.data())
def test_neighbours_are_all_pairs_that_meet(corners, data):
    lo, hi = corners
    group = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(lo), max_size=len(lo))))
    i, j = neighbours(lo, hi, group)
    assert list(zip(i, j)) == list(zip(*np.nonzero(meeting(lo, hi, group))))


def test_neighbours_do_not_depend_on_the_size_of_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    lo = rng.integers(0, 20, (60, 2)).astype(float)
    hi = lo + rng.integers(0, 6, (60, 2))
    group = np.zeros(60, int)
    whole = neighbours(lo, hi, group)
    monkeypatch.setattr(module, '_BLOCK', 7)
    np.testing.assert_array_equal(neighbours(lo, hi, group), whole)


@given(rectangles(max_size=8), rectangles(max_size=8))
def test_piercings_are_all_points_in_rectangles(corners, others):
    lo, hi = corners
    points = others[0]
    group, of = np.arange(len(lo)) % 2, np.arange(len(points)) % 2
    i, k = piercings(lo, hi, group, points, of)
    inside = ((lo[:, None] <= points) & (points <= hi[:, None])).all(axis=2)
    assert sorted(zip(i, k)) == list(zip(*np.nonzero(inside & (group[:, None] == of))))


@given(rectangles(max_size=7))
def test_maximal_cliques_are_all_maximal_sets_with_a_common_point(corners):
    lo, hi = corners
    n = len(lo)
    cliques = {
        members
        for k in range(1, n + 1)
        for members in combinations(range(n), k)
        if (lo[list(members)].max(axis=0) <= hi[list(members)].min(axis=0)).all()
    }
    maximal = {c for c in cliques if not any(set(c) < set(d) for d in cliques)}
    found = maximal_cliques(lo, hi).toarray()
    assert {tuple(np.flatnonzero(row).tolist()) for row in found} == maximal
    assert len(found) == len(maximal)


def test_maximal_cliques_do_not_depend_on_the_size_of_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    lo = rng.integers(0, 20, (60, 2)).astype(float)
    hi = lo + rng.integers(0, 6, (60, 2))
    whole = maximal_cliques(lo, hi).toarray()
    monkeypatch.setattr(module, '_BLOCK', 5)
    np.testing.assert_array_equal(maximal_cliques(lo, hi).toarray(), whole)


def test_pairs_are_looked_at_in_pieces_of_bounded_size(monkeypatch):
    """60 rectangles that all meet are 3600 pairs, and as many cliques to be compared."""
    n, size = 60, 200
    lo, hi = np.arange(n * 2.0).reshape(n, 2), np.full((n, 2), 1000.0)
    group, looked_at = np.zeros(n, int), []

    def spy(start, stop):
        looked_at.append(int((stop - start).sum()))
        return expand(start, stop)

    monkeypatch.setattr(module, '_BLOCK', size)
    monkeypatch.setattr(module, 'expand', spy)
    for look in (
        lambda: neighbours(lo, hi, group),
        lambda: piercings(lo, hi, group, hi, group),
        lambda: maximal_cliques(lo, hi),
    ):
        looked_at.clear()
        look()
        assert len(looked_at) > 5
        assert max(looked_at) <= size + n
