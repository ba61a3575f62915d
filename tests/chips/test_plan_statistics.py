"""What is told about a plan, by hand."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsniper.chips import (
    AnnotationTable,
    ChipPlan,
    ScalePyramid,
    decoded_megapixels,
    finest_ratio,
    how_to_decode,
    learned_levels,
    pixel_ratio,
    plan_numbers,
    plan_statistics,
    rectangles,
    shown_area,
    statistics,
    what_to_expect,
)
from mmsniper.chips.statistics import what_levels_learn

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 20)),
            dict(resize=dict(factor=1.0), valid_range=(10, 50)),
        ],
    )
)
TABLE = AnnotationTable.from_images(
    [
        (
            200,
            100,
            [
                [10, 10, 25, 25],  # 15: both levels
                [60, 60, 100, 100],  # 40: the second
                [0, 0, 5, 5],  # 5: the first
                [0, 0, 4, 60],  # 15.5: both, but it fits at the second only
                [0, 0, 2, 99],  # 14: both, and fits at neither: an orphan
                [0, 0, 80, 80],  # 80: none, an orphan
                [0, 0, 15, 15],  # crowd
            ],
            [False] * 6 + [True],
        ),
        (100, 100, [], None),
    ]
)


def chips(*rows):
    image, level, box = zip(*rows)
    return ChipPlan(
        np.array(image, np.int32),
        np.array(level, np.int8),
        np.array(box, np.float32),
        np.zeros(len(rows), np.int8),
    )


def test_counts_and_coverage_by_hand():
    plan = chips(
        (0, 1, [50, 36, 114, 100]),  # the 40 px box
        (0, 0, [0, 0, 32, 32]),  # those of 15 and 5
        (0, 1, [20, 20, 84, 84]),  # none
        (1, 0, [0, 0, 32, 32]),  # none
        (0, 0, [0, 20, 32, 52]),  # none
    )
    found = plan_statistics(TABLE, PYRAMID, plan)
    assert found.images == 2
    assert found.boxes == 6
    assert found.chips == 5
    assert found.chips_per_level == [3, 2]
    assert found.chips_per_image == 2.5
    # 15 at both levels, 40 and 15.5 at the second, 5 at the first; not 15 and 15.5 at the second.
    assert found.pairs == 5
    assert found.covered == 3
    assert found.coverage == pytest.approx(3 / 5)
    assert found.orphans == 2


def test_a_chip_covers_boxes_of_its_own_level_and_image_only():
    whole = [0, 0, 200, 100]
    assert plan_statistics(TABLE, PYRAMID, chips((1, 0, whole), (1, 1, whole))).covered == 0
    assert plan_statistics(TABLE, PYRAMID, chips((0, 0, whole))).covered == 2
    assert plan_statistics(TABLE, PYRAMID, chips((0, 0, whole), (0, 1, whole))).coverage == 1.0


def test_a_box_counts_once_however_many_chips_it_is_in():
    whole = [0, 0, 200, 100]
    assert plan_statistics(TABLE, PYRAMID, chips(*[(0, 0, whole)] * 3)).covered == 2


@pytest.mark.parametrize('edge', range(4))
def test_rounding_is_allowed_for_and_no_more(edge):
    table = AnnotationTable.from_images([(200, 100, [[40, 40, 50, 50]], None)])
    box = np.array([40, 40, 50, 50.0])
    inwards = np.array([1, 1, -1, -1])[edge]
    for slip, covered in [(5e-4, 2), (5e-3, 0)]:
        window = box.copy()
        window[edge] += inwards * slip
        plan = chips((0, 0, window), (0, 1, window))
        assert plan_statistics(table, PYRAMID, plan).covered == covered


def test_it_does_not_depend_on_how_much_is_looked_at_together(monkeypatch):
    plan = chips(*[(0, 0, [0, 0, 32, 32])] * 9, (0, 1, [50, 36, 114, 100]))
    monkeypatch.setattr(rectangles, '_BLOCK', 2)
    assert plan_statistics(TABLE, PYRAMID, plan).covered == 3


def test_without_anything_to_cover_all_is_covered():
    table = AnnotationTable.from_images([(100, 100, [], None)])
    found = plan_statistics(table, PYRAMID, ChipPlan.empty())
    assert found.coverage == 1.0
    assert found.chips_per_image == 0
    assert found.orphans == 0


def test_pixels_relative_to_whole_images_by_hand():
    # 640x480 becomes 1067x800 (short side), 1000x300 becomes 1333x400 (long side, 399.9 rounded).
    table = AnnotationTable.from_images([(640, 480, [], None), (300, 1000, [], None)])
    assert pixel_ratio(table, PYRAMID, 100) == pytest.approx(
        100 * 64 * 64 / (1067 * 800 + 400 * 1333)
    )
    assert pixel_ratio(table, PYRAMID, 100, scale=(500, 1000)) == pytest.approx(
        100 * 64 * 64 / (667 * 500 + 300 * 1000)
    )


def test_pixels_relative_to_whole_images_at_the_finest_level_by_hand():
    levels = [
        dict(resize=dict(factor=2.0), valid_range=(0, 50)),
        dict(resize=dict(factor=0.5), valid_range=(50, None)),
    ]
    pyramid = ScalePyramid.from_config(dict(chip_size=64, levels=levels))
    table = AnnotationTable.from_images([(640, 480, [], None), (300, 1000, [], None)])
    assert finest_ratio(table, pyramid, 100) == pytest.approx(
        100 * 64 * 64 / (1280 * 960 + 600 * 2000)
    )


@pytest.mark.parametrize(
    ('ratio', 'told'), [(0.15, 'sparse'), (0.25, 'sparse'), (0.4, 'compare'), (0.61, 'all over')]
)
def test_it_is_told_for_whose_data_chips_are(ratio, told):
    assert told in what_to_expect(ratio)


def test_objects_that_are_left_out_are_no_saving():
    assert what_to_expect(0.1, 0.049) == what_to_expect(0.1)
    told = what_to_expect(0.1, 0.05)
    assert told.startswith('0.100 of the pixels')
    assert '5% of the boxes are orphans' in told
    assert 'what SNIPER is for' not in told


def test_the_plan_is_a_struct_of_arrays():
    plan = chips((0, 1, [1, 2, 3, 4]), (1, 0, [5, 6, 7, 8]), (2, 1, [0, 0, 1, 1]))
    assert len(plan) == 3
    assert plan.count_per_level(3).tolist() == [1, 2, 0]
    for index in ([2, 0], np.array([2, 0])):
        assert plan.take(index).image.tolist() == [2, 0]
    assert plan.take(plan.level == 1).box.tolist() == [[1, 2, 3, 4], [0, 0, 1, 1]]


def test_shown_area_counts_what_chips_of_a_level_share_once():
    plan = chips(
        (0, 0, [0, 0, 50, 50]),
        (1, 1, [0, 0, 100, 100]),
        (0, 0, [25, 0, 75, 50]),
        (0, 0, [100, 50, 150, 100]),
    )
    assert shown_area(TABLE, plan, 2) == pytest.approx([(75 * 50 + 2500) / 30000, 10000 / 30000])


def test_no_chip_shows_nothing():
    assert shown_area(TABLE, ChipPlan.empty(), 2) == [0, 0]


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), max_size=8))
def test_shown_area_is_that_of_the_pixels_in_a_chip(corners):
    """Chips of whole pixels in an image of 20x20."""
    boxes = [[x, y, x + w + 1, y + h + 1] for x, y, w, h in corners]
    seen = np.zeros((20, 20), bool)
    for x1, y1, x2, y2 in boxes:
        seen[y1:y2, x1:x2] = True
    table = AnnotationTable.from_images([(20, 20, [], None)])
    plan = chips(*[(0, 0, box) for box in boxes]) if boxes else ChipPlan.empty()
    assert shown_area(table, plan, 1) == pytest.approx([seen.mean()])


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=8), st.randoms())
def test_shown_area_scales_and_depends_neither_on_order_nor_on_doubles(corners, random):
    boxes = np.array([[x, y, x + w + 1, y + h + 1] for x, y, w, h in corners], float)

    def area(boxes):
        table = AnnotationTable.from_images([(20, 20, [], None)])
        return shown_area(table, chips(*[(0, 0, box) for box in boxes]), 1)[0]

    mixed = [*boxes, *boxes[:3]]
    random.shuffle(mixed)
    assert area(mixed) == area(boxes)
    # Eighths of a pixel are exact, too; along the diagonal the sweep sees both axes.
    assert area(boxes / 8) == area(boxes) / 64
    assert area(boxes[:, [1, 0, 3, 2]]) == area(boxes)


def test_shown_area_of_5000_chips_needs_memory_for_chips_not_for_their_cubes():
    rng = np.random.default_rng(0)
    start = np.floor(rng.uniform(0, 1900, (5000, 2)))
    boxes = np.concatenate([start, start + 100], axis=1)
    seen = np.zeros((2000, 2000), bool)
    for x1, y1, x2, y2 in boxes.astype(int):
        seen[y1:y2, x1:x2] = True
    table = AnnotationTable.from_images([(2000, 2000, [], None)])
    image = np.zeros(5000, np.int32)
    plan = ChipPlan.of_kind(0, image, image, boxes)
    tracemalloc.start()
    try:
        found = shown_area(table, plan, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [seen.mean()]
    assert peak < 20e6


def test_a_box_is_learned_where_it_is_valid_and_fits():
    assert learned_levels(TABLE, PYRAMID).tolist() == [
        [True, True],
        [False, True],
        [True, False],
        [False, True],
        *[[False, False]] * 3,
    ]


def test_the_numbers_of_a_plan_are_those_of_the_single_functions():
    plan = chips((0, 0, [0, 0, 32, 32]), (0, 1, [50, 36, 114, 100]))
    found, numbers = plan_statistics(TABLE, PYRAMID, plan), plan_numbers(TABLE, PYRAMID, plan)
    assert numbers == dict(
        images=2,
        chips=2,
        chips_per_image=1.0,
        chips_per_level=[1, 1],
        pixel_ratio_800x1333=pixel_ratio(TABLE, PYRAMID, 2),
        pixel_ratio_finest=finest_ratio(TABLE, PYRAMID, 2),
        decoded_megapixels=decoded_megapixels(TABLE, plan),
        coverage=found.coverage,
        orphans=2,
        boxes=6,
        shown_area=shown_area(TABLE, plan, 2),
    )


def test_boxes_are_counted_in_parts(monkeypatch):
    plan = chips((0, 0, [0, 0, 32, 32]), (0, 1, [0, 0, 64, 64]), (0, 1, [50, 36, 114, 100]))
    whole = plan_statistics(TABLE, PYRAMID, plan)
    monkeypatch.setattr(statistics, '_BOXES_AT_A_TIME', 2)
    assert plan_statistics(TABLE, PYRAMID, plan) == whole
    assert sum(whole.too_large) > 0


def test_each_chip_has_its_image_decoded():
    table = AnnotationTable.from_images([(4000, 3000, [], None), (1000, 1000, [], None)])
    box = [0, 0, 32, 32]
    assert decoded_megapixels(table, chips((0, 0, box), (1, 1, box))) == 6.5
    assert decoded_megapixels(table, ChipPlan.of_kind(0, [], [], [])) == 0


def test_only_many_pixels_decoded_many_times_are_worth_keeping():
    assert '36 MB for each chip of a batch' in how_to_decode(12.0, 81.3)
    assert how_to_decode(12.0, 1.0) is None
    assert how_to_decode(0.3, 5.0) is None


def test_what_each_level_learns_and_leaves_to_others_by_hand():
    # 15 and 5 at the first level; 15, 40 and 15.5 at the second.
    plan = chips((0, 0, [0, 0, 32, 32]), (0, 1, [0, 0, 64, 64]), (0, 1, [50, 36, 114, 100]))
    found = plan_statistics(TABLE, PYRAMID, plan)
    assert found.covered_per_level == [2, 3]
    assert found.too_small == [0, 1]  # 5
    assert found.too_large == [2, 1]  # 40 and 80; 80
    assert what_levels_learn(found, TABLE, PYRAMID) == [
        'level 0 (scale 2, objects of 0 to 20 px): 2 objects in 1 chip, 33% of the pixels of an '
        'epoch; too small here and ignored: 0, too large: 2',
        'level 1 (scale 1, objects of 10 to 50 px): 3 objects in 2 chips, 67% of the pixels of an '
        'epoch; too small here and ignored: 1, too large: 1',
    ]


def test_an_adopted_object_is_neither_too_small_nor_too_large():
    levels = [
        dict(resize=dict(factor=1.0), valid_range=(20, 40)),
        dict(resize=dict(factor=0.5), valid_range=(30, None)),
    ]
    boxes = [
        [0, 0, 100, 4],  # of size 20, too long for the first level
        [0, 0, 10, 10],  # learned nowhere, but it fits: adopted by the first
        [0, 0, 25, 25],
    ]
    table = AnnotationTable.from_images([(200, 200, boxes, None)])
    for adopt, too_small in ((False, [1, 3]), (True, [0, 2])):
        pyramid = ScalePyramid.from_config(dict(chip_size=64, levels=levels, adopt_orphans=adopt))
        found = plan_statistics(table, pyramid, ChipPlan.empty())
        assert found.too_small == too_small
        assert found.too_large == [0, 0]
        assert 'objects of 30 px and more' in what_levels_learn(found, table, pyramid)[1]
