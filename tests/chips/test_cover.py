"""The fewest chips: against brute force, on graphs that need each of the ways to solve them."""

import numpy as np
import pytest
from brute_force_covers import (
    bars,
    check_cover,
    dense_scene,
    end_points,
    fewest_by_integer_program,
    fewest_classes,
    fewest_points,
    rectangles,
    strip,
)
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import cover as module
from mmsniper.chips import grid_cover, integer_program, local_search, minimum_cover
from mmsniper.chips.cover import grid_greedy


@given(rectangles(max_size=6))
def test_minimum_equals_trying_all_sets_of_points(corners):
    cover = minimum_cover(*corners)
    check_cover(cover, *corners)
    assert len(cover) == fewest_points(*corners)
    assert len(cover.unproven) == 0


@given(rectangles(max_size=7, extent=6))
def test_minimum_equals_trying_all_partitions_into_pairwise_intersecting_rectangles(corners):
    assert len(minimum_cover(*corners)) == fewest_classes(*corners)


@pytest.mark.parametrize('seed', range(40))
def test_minimum_where_rules_do_not_suffice(seed):
    lo, hi = bars(count=20 + seed, extent=12, seed=seed)
    cover = minimum_cover(lo, hi)
    check_cover(cover, lo, hi)
    assert len(cover) == fewest_by_integer_program(lo, hi)


# Two lying and two standing bars around a hole: each meets two others, no three have a point in
# common, and no rule applies.
FRAME = (
    np.array([[0, 1], [0, 4], [1, 0], [4, 0]], float),
    np.array([[5, 1], [5, 4], [1, 5], [4, 5]], float),
)


def test_rectangles_around_a_hole():
    lo, hi = FRAME
    assert len(minimum_cover(lo, hi)) == 2
    # And one in the hole, which meets none of them.
    assert len(minimum_cover([*lo, [2, 2]], [*hi, [3, 3]])) == 3


@pytest.mark.parametrize('group', [[0] * 12, [0] * 4 + [1] * 8, [0] * 4 + [1] * 4 + [2] * 4])
def test_several_problems_that_no_rule_solves(group):
    lo, hi = (np.concatenate([corners, corners + 10, corners + 20]) for corners in FRAME)
    cover = minimum_cover(lo, hi, group)
    check_cover(cover, lo, hi, group)
    assert len(cover) == 6


def test_touching_rectangles_share_a_point():
    cover = minimum_cover([[0, 0], [2, 2]], [[2, 2], [4, 4]])
    assert cover.lo.tolist() == cover.hi.tolist() == [[2, 2]]
    assert cover.assignment.tolist() == [0, 0]


def test_no_rectangles():
    cover = minimum_cover(np.zeros((0, 2)), np.zeros((0, 2)))
    assert len(cover) == 0
    assert cover.assignment.shape == (0,)


class TestDuplicates:
    @given(rectangles(max_size=8, extent=6), st.data())
    def test_a_duplicate_goes_with_the_first_of_its_kind(self, corners, data):
        lo, hi = corners
        again = data.draw(st.lists(st.integers(0, len(lo) - 1), max_size=8))
        index = np.array([*range(len(lo)), *again])
        once, cover = minimum_cover(lo, hi), minimum_cover(lo[index], hi[index])
        check_cover(cover, lo[index], hi[index])
        assert len(cover) == len(once)

    def test_the_rules_see_it_once(self, monkeypatch):
        seen = []
        clique_cover = module.clique_cover
        monkeypatch.setattr(
            module,
            'clique_cover',
            lambda lo, hi, *args: seen.append(len(lo)) or clique_cover(lo, hi, *args),
        )
        lo, hi = np.tile(FRAME[0], (3, 1)), np.tile(FRAME[1], (3, 1))
        cover = minimum_cover(lo, hi)
        assert seen == [4]
        assert cover.assignment.tolist() == minimum_cover(*FRAME).assignment.tolist() * 3
        # In another group it is another rectangle.
        minimum_cover(lo, hi, np.repeat([0, 1, 2], 4))
        assert seen[-1] == 12


