"""Negative chips: where proposals crowd that no positive chip encloses, and nowhere else."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsniper.chips import (
    COVERED,
    NEGATIVE,
    POSITIVE,
    AnnotationTable,
    ChipPlan,
    NegativeStatistics,
    ScalePyramid,
    draw_negative_chips,
    plan_negative_chips,
    plan_positive_chips,
)
from mmsniper.chips import targets as targets_module
from mmsniper.chips.seeding import uniform

PAPER = ScalePyramid.from_config(
    dict(
        chip_size=512,
        levels=[
            dict(resize=dict(factor=3.0), valid_range=(0, 80)),
            dict(resize=dict(factor=1.667), valid_range=(32, 150)),
            dict(resize=dict(long_side=512), valid_range=(120, None)),
        ],
    )
)
# Chips of 16 and 32 original pixels, and one as large as the image.
SMALL = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=4.0), valid_range=(0, 12)),
            dict(resize=dict(factor=2.0), valid_range=(6, 24)),
            dict(resize=dict(long_side=64), valid_range=(10, None)),
        ],
    )
)
# Chips of 100 original pixels.
PLAIN = ScalePyramid.from_config(
    dict(chip_size=100, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
)


# --- what negative chips are, one candidate at a time ---------------------------------------------


def candidates(length, side, step, shift=0.0):
    """Origins along an axis: every step, and the one that is flush with the far end.

    A shift, in steps, moves all but the first and the last towards the corner.
    """
    edge = max(length - side, 0)
    k = 0
    while (k - shift) * step < edge - 1e-6:
        yield max((k - shift) * step, 0)
        k += 1
    yield edge


def encloses(x, y, side, box):
    # Coordinates of the tests are quarters of a pixel: nothing is that near to the border.
    return (
        x - 1e-6 <= box[0]
        and y - 1e-6 <= box[1]
        and box[2] <= x + side + 1e-6
        and box[3] <= y + side + 1e-6
    )


def uncovered_boxes(table, positives, pyramid, image, level, covered='enclosed'):
    """Rows of the proposals that count at a level and that no positive chip of it covers."""
    side = pyramid.chip_size / pyramid.scales(table.width[image], table.height[image])[level]
    lo, hi = pyramid.levels[level].valid_range
    rows = []
    for row in range(table.offset[image], table.offset[image + 1]):
        box = table.boxes[row].astype(float)
        w, h = box[2:] - box[:2]
        if table.ignore[row] or not lo <= (w * h) ** 0.5 < hi or max(w, h) > side * (1 + 1e-9):
            continue
        chips = positives.box[(positives.image == image) & (positives.level == level)]
        if covered == 'touched':
            in_chip = any((np.minimum(c, box)[2:] > np.maximum(c, box)[:2]).all() for c in chips)
        else:
            in_chip = any((c[:2] <= box[:2]).all() and (box[2:] <= c[2:]).all() for c in chips)
        if not in_chip:
            rows.append(row)
    return rows


def slow_plan(table, positives, pyramid, more_than, stride, covered='enclosed', key=None):
    """(image, level, window, rows) by the definition: all candidates, one after the other."""
    chips = []
    for image in range(len(table)):
        width, height = int(table.width[image]), int(table.height[image])
        for level, scale in enumerate(pyramid.scales(width, height).tolist()):
            side = pyramid.chip_size / scale
            left = uncovered_boxes(table, positives, pyramid, image, level, covered)
            shift = (0, 0) if key is None else uniform(*key, image, level, [0, 1], 3)
            while left:
                best, best_rows = None, []
                for x in candidates(width, side, stride / scale, shift[0]):
                    for y in candidates(height, side, stride / scale, shift[1]):
                        rows = [r for r in left if encloses(x, y, side, table.boxes[r])]
                        if len(rows) > len(best_rows):  # of equals, the first
                            best, best_rows = (x, y), rows
                if len(best_rows) <= more_than[min(level, len(more_than) - 1)]:
                    break
                x, y = best
                window = x, y, min(x + side, width), min(y + side, height)
                chips.append((image, level, window, best_rows))
                left = [row for row in left if row not in best_rows]
    return chips


# --- examples -------------------------------------------------------------------------------------


@st.composite
def images(draw, longest=70, max_boxes=12):
    """An image with proposals, in quarters of a pixel; most near each other."""
    width, height = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    cx, cy = draw(st.integers(0, 4 * width)), draw(st.integers(0, 4 * height))
    near, anywhere = st.integers(-30, 30), st.integers(-250, 250)
    side = st.one_of(st.integers(4, 60), st.integers(4, 300))
    rows = draw(
        st.lists(
            st.tuples(st.one_of(near, near, anywhere), st.one_of(near, near, anywhere), side, side),
            max_size=max_boxes,
        )
    )
    boxes = [
        ((cx + x) / 4, (cy + y) / 4, (cx + x + w) / 4, (cy + y + h) / 4) for x, y, w, h in rows
    ]
    if draw(st.booleans()):
        boxes.append((3, 3, np.nan, 9))
    return width, height, boxes, None


@st.composite
def problems(draw, max_images=3, longest=70):
    """A table of proposals, and windows of positive chips anywhere."""
    table = AnnotationTable.from_images(
        draw(st.lists(images(longest), min_size=1, max_size=max_images))
    )
    number = st.integers(-20, 4 * longest)
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(table) - 1),
                st.integers(0, 2),
                number,
                number,
                st.integers(20, 160),
            ),
            max_size=4,
        )
    )
    plan = ChipPlan(
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.int8),
        np.array([(x, y, x + side, y + side) for _, _, x, y, side in rows], np.float32).reshape(
            -1, 4
        )
        / 4,
        np.full(len(rows), POSITIVE, np.int8),
    )
    return table, plan


def part_of(table, plan, ids):
    """Some images of a problem, as images 0, 1, ..."""
    part = AnnotationTable.from_images(
        [(table.width[i], table.height[i], table.boxes_of(i), None) for i in ids]
    )
    chosen = [plan.take(plan.image == i) for i in ids]
    return part, ChipPlan.joined(
        [
            ChipPlan(np.full(len(p), k, np.int32), p.level, p.box, p.kind)
            for k, p in enumerate(chosen)
        ]
    )


def one_image(boxes, width=300, height=100):
    return AnnotationTable.from_images([(width, height, boxes, None)])


def chip(box, level=0, image=0):
    return ChipPlan(
        np.array([image], np.int32),
        np.array([level], np.int8),
        np.array([box], np.float32),
        np.array([POSITIVE], np.int8),
    )


def boxes_at(*corners, side=10):
    return [[x, y, x + side, y + side] for x, y in corners]


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ('image', 'level', 'box', 'kind')
    )


class TestPlan:
    @settings(max_examples=150)
    @given(
        problems(),
        st.lists(st.integers(0, 3), min_size=1, max_size=4),
        st.sampled_from([8, 16, 24, 32, 50, 100]),
        st.sampled_from(COVERED),
    )
    def test_it_is_the_slow_one(self, problem, more_than, stride, covered):
        table, positives = problem
        found = plan_negative_chips(
            table, positives, SMALL, more_than, stride=stride, covered=covered
        )
        expected = slow_plan(table, positives, SMALL, more_than, stride, covered)
        assert found.chips.image.tolist() == [row[0] for row in expected]
        assert found.chips.level.tolist() == [row[1] for row in expected]
        np.testing.assert_allclose(
            found.chips.box, np.reshape([row[2] for row in expected], (-1, 4)), atol=1e-4
        )
        assert found.proposals_per_chip.tolist() == [len(row[3]) for row in expected]

    @settings(max_examples=80)
    @given(
        problems(),
        st.integers(0, 3),
        st.sampled_from([8, 24, 100]),
        st.sampled_from(COVERED),
        st.tuples(st.integers(0, 9), st.integers(0, 9)),
    )
    def test_with_a_key_it_is_the_slow_one_on_a_shifted_grid_and_its_chips_slide(
        self, problem, more_than, stride, covered, key
    ):
        table, positives = problem
        found = plan_negative_chips(
            table, positives, SMALL, more_than, stride=stride, covered=covered, key=key
        )
        expected = slow_plan(table, positives, SMALL, [more_than], stride, covered, key)
        assert found.chips.image.tolist() == [row[0] for row in expected]
        assert found.chips.level.tolist() == [row[1] for row in expected]
        assert found.proposals_per_chip.tolist() == [len(row[3]) for row in expected]
        for (image, level, _, rows), window in zip(expected, found.chips.box.tolist()):
            width, height = int(table.width[image]), int(table.height[image])
            side = 64 / SMALL.scales(width, height)[level]
            assert min(window[:2]) >= 0
            np.testing.assert_allclose(window[2] - window[0], min(side, width), atol=1e-4)
            np.testing.assert_allclose(window[3] - window[1], min(side, height), atol=1e-4)
            for box in table.boxes[rows]:
                assert (np.minimum(box, window)[:2] > np.array(window[:2]) - 1e-4).all()
                assert (np.maximum(box, window)[2:] < np.array(window[2:]) + 1e-4).all()

    def test_chips_with_a_key_lie_anywhere_around_their_proposals(self):
        table = one_image([[140, 150, 160, 170]] * 3, 400, 300)
        found = [
            plan_negative_chips(table, ChipPlan.empty(), PLAIN, 2, key=(7, epoch)).chips.box
            for epoch in range(200)
        ]
        assert all(len(box) == 1 for box in found)
        left, top = np.concatenate(found)[:, :2].T
        assert 60 <= left.min() < 64 < 136 < left.max() <= 140
        assert 70 <= top.min() < 74 < 146 < top.max() <= 150
        assert abs(left.mean() - 100) < 5
        again = plan_negative_chips(table, ChipPlan.empty(), PLAIN, 2, key=(7, 5)).chips.box
        np.testing.assert_array_equal(again, found[5])

    def test_with_a_key_it_does_not_matter_how_many_images_are_planned_together(self, monkeypatch):
        start = np.random.default_rng(0).uniform(0, 50, (6, 40, 2))
        table = AnnotationTable.from_images(
            [(64, 60, np.concatenate([s, s + 8], axis=1), None) for s in start]
        )
        whole = plan_negative_chips(table, ChipPlan.empty(), SMALL, 2, key=(1, 2)).chips
        assert len(whole) > 20
        monkeypatch.setattr(targets_module, '_BOXES', 50)
        parts = plan_negative_chips(table, ChipPlan.empty(), SMALL, 2, key=(1, 2)).chips
        np.testing.assert_array_equal(parts.box, whole.box)

    def test_what_a_positive_chip_touches_or_encloses_is_covered(self):
        boxes = [[80, 10, 99, 30], [90, 10, 110, 30], [100, 10, 120, 30]]
        positives = chip([0, 0, 100, 100])
        for covered, expected in (('enclosed', [1, 2]), ('touched', [2])):
            found = plan_negative_chips(one_image(boxes), positives, PLAIN, 0, covered=covered)
            assert found.uncovered.index.tolist() == expected
            assert found.statistics.covered == 3 - len(expected)

    @settings(max_examples=15)
    @given(problems(max_images=1, longest=400), st.integers(0, 3))
    def test_it_is_the_slow_one_at_the_paper_s_scales(self, problem, more_than):
        table, positives = problem
        found = plan_negative_chips(table, positives, PAPER, more_than)
        expected = slow_plan(table, positives, PAPER, [more_than], 32)
        assert found.chips.level.tolist() == [row[1] for row in expected]
        np.testing.assert_allclose(
            found.chips.box, np.reshape([row[2] for row in expected], (-1, 4)), atol=1e-3
        )
        assert found.proposals_per_chip.tolist() == [len(row[3]) for row in expected]

    @settings(max_examples=80)
    @given(problems())
    def test_uncovered_are_the_proposals_that_no_positive_chip_of_the_level_encloses(self, problem):
        table, positives = problem
        uncovered = plan_negative_chips(table, positives, SMALL).uncovered
        found = set(
            zip(uncovered.image.tolist(), uncovered.level.tolist(), uncovered.index.tolist())
        )
        assert len(found) == len(uncovered.image)
        assert found == {
            (image, level, row)
            for image in range(len(table))
            for level in range(3)
            for row in uncovered_boxes(table, positives, SMALL, image, level)
        }

    @settings(max_examples=80)
    @given(problems(max_images=4, longest=600), st.sampled_from([16, 32, 59]))
    def test_chips_are_inside_their_images_of_the_level_s_size_and_negative(self, problem, stride):
        table, positives = problem
        chips = plan_negative_chips(table, positives, PAPER, 0, stride=stride).chips
        size = np.stack([table.width, table.height], axis=1)[chips.image]
        assert (chips.box[:, :2] >= 0).all()
        assert (chips.box[:, 2:] <= size).all()
        side = 512 / PAPER.scales(size[:, 0], size[:, 1])[np.arange(len(chips)), chips.level]
        np.testing.assert_allclose(
            chips.box[:, 2:] - chips.box[:, :2], np.minimum(side[:, None], size), atol=1e-3
        )
        assert (chips.kind == NEGATIVE).all()
        assert [a.dtype for a in vars(chips).values()] == [
            a.dtype for a in vars(ChipPlan.empty()).values()
        ]

    @settings(max_examples=80)
    @given(problems(max_images=4), st.integers(0, 3))
    def test_a_chip_holds_more_than_m_uncovered_proposals_that_no_earlier_one_has(
        self, problem, more_than
    ):
        table, positives = problem
        found = plan_negative_chips(table, positives, SMALL, more_than)
        chips = found.chips
        seen = {
            (i, lv): uncovered_boxes(table, positives, SMALL, i, lv)
            for i in range(len(table))
            for lv in range(3)
        }
        for k in range(len(chips)):
            x, y, right, bottom = chips.box[k].tolist()
            key = int(chips.image[k]), int(chips.level[k])
            new = [
                r
                for r in seen[key]
                if x <= table.boxes[r, 0]
                and y <= table.boxes[r, 1]
                and table.boxes[r, 2] <= right
                and table.boxes[r, 3] <= bottom
            ]
            assert len(new) == found.proposals_per_chip[k] > more_than
            seen[key] = [r for r in seen[key] if r not in new]

    @settings(max_examples=80)
    @given(problems(max_images=4), st.sampled_from([None, 1, 2, 3]))
    def test_chips_are_ordered_by_image_level_and_what_they_hold(self, problem, most):
        found = plan_negative_chips(*problem, SMALL, 0, max_per_image=most)
        key = list(
            zip(
                found.chips.image.tolist(),
                found.chips.level.tolist(),
                (-found.proposals_per_chip).tolist(),
            )
        )
        assert key == sorted(key)

    @settings(max_examples=50)
    @given(problems(max_images=5), st.sampled_from([None, 2]), st.randoms())
    def test_an_image_has_the_same_chips_in_any_part_of_the_data_set(self, problem, most, random):
        table, positives = problem
        whole = plan_negative_chips(table, positives, SMALL, 1, most)
        ids = list(range(len(table)))
        random.shuffle(ids)
        ids = ids[: random.randint(1, len(ids))]
        part = plan_negative_chips(*part_of(table, positives, ids), SMALL, 1, most)
        for k, i in enumerate(ids):
            mine, theirs = part.chips.image == k, whole.chips.image == i
            np.testing.assert_array_equal(part.chips.box[mine], whole.chips.box[theirs])
            np.testing.assert_array_equal(part.chips.level[mine], whole.chips.level[theirs])
            np.testing.assert_array_equal(
                part.proposals_per_chip[mine], whole.proposals_per_chip[theirs]
            )

    def test_it_does_not_matter_how_many_images_are_looked_at_together(self, monkeypatch):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, 50, (9, 40, 2))
        table = AnnotationTable.from_images(
            [
                (64, 60, np.concatenate([s, s + rng.uniform(2, 12, s.shape)], axis=1), None)
                for s in start
            ]
        )
        positives = plan_positive_chips(
            AnnotationTable.from_images([(64, 60, boxes_at((20, 20)), None)] * 9), SMALL
        )
        whole = plan_negative_chips(table, positives, SMALL, 2)
        assert whole.statistics.covered > 0
        monkeypatch.setattr(targets_module, '_BOXES', 50)
        parts = plan_negative_chips(table, positives, SMALL, 2)
        assert same(parts.chips, whole.chips)
        np.testing.assert_array_equal(parts.proposals_per_chip, whole.proposals_per_chip)
        np.testing.assert_array_equal(parts.uncovered.index, whole.uncovered.index)
        assert parts.statistics == whole.statistics


class TestByHand:
    def test_the_fullest_window_comes_first_and_a_window_with_too_few_does_not_come(self):
        # Chips of 100 px begin at 0, 32, ..., 192 and 200. Four boxes at 110 to 150 are held by
        # those at 64 and 96 (150 - 100 = 50 to 110), of which the first counts; three at the far
        # right by that at 200 only; two at the left are too few.
        boxes = boxes_at(
            (0, 0), (5, 0), (290, 90), (290, 80), (291, 70), (110, 0), (120, 0), (130, 0), (140, 0)
        )
        boxes[4][2] = 300
        found = plan_negative_chips(one_image(boxes), ChipPlan.empty(), PLAIN, 2)
        assert found.chips.box.tolist() == [[64, 0, 164, 100], [200, 0, 300, 100]]
        assert found.proposals_per_chip.tolist() == [4, 3]
        assert found.proposals_per_chip.dtype == np.int32
        assert found.statistics == NegativeStatistics(
            images=1,
            proposals=9,
            valid=9,
            covered=0,
            chips_per_level=(2,),
            capped=0,
            images_with_chips=1,
        )

    def test_more_than_m_means_more(self):
        table = one_image(boxes_at((0, 0), (1, 1), (2, 2)))
        assert plan_negative_chips(
            table, ChipPlan.empty(), PLAIN, 2
        ).proposals_per_chip.tolist() == [3]
        assert (
            plan_negative_chips(table, ChipPlan.empty(), PLAIN, 3).proposals_per_chip.tolist() == []
        )

    def test_a_proposal_counts_once_even_if_two_chips_hold_it(self):
        # The chip at 0 holds the first three, that at 64 the last three: the middle one is taken.
        table = one_image(boxes_at((0, 0), (10, 0), (80, 0), (150, 0), (154, 0)))
        found = plan_negative_chips(table, ChipPlan.empty(), PLAIN, 0)
        assert found.proposals_per_chip.tolist() == [3, 2]
        assert found.chips.box[:, 0].tolist() == [0, 64]
        assert plan_negative_chips(
            table, ChipPlan.empty(), PLAIN, 2
        ).proposals_per_chip.tolist() == [3]

    def test_proposals_that_a_positive_chip_encloses_do_not_count(self):
        table = one_image(boxes_at((10, 10), (20, 20), (30, 30), (95, 0)))
        found = plan_negative_chips(table, chip([0, 0, 100, 100]), PLAIN, 0)
        # The last one sticks out of the positive chip by 5 px.
        assert found.uncovered.index.tolist() == [3]
        assert found.proposals_per_chip.tolist() == [1]
        assert found.statistics.covered == 3

    def test_a_positive_chip_of_another_level_or_image_does_not_count(self):
        # Boxes of 10 px are valid at levels 0 (side 16), 1 (side 32) and 2.
        image = (64, 64, boxes_at((0, 0), (2, 2)), None)
        table = AnnotationTable.from_images([image, image])
        found = plan_negative_chips(table, chip([0, 0, 32, 32], level=1), SMALL, 0)
        assert list(zip(found.chips.image.tolist(), found.chips.level.tolist())) == [
            (0, 0),
            (0, 2),
            (1, 0),
            (1, 1),
            (1, 2),
        ]
        assert found.proposals_per_chip.tolist() == [2] * 5
        assert found.statistics.covered == 2

    def test_least_numbers_are_for_each_level_and_the_last_is_for_all_further_ones(self):
        # Two boxes that are valid at all three levels.
        table = one_image(boxes_at((0, 0), (2, 2)), 64, 64)

        def levels(more_than):
            found = plan_negative_chips(table, ChipPlan.empty(), SMALL, more_than)
            return found.chips.level.tolist()

        assert levels([1, 2, 1]) == [0, 2]
        assert levels([2, 1]) == [1, 2]
        assert levels((1, 2)) == [0]
        assert levels([1]) == levels(1) == [0, 1, 2]
        assert levels([2, 2, 2, 1]) == levels(2) == []

    def test_the_release_asks_for_more_than_25_at_the_finest_level_and_10_at_others(self):
        for number, levels in [(26, [0, 1, 2]), (25, [1, 2]), (11, [1, 2]), (10, [])]:
            table = one_image(boxes_at(*[(0, 0)] * number), 64, 64)
            found = plan_negative_chips(table, ChipPlan.empty(), SMALL)
            assert found.chips.level.tolist() == levels
            assert (found.proposals_per_chip == number).all()

    def test_the_stride_is_in_scaled_pixels(self):
        # At factor 4 a stride of 32 is 8 px: chips of 16 px at 0, 8, 16, ...
        boxes = boxes_at((9, 17), (10, 18), side=4)
        found = plan_negative_chips(one_image(boxes, 64, 64), ChipPlan.empty(), SMALL, [1, 9])
        assert found.chips.box.tolist() == [[0, 8, 16, 24]]
        found = plan_negative_chips(
            one_image(boxes, 64, 64), ChipPlan.empty(), SMALL, [1, 9], stride=4
        )
        assert found.chips.box.tolist() == [[0, 6, 16, 22]]

    def test_an_image_smaller_than_a_chip_has_one_chip_as_large_as_it(self):
        table = one_image(boxes_at((0, 0), (20, 5)), width=40, height=30)
        found = plan_negative_chips(table, ChipPlan.empty(), PLAIN, 1)
        assert found.chips.box.tolist() == [[0, 0, 40, 30]]
        assert found.proposals_per_chip.tolist() == [2]

    def test_a_proposal_larger_than_a_chip_does_not_count(self):
        table = one_image([[0, 0, 101, 50], [0, 0, 100, 50]])
        found = plan_negative_chips(table, ChipPlan.empty(), PLAIN, 0)
        assert found.proposals_per_chip.tolist() == [1]
        assert found.statistics.proposals == 2
        assert found.statistics.valid == 1

    def test_proposals_without_numbers_do_not_count(self):
        boxes = [[0, 0, np.nan, 10], [np.nan] * 4, [0, 0, np.inf, 9], [0, 0, 10, 10]]
        found = plan_negative_chips(one_image(boxes), ChipPlan.empty(), PLAIN, 0)
        assert found.proposals_per_chip.tolist() == [1]
        assert found.statistics.proposals == found.statistics.valid == 1

    def test_a_proposal_is_what_lies_in_the_image(self):
        found = plan_negative_chips(one_image([[250, -20, 400, 50]]), ChipPlan.empty(), PLAIN, 0)
        assert found.uncovered.box.tolist() == [[250, 0, 300, 50]]
        assert found.proposals_per_chip.tolist() == [1]

    @pytest.mark.parametrize('images', [[], [(64, 64, [], None)] * 3])
    def test_no_proposals_make_no_chips(self, images):
        table = AnnotationTable.from_images(images)
        positives = chip([0, 0, 16, 16]) if images else ChipPlan.empty()
        found = plan_negative_chips(table, positives, SMALL, 0, max_per_image=1)
        assert same(found.chips, ChipPlan.empty())
        assert found.proposals_per_chip.shape == (0,)
        assert found.proposals_per_chip.dtype == np.int32
        assert found.uncovered.box.shape == (0, 4)
        assert found.statistics == NegativeStatistics(len(images), 0, 0, 0, (0, 0, 0), 0, 0)
        assert '0 negative chips for 0 of' in str(found.statistics)


class TestMaxPerImage:
    @settings(max_examples=60)
    @given(problems(max_images=4), st.integers(1, 4))
    def test_it_keeps_those_that_hold_most(self, problem, most):
        everything = plan_negative_chips(*problem, SMALL, 0)
        found = plan_negative_chips(*problem, SMALL, 0, max_per_image=most)
        kept = 0
        for image in range(len(problem[0])):
            all_ = [k for k in range(len(everything.chips)) if everything.chips.image[k] == image]
            # Of chips that hold equally many, those of finer levels.
            best = sorted(sorted(all_, key=lambda k: -everything.proposals_per_chip[k])[:most])
            mine = found.chips.image == image
            assert same(found.chips.take(mine), everything.chips.take(np.array(best, int)))
            assert (
                found.proposals_per_chip[mine].tolist()
                == everything.proposals_per_chip[best].tolist()
            )
            kept += len(best)
        assert len(found.chips) == kept
        assert found.statistics.capped == len(everything.chips) - kept
        assert found.statistics.chips == kept

    def test_by_hand(self):
        # Three groups of 1, 3 and 2 boxes, far from each other.
        boxes = boxes_at((0, 0), *[(200, 0)] * 3, *[(400, 0)] * 2)
        table = AnnotationTable.from_images([(600, 100, boxes, None), (600, 100, boxes[:1], None)])
        found = plan_negative_chips(table, ChipPlan.empty(), PLAIN, 0, max_per_image=2)
        assert found.chips.image.tolist() == [0, 0, 1]
        assert found.proposals_per_chip.tolist() == [3, 2, 1]
        assert found.statistics.capped == 1


class TestStatistics:
    @settings(max_examples=60)
    @given(problems(max_images=5), st.integers(0, 2), st.sampled_from([None, 1, 2]))
    def test_they_are_what_can_be_counted(self, problem, more_than, most):
        table, positives = problem
        found = plan_negative_chips(table, positives, SMALL, more_than, most)
        got = found.statistics
        assert got.images == len(table)
        assert got.proposals == (~table.ignore).sum()
        assert got.valid == len(plan_negative_chips(table, ChipPlan.empty(), SMALL).uncovered.image)
        assert got.covered == got.valid - len(found.uncovered.image)
        assert got.chips_per_level == tuple(
            int((found.chips.level == level).sum()) for level in range(3)
        )
        assert got.chips == len(found.chips)
        assert got.images_with_chips == len(set(found.chips.image.tolist()))
        assert all(
            type(number) is int
            for number in [
                *got.chips_per_level,
                *(v for k, v in vars(got).items() if k != 'chips_per_level'),
            ]
        )

    @settings(max_examples=60)
    @given(problems(max_images=5), st.data())
    def test_those_of_two_parts_add_up_to_those_of_the_whole(self, problem, data):
        table, positives = problem
        cut = data.draw(st.integers(0, len(table)))
        ids = list(range(len(table)))
        a, b = (
            plan_negative_chips(*part_of(table, positives, part), SMALL, 0, 1).statistics
            for part in (ids[:cut], ids[cut:])
        )
        assert a + b == plan_negative_chips(table, positives, SMALL, 0, 1).statistics

    def test_in_words(self):
        assert (
            str(
                NegativeStatistics(
                    images=5,
                    proposals=900,
                    valid=1000,
                    covered=250,
                    chips_per_level=(3, 0, 4),
                    capped=2,
                    images_with_chips=4,
                )
            )
            == '7 negative chips for 4 of 5 images, fine to coarse [3, 0, 4]. The RPN made 900 '
            'proposals. Each counts once for every level that learns its size: 1000 in all. '
            'Positive chips cover 25.0% of them; negative chips are for the others'
        )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(min_proposals=-1), 'min_proposals.*-1'),
        (dict(min_proposals=[3, -1]), r'min_proposals.*\[3, -1\]'),
        (dict(min_proposals=[]), 'min_proposals'),
        (dict(min_proposals=2.5), 'min_proposals.*2.5'),
        (dict(min_proposals='25'), 'min_proposals'),
        (dict(min_proposals=None), 'min_proposals'),
        (dict(max_per_image=0), 'max_per_image.*0'),
        (dict(max_per_image=2.5), 'max_per_image.*2.5'),
        (dict(max_per_image='2'), 'max_per_image'),
        (dict(stride=0), 'stride.*0'),
        (dict(stride=-32), 'stride.*-32'),
        (dict(stride=2.5), 'stride.*2.5'),
        (dict(stride=float('nan')), 'stride.*nan'),
        (dict(stride=float('inf')), 'stride.*inf'),
        (dict(stride='32'), 'stride'),
        (dict(covered='seen'), "covered must be one of .*, got 'seen'"),
    ],
)
def test_arguments_out_of_their_range_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_negative_chips(one_image([]), ChipPlan.empty(), PLAIN, **arguments)


@pytest.mark.parametrize(
    ('positives', 'message'),
    [
        (chip([0, 0, 16, 16], level=3), r'level 3.*3 levels'),
        (chip([0, 0, 16, 16], image=2), r'image 2.*2 images'),
        (chip([0, 0, 16, 16], image=-1), 'image -1'),
    ],
)
def test_positive_chips_of_another_pyramid_or_other_images_are_refused(positives, message):
    table = AnnotationTable.from_images([(64, 64, boxes_at((0, 0)), None)] * 2)
    with pytest.raises(ValueError, match=message):
        plan_negative_chips(table, positives, SMALL, 0)


# --- the draw of an epoch -------------------------------------------------------------------------


def pool(*counts):
    """A pool with so many chips in each image; a chip's left edge is its position in the pool."""
    image = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    left = np.arange(len(image), dtype=np.float32)
    return ChipPlan(
        image,
        (np.arange(len(image)) % 3).astype(np.int8),
        np.stack([left, left * 0, left + 16, left * 0 + 16], axis=1),
        np.full(len(image), NEGATIVE, np.int8),
    )


