"""Chips that are drawn at random show a share of each level, and nothing that was seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import NEGATIVE, POSITIVE, ChipPlan, ScalePyramid
from mmsniper.chips.drawn_chips import drawn_chips

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 40)),
            dict(resize=dict(factor=0.5), valid_range=(30, None)),
        ],
    )
)
NOTHING = ChipPlan.empty()


def drawn(width, height, share, seen=NOTHING, key=(0, 0)):
    return drawn_chips(PYRAMID, width, height, share, seen, key)


def test_the_share_of_each_levels_pixels_is_drawn():
    n = 4000
    chips = drawn(np.full(n, 300), np.full(n, 200), 0.1)
    pixels = np.array([600 * 400, 150 * 100])
    seen = np.bincount(chips.level) * 64**2 / n
    assert seen / pixels == pytest.approx(0.1, rel=0.05)
    assert set(chips.kind.tolist()) == {NEGATIVE}


def test_every_place_is_drawn_as_often():
    n = 6000  # at the coarser level an image has 3 x 2 cells, of which 0.37 are drawn
    chips = drawn(np.full(n, 300), np.full(n, 200), 0.1)
    _, times = np.unique(chips.box[chips.level == 1], axis=0, return_counts=True)
    assert len(times) == 6
    assert times / n == pytest.approx(0.1 * 150 * 100 / 64**2 / 6, rel=0.15)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.01, 1), st.integers(0, 99))
def test_no_place_is_drawn_twice(width, height, share, seed):
    chips = drawn([width], [height], share, key=(seed, 0))
    assert len(np.unique(np.column_stack([chips.level, chips.box]), axis=0)) == len(chips)


@given(st.integers(0, 999), st.integers(0, 5))
def test_whole_levels_are_seen_once_where_chips_fill_them(seed, epoch):
    chips = drawn([128], [64], 1.0, key=(seed, epoch))
    cells = [(x, y, x + 32, y + 32) for y in (0, 32) for x in (0, 32, 64, 96)]
    assert list(map(tuple, chips.box.tolist())) == [*cells, (0, 0, 128, 64)]


def test_cells_whose_centre_was_seen_are_left_out():
    chip = ChipPlan.of_kind(POSITIVE, [1], [0], [[0, 0, 40, 40]])
    chips = drawn([128, 128], [64, 64], 1.0, seen=chip)
    counts = [np.bincount(chips.level[chips.image == i]).tolist() for i in range(2)]
    assert counts == [[8, 1], [7, 1]]
    boxes = chips.box[(chips.image == 1) & (chips.level == 0)].tolist()
    assert [0, 0, 32, 32] not in boxes
    assert [32, 0, 64, 32] in boxes


def test_a_draw_depends_on_its_key_and_the_image_alone():
    size = np.full(50, 300)
    first, again = drawn(size, size, 0.1), drawn(size[:20], size[:20], 0.1)
    kept = first.image < 20
    np.testing.assert_array_equal(first.box[kept], again.box)
    other = drawn(size, size, 0.1, key=(0, 1))
    assert other.box.shape != first.box.shape or (other.box != first.box).any()


def test_without_images_there_is_nothing():
    assert len(drawn([], [], 0.1)) == 0
