"""FocusPixels become FocusChips."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmsniper.chips import ScalePyramid
from mmsniper.chips import rectangles as rectangles_module
from mmsniper.chips.focus import (
    FocusMap,
    focus_chips,
    focus_rectangles,
    focus_sizes,
    merge_rectangles,
)


def drawn(*rows):
    """A map from a picture: '#' is a FocusPixel."""
    return np.array([[1.0 if mark == '#' else 0.0 for mark in row] for row in rows])


def whole(picture, cell=1.0):
    rows, columns = picture.shape
    return FocusMap(picture, (0, 0, columns * cell, rows * cell), cell)


def rectangles(picture, dilation=1, **settings):
    return focus_rectangles(whole(picture, **settings), 0.5, dilation).tolist()


# By hand -----------------------------------------------------------------------------------------


def test_connected_cells_are_enclosed_together():
    picture = drawn('##...', '#....', '.....', '...##')
    assert sorted(rectangles(picture)) == [[0, 0, 2, 2], [3, 3, 5, 4]]


def test_cells_that_meet_at_a_corner_are_connected():
    assert rectangles(drawn('#.', '.#')) == [[0, 0, 2, 2]]


def test_dilation_joins_what_is_near_and_stays_in_the_window():
    picture = drawn('#..#......', '..........')
    assert rectangles(picture, dilation=3) == [[0, 0, 5, 2]]
    assert rectangles(picture, dilation=1) == [[0, 0, 1, 1], [3, 0, 4, 1]]


def test_cells_become_original_pixels_of_the_window():
    """Stride 16 at scale 0.5: cells of 32 px, in a window that begins at (100, 50)."""
    window = FocusMap(drawn('..', '.#'), (100, 50, 164, 114), 32)
    assert focus_rectangles(window, 0.5, 1).tolist() == [[132, 82, 164, 114]]


def test_cells_in_the_padding_are_left_out_and_those_that_reach_beyond_are_cut():
    """A window of 40 px has cells of 16 px that begin at 0, 16, 32; the fourth is padding."""
    window = FocusMap(drawn('..##', '....'), (0, 0, 40, 20), 16)
    assert focus_rectangles(window, 0.5, 1).tolist() == [[32, 0, 40, 16]]
    padding = FocusMap(drawn('...#'), (0, 0, 40, 16), 16)
    assert focus_rectangles(padding, 0.5, 1).tolist() == []


def test_the_padding_of_a_window_is_where_it_ends_not_where_the_image_does():
    window = FocusMap(drawn('..##', '....', '####'), (100, 50, 132, 82), 16)
    assert focus_rectangles(window, 0.5, 1).tolist() == []
    window = FocusMap(drawn('..#', '...', '..#'), (7, 50, 55, 98), 16)
    assert focus_rectangles(window, 0.5, 1).tolist() == [[39, 50, 55, 66], [39, 82, 55, 98]]


def test_cells_can_be_wider_than_high():
    window = FocusMap(drawn('.#.', '...', '#..', '...'), (10, 20, 100, 60), (30, 10))
    assert sorted(focus_rectangles(window, 0.5, 1).tolist()) == [[10, 40, 40, 50], [40, 20, 70, 30]]


def test_rounding_of_a_window_adds_no_cells():
    assert focus_rectangles(FocusMap(np.ones((1, 9)), (0, 0, 0.1 * 3, 0.1), 0.1), 0.5, 1).shape == (
        1,
        4,
    )
    window = FocusMap(drawn('...#'), (0, 0, 0.1 * 3, 0.1), 0.1)  # 0.1 * 3 > 0.3
    assert len(focus_rectangles(window, 0.5, 1)) == 0


def test_a_rectangle_grows_on_both_sides_and_is_moved_into_the_image():
    assert merge_rectangles([[40, 40, 50, 60]], 30, 100, 100).tolist() == [[30, 35, 60, 65]]
    assert merge_rectangles([[0, 95, 10, 100]], 30, 100, 100).tolist() == [[0, 70, 30, 100]]


def test_where_the_image_is_smaller_a_rectangle_becomes_as_large_as_it():
    assert merge_rectangles([[5, 5, 6, 6]], 512, 40, 1000).tolist() == [[0, 0, 40, 512]]


def test_merging_goes_on_until_nothing_overlaps():
    """The first two overlap; what encloses them overlaps the third, which neither of them did."""
    boxes = [[0, 0, 20, 10], [10, 0, 30, 30], [0, 15, 8, 25], [50, 50, 60, 60]]
    assert merge_rectangles(boxes, 1, 100, 100).tolist() == [[0, 0, 30, 30], [50, 50, 60, 60]]


def test_growing_can_make_rectangles_overlap():
    boxes = [[10, 10, 12, 12], [30, 10, 32, 12]]
    assert len(merge_rectangles(boxes, 10, 100, 100)) == 2
    assert merge_rectangles(boxes, 24, 100, 100).tolist() == [[0, 0, 43, 24]]


def test_rectangles_that_touch_stay_apart():
    assert len(merge_rectangles([[0, 0, 10, 10], [10, 0, 20, 10]], 1, 100, 100)) == 2


def test_maps_of_several_windows_are_merged_in_the_image():
    maps = [FocusMap(drawn('.#'), (0, 0, 32, 16), 16), FocusMap(drawn('#.'), (30, 0, 62, 16), 16)]
    assert focus_chips(maps, 0.5, 100, 100, 10, dilation=1).tolist() == [[16, 0, 46, 16]]


# Extremes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('maps', [[], [whole(np.zeros((3, 4)))], [whole(np.zeros((1, 1)))] * 2])
def test_without_focus_pixels_there_are_no_chips(maps):
    assert focus_chips(maps, 0.5, 100, 100, 10).shape == (0, 4)


def test_a_threshold_of_zero_takes_the_whole_window_and_one_above_one_nothing():
    focus = whole(np.random.default_rng(0).random((5, 7)), cell=16)
    assert focus_chips([focus], 0, 112, 80, 10).tolist() == [[0, 0, 112, 80]]
    assert len(focus_chips([focus], 1.01, 112, 80, 10)) == 0


def test_a_pixel_at_the_threshold_is_a_focus_pixel():
    assert len(focus_rectangles(whole(np.full((1, 1), 0.25)), 0.25)) == 1


def test_many_rectangles_are_compared_in_pieces(monkeypatch):
    boxes = np.random.default_rng(1).uniform(0, 90, (60, 2))
    boxes = np.concatenate([boxes, boxes + 5], axis=1)
    expected = merge_rectangles(boxes, 1, 100, 100)
    monkeypatch.setattr(rectangles_module, '_BLOCK', 7)
    assert np.array_equal(merge_rectangles(boxes, 1, 100, 100), expected)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('dilation', [0, 2, -1, 3.0])
def test_dilation_is_an_odd_number_of_cells(dilation):
    with pytest.raises(ValueError, match='odd number of cells'):
        focus_rectangles(whole(np.ones((2, 2))), 0.5, dilation)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((np.ones(3), (0, 0, 1, 1), 1), r'got shape \(3,\)'),
        ((np.ones((2, 2)), (0, 0, 1, 1), 0), 'must be positive, got 0'),
        ((np.ones((2, 2)), (0, 0, 1, 1), (1, 0)), r'must be positive, got \(1, 0\)'),
        ((np.ones((2, 2)), (0, 0, 1, 1), (0, 1)), r'must be positive, got \(0, 1\)'),
        ((np.ones((2, 2)), (5, 0, 5, 1), 1), 'is empty'),
        ((np.ones((2, 2)), (5, 2, 6, 2), 1), 'is empty'),
    ],
)
def test_a_map_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FocusMap(*arguments)


# Properties --------------------------------------------------------------------------------------

MAPS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0.0, 0.3, 0.9]),
)
BOXES = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(1, 10), st.integers(1, 10)),
    min_size=1,
    max_size=12,
)


def xyxy(boxes):
    boxes = np.array(boxes, float)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def overlap(a, b):
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())


@given(
    MAPS,
    st.sampled_from([0.2, 0.5]),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 60),
    st.floats(0.5, 40),
)
@settings(max_examples=200, deadline=None)
def test_every_focus_pixel_is_inside_a_chip_and_every_chip_inside_the_image(
    probability, threshold, dilation, least, cell
):
    rows, columns = probability.shape
    width, height = columns * cell, rows * cell
    chips = focus_chips([whole(probability, cell)], threshold, width, height, least, dilation)
    for row, column in np.argwhere(probability >= threshold):
        pixel = np.array([column, row, column + 1, row + 1]) * cell
        inside = (chips[:, :2] <= pixel[:2] + 1e-9) & (chips[:, 2:] >= pixel[2:] - 1e-9)
        assert inside.all(axis=1).sum() == 1
    assert (chips >= 0).all()
    assert (chips <= np.array([width, height] * 2) + 1e-9).all()
    sides = chips[:, 2:] - chips[:, :2]
    assert (sides >= np.minimum(least, [width, height]) - 1e-6).all()
    for a, b in itertools.combinations(chips, 2):
        assert not overlap(a, b)


@given(BOXES, st.integers(1, 40), st.randoms())
@settings(max_examples=200, deadline=None)
def test_the_order_of_the_rectangles_does_not_matter(boxes, least, random):
    boxes = xyxy(boxes)
    shuffled = boxes.tolist()
    random.shuffle(shuffled)
    assert np.array_equal(
        merge_rectangles(boxes, least, 100, 100), merge_rectangles(shuffled, least, 100, 100)
    )


@given(BOXES)
@settings(max_examples=200, deadline=None)
def test_merging_is_what_merging_two_at_a_time_comes_to(boxes):
    boxes = xyxy(boxes)
    slow = list(boxes)
    while True:
        pair = next(
            (
                p
                for p in itertools.combinations(range(len(slow)), 2)
                if overlap(slow[p[0]], slow[p[1]])
            ),
            None,
        )
        if pair is None:
            break
        b, a = slow.pop(pair[1]), slow.pop(pair[0])
        slow.append(np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])]))
    assert merge_rectangles(boxes, 0, 100, 100).tolist() == sorted(box.tolist() for box in slow)


@given(BOXES, st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_merged_rectangles_stay_as_they_are(boxes, least):
    once = merge_rectangles(xyxy(boxes), least, 100, 100)
    assert np.array_equal(merge_rectangles(once, least, 100, 100), once)


# What to look at again ---------------------------------------------------------------------------


def pyramid(*ranges, test_ranges=None):
    levels = [dict(resize=dict(factor=2.0**-i), valid_range=r) for i, r in enumerate(ranges)]
    for level, test_range in zip(levels, test_ranges or []):
        level['test_range'] = test_range
    return ScalePyramid.from_config(dict(chip_size=64, levels=levels))


def test_a_level_must_look_again_below_its_range_and_may_where_the_finer_level_has_objects():
    found = focus_sizes(pyramid((0, 48), (32, 128), (96, None)))
    assert found.tolist() == [[0, 0], [32, 48], [96, 128]]


def test_what_no_level_has_is_not_looked_for():
    assert focus_sizes(pyramid((0, 40), (60, None))).tolist() == [[0, 0], [40, 40]]


def test_sizes_to_look_at_are_of_the_test_ranges_if_asked_for():
    both = pyramid((0, 80), (32, None), test_ranges=[(0, 90), (40, None)])
    assert focus_sizes(both)[1].tolist() == [32, 80]
    assert focus_sizes(both, test=True)[1].tolist() == [40, 90]


def test_a_pyramid_of_one_level_has_nothing_to_look_for():
    assert focus_sizes(pyramid((0, None))).tolist() == [[0, 0]]


def test_the_papers_sizes_are_those_of_its_pyramid():
    """Test ranges of the release at the long side's 512 px of a 640 px image."""
    paper = pyramid((0, 75), (32, 180), (75, None))
    must, _ = focus_sizes(paper)[2] * 512 / 640
    assert must == 60  # its 64