class TestGroups:
    def test_rectangles_of_different_groups_share_no_point(self):
        cover = minimum_cover([[0, 0]] * 4, [[2, 2]] * 4, [5, 3, 5, 3])
        assert cover.group.tolist() == [3, 5]
        assert cover.assignment.tolist() == [1, 0, 1, 0]

    @given(st.lists(rectangles(max_size=8, extent=6), min_size=1, max_size=5), st.randoms())
    def test_a_groups_cover_does_not_depend_on_the_other_groups(self, parts, random):
        lo = np.concatenate([part[0] for part in parts])
        hi = np.concatenate([part[1] for part in parts])
        group = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        together = minimum_cover(lo, hi, group)
        check_cover(together, lo, hi, group)
        for g, part in enumerate(parts):
            alone = minimum_cover(*part)
            np.testing.assert_array_equal(together.lo[together.group == g], alone.lo)
            np.testing.assert_array_equal(together.hi[together.group == g], alone.hi)
        # Nor on the order in which groups are given.
        order = np.argsort([random.random() for _ in parts])[group].argsort(kind='stable')
        shuffled = minimum_cover(lo[order], hi[order], group[order])
        np.testing.assert_array_equal(shuffled.lo, together.lo)
        np.testing.assert_array_equal(shuffled.assignment, together.assignment[order])


class TestSlack:
    def test_a_rectangle_goes_where_it_confines_nothing(self):
        # The second meets the first in one point only, and holds all that the others share.
        lo = np.array([[0, 0], [4, 0], [5, 0], [5, 0]], float)
        hi = np.array([[4, 1], [9, 1], [8, 1], [7, 1]], float)
        for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
            cover = minimum_cover(lo[order], hi[order])
            assert sorted(cover.lo.tolist()) == [[0, 0], [5, 0]]
            assert sorted(cover.hi.tolist()) == [[4, 1], [7, 1]]

    def test_of_several_points_it_goes_to_the_one_with_least_to_lose(self):
        # The last holds all of the first two slacks, and a corner of the third.
        lo = np.array([[0, 0], [10, 0], [20, 0], [0, 0]], float)
        hi = np.array([[9, 9], [12, 2], [29, 9], [20, 9]], float)
        group = np.zeros(4, int)
        label = module._widen_slack(lo, hi, group, np.array([0, 1, 2, 2]))
        assert label.tolist() == [0, 1, 2, 1]

    @given(rectangles(max_size=8))
    def test_widening_never_narrows(self, corners):
        lo, hi = corners
        group = np.zeros(len(lo), int)
        label, _ = module._label(lo, hi, group, 1.0)
        wide = module._widen_slack(lo, hi, group, label)
        for k in set(wide.tolist()):
            before, after = label == k, wide == k
            assert (lo[after].max(axis=0) <= lo[before].max(axis=0)).all()
            assert (hi[after].min(axis=0) >= hi[before].min(axis=0)).all()


@pytest.mark.parametrize(
    ('lo', 'hi', 'group', 'message'),
    [
        ([[0, 0], [3, 0]], [[1, 1], [2, 1]], None, 'rectangle 1 is empty'),
        ([[0, np.nan]], [[1, 1]], None, 'rectangle 0 is empty'),
        ([[0, 0]], [[1, 1], [2, 2]], None, '1 lower corners, 2 upper ones'),
        ([[0, 0]], [[1, 1]], [0, 1], '2 groups'),
    ],
)
def test_rectangles_that_are_none(lo, hi, group, message):
    with pytest.raises(ValueError, match=message):
        minimum_cover(lo, hi, group)