def drawn(plan):
    return plan.box[:, 0].astype(int).tolist()


class TestDraw:
    @settings(max_examples=60)
    @given(
        st.lists(st.integers(0, 6), max_size=8),
        st.integers(0, 4),
        st.integers(0, 9),
        st.integers(0, 9),
    )
    def test_it_takes_up_to_n_of_every_image_each_at_most_once_in_the_pool_s_order(
        self, counts, per_image, seed, epoch
    ):
        whole = pool(*counts)
        chips = draw_negative_chips(whole, per_image, seed, epoch)
        assert same(chips, whole.take(np.array(drawn(chips), int)))
        assert drawn(chips) == sorted(set(drawn(chips)))
        assert np.bincount(chips.image, minlength=len(counts)).tolist() == [
            min(count, per_image) for count in counts
        ]

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(1, 3), st.randoms())
    def test_an_image_s_draw_does_not_depend_on_other_images(self, counts, per_image, random):
        whole = pool(*counts)
        kept = [image for image in range(len(counts)) if random.random() < 0.5]
        part = whole.take(np.isin(whole.image, kept))
        chips = draw_negative_chips(whole, per_image, seed=1, epoch=2)
        assert drawn(draw_negative_chips(part, per_image, seed=1, epoch=2)) == drawn(
            chips.take(np.isin(chips.image, kept))
        )

    def test_it_is_the_same_again_and_differs_between_seeds_epochs_and_images(self):
        whole = pool(*[20] * 10)
        one = draw_negative_chips(whole, 5, seed=3, epoch=4)
        assert same(one, draw_negative_chips(whole, 5, seed=3, epoch=4))
        for seed, epoch in [(4, 4), (3, 5), (4, 3)]:
            other = draw_negative_chips(whole, 5, seed, epoch)
            for image in range(10):
                assert drawn(one.take(one.image == image)) != drawn(
                    other.take(other.image == image)
                )
        choices = {
            tuple(x - 20 * image for x in drawn(one.take(one.image == image)))
            for image in range(10)
        }
        assert len(choices) == 10

    def test_all_pairs_of_an_image_s_chips_are_drawn_equally_often(self):
        whole = pool(3, 5)
        count = dict.fromkeys(combinations(range(3, 8), 2), 0)
        for epoch in range(3000):
            chips = draw_negative_chips(whole, 2, seed=0, epoch=epoch)
            count[tuple(drawn(chips.take(chips.image == 1)))] += 1
        # 300 of each of the 10 pairs; the sum of squares has 9 degrees of freedom.
        assert sum((n - 300) ** 2 / 300 for n in count.values()) < 40

    def test_it_has_nothing_to_do_with_where_positive_chips_are_put(self):
        # Two chips with the same room to move, 90 px in both directions.
        table = one_image(boxes_at((150, 150), (350, 350)), 500, 500)
        agree = 0
        for epoch in range(400):
            origin = plan_positive_chips(table, PLAIN, epoch=epoch).box[:, :2]
            first = origin[0] + 200 < origin[1]
            agree += first == drawn(draw_negative_chips(pool(2), 1, seed=0, epoch=epoch))[0]
        # 200 each; the standard deviation is 10.
        assert (np.abs(agree - 200) < 50).all()

    def test_a_number_below_zero_is_refused(self):
        with pytest.raises(ValueError, match='per_image.*-1'):
            draw_negative_chips(pool(3), -1, seed=0, epoch=0)