class TestDenseScenes:
    def test_beyond_proof_the_cover_is_nearly_minimal_and_said_to_be_unproven(self, monkeypatch):
        lo, hi = dense_scene(300, width=1250, side=171)
        fewest = len(minimum_cover(lo, hi))
        monkeypatch.setattr(integer_program, 'MAX_RECTANGLES', 20)
        monkeypatch.setattr(integer_program, 'is_sparse', lambda *args: False)
        cover = minimum_cover(lo, hi)
        check_cover(cover, lo, hi)
        assert cover.unproven.tolist() == [0]
        assert fewest <= len(cover) <= fewest * 1.05

    def test_300_boxes_need_no_guess(self):
        lo, hi = dense_scene(300, width=1250, side=171)
        cover = minimum_cover(lo, hi)
        check_cover(cover, lo, hi)
        assert len(cover.unproven) == 0
        assert len(cover) == fewest_by_integer_program(lo, hi, end_points(lo, hi))

    def test_without_a_proof_the_cover_is_good_and_said_to_be_unproven(self, monkeypatch):
        lo, hi = bars(60, extent=30, seed=3)
        lo, hi = np.concatenate([lo, [[99, 99]]]), np.concatenate([hi, [[100, 100]]])
        group = np.append(np.full(60, 7), 9)
        fewest = len(minimum_cover(lo, hi, group))
        monkeypatch.setattr(integer_program, 'MAX_RECTANGLES', 0)
        monkeypatch.setattr(integer_program, 'is_sparse', lambda *args: False)
        cover = minimum_cover(lo, hi, group)
        check_cover(cover, lo, hi, group)
        assert cover.unproven.tolist() == [7]
        assert fewest <= len(cover) <= fewest * 1.1

    def test_more_rectangles_than_pairs_can_be_looked_at(self, monkeypatch):
        lo, hi = dense_scene(600, width=1000, side=250)
        fewest = len(minimum_cover(lo, hi))
        monkeypatch.setattr(module, '_MAX_WORK', 0)
        cover = minimum_cover(
            np.concatenate([lo, lo[:1]]),
            np.concatenate([hi, hi[:1]]),
            np.append(np.zeros(600, int), 1),
        )
        check_cover(
            cover,
            np.concatenate([lo, lo[:1]]),
            np.concatenate([hi, hi[:1]]),
            np.append(np.zeros(600, int), 1),
        )
        assert cover.unproven.tolist() == [0]
        assert fewest <= len(cover) - 1 <= fewest * 1.15

    def test_a_strip_is_proven_however_long_it_is(self, monkeypatch):
        lo, hi = strip(400, width=4000)
        monkeypatch.setattr(integer_program, 'MAX_RECTANGLES', 0)
        cover = minimum_cover(lo, hi)
        check_cover(cover, lo, hi)
        assert len(cover.unproven) == 0
        assert len(cover) == fewest_by_integer_program(lo, hi, end_points(lo, hi))
        monkeypatch.setattr(integer_program, 'MAX_MEMBERS_OF_STRIP', 0)
        assert minimum_cover(lo, hi).unproven.tolist() == [0]

    def test_components_of_an_image_share_the_effort_those_of_small_ones_do_not(self, monkeypatch):
        monkeypatch.setattr(integer_program, 'solve', lambda lo, hi, _: (np.arange(len(lo)), False))
        shares = []
        monkeypatch.setattr(
            local_search,
            'improve',
            lambda lo, hi, label, share=1.0: shares.append((len(lo), share)) or label,
        )
        parts = [bars(60, extent=30, seed=3)] * 2
        lo, hi = (
            np.concatenate([part[k] + 100 * i for i, part in enumerate(parts)]) for k in (0, 1)
        )
        minimum_cover(lo, hi)
        assert [share for _, share in shares] == [1.0, 1.0]
        sizes = [size for size, _ in shares]
        shares.clear()
        monkeypatch.setattr(module, '_SAMPLE', 30)
        minimum_cover(lo, hi)
        assert shares == [(size, size / sum(sizes)) for size in sizes]

    def test_the_work_is_the_sum_of_squares_of_degrees(self):
        lo, hi = dense_scene(module._SAMPLE, width=1000, side=250)
        meet = ((lo[:, None] <= hi) & (lo <= hi[:, None])).all(axis=2)
        assert module._work(lo, hi) == (meet.sum(axis=1) ** 2).sum()


def greedy_on_grid(first, last):
    """The paper's greedy, first point on ties, by looking at all points anew each time."""
    open_ = list(range(len(first)))
    size, points = int(last.max(initial=-1)) + 1, []
    while True:
        gain = np.zeros((size, size), int)
        for k in open_:
            gain[first[k, 0] : last[k, 0] + 1, first[k, 1] : last[k, 1] + 1] += 1
        if not gain.any():
            return np.array(points).reshape(-1, 2)
        point = np.unravel_index(gain.argmax(), gain.shape)
        points.append(point)
        open_ = [k for k in open_ if not ((first[k] <= point) & (point <= last[k])).all()]


class TestGridCover:
    @given(rectangles(max_size=10, extent=6))
    def test_it_is_the_greedy_choice(self, corners):
        first, last = corners[0].astype(int), corners[1].astype(int)
        cover = grid_cover(first, last)
        assert len(cover) == len(greedy_on_grid(first, last))
        assert sorted(cover.lo.tolist()) == sorted(greedy_on_grid(first, last).tolist())

    @given(rectangles(max_size=10, extent=6), st.integers(0, 99))
    def test_each_rectangle_holds_its_point(self, corners, seed):
        first, last = corners[0].astype(int), corners[1].astype(int)
        group = np.arange(len(first)) % 2
        cover = grid_cover(first, last, group, np.random.default_rng(seed).random(len(first)))
        points = cover.lo[cover.assignment]
        assert ((first <= points) & (points <= last)).all()
        assert (cover.group[cover.assignment] == group).all()
        np.testing.assert_array_equal(cover.lo, cover.hi)

    def test_what_lies_between_the_grid_lines_stays_uncovered(self):
        cover = grid_cover([[0, 0], [3, 0], [1, 2]], [[5, 5], [2, 5], [4, 1]])
        assert cover.assignment.tolist() == [0, -1, -1]
        assert len(grid_cover([[3, 0]], [[2, 5]])) == 0
        chosen, points = grid_greedy(np.array([[3, 0]]), np.array([[2, 5]]))
        assert chosen.tolist() == [-1]
        assert points.shape == (0, 2)

    def test_it_does_not_claim_to_be_minimal_or_not(self):
        assert grid_cover([[0, 0], [3, 3]], [[1, 1], [4, 4]]).unproven.tolist() == []

    @pytest.mark.parametrize('gap', [(0, 5), (5, 0), (0, 2), (2, 0)])
    def test_rectangles_without_a_common_line_are_no_division_by_zero(self, gap):
        first = np.array([[0, 0], gap])
        with np.errstate(all='raise'):
            assert len(grid_cover(first, first + 1)) == 2

    def test_most_rectangles_first(self):
        # A point for the first three, though two points of two would do as well.
        cover = grid_cover([[0, 0], [0, 0], [1, 0], [4, 0]], [[1, 1], [2, 1], [4, 1], [6, 1]])
        assert cover.assignment.tolist() == [0, 0, 0, 1]
        assert cover.lo[0].tolist() == [1, 0]

    def test_draws_choose_evenly_among_equally_good_points(self):
        draws = (np.arange(600) + 0.5) / 600
        one = grid_cover(np.zeros((600, 2)), np.tile([1, 2], (600, 1)), np.arange(600), draws)
        points, counts = np.unique(one.lo, axis=0, return_counts=True)
        assert points.tolist() == [[x, y] for x in (0, 1) for y in (0, 1, 2)]
        assert counts.tolist() == [100] * 6

    def test_each_choice_of_a_group_has_a_draw_of_its_own(self):
        # Two rectangles apart: the first choice is between all six points, the second between
        # those three of the other rectangle.
        first, last = np.array([[0, 0], [9, 0]]), np.array([[2, 0], [11, 0]])
        cover = grid_cover(first, last, draws=np.array([0.0, 0.99]))
        assert cover.lo.tolist() == [[0, 0], [11, 0]]
        cover = grid_cover(first, last, draws=np.array([0.99, 0.5]))
        assert cover.lo[cover.assignment].tolist() == [[1, 0], [11, 0]]
