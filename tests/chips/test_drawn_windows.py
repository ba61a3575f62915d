"""Windows that are drawn at random show a share of each level, and nothing that was seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import NEGATIVE, POSITIVE, ChipPlan, ScalePyramid
from mmsniper.chips.drawn_windows import DrawnWindows

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
sides = st.integers(1, 400)


def drawn(width, height, share, seen=NOTHING, key=(0, 0), image=None):
    return DrawnWindows(PYRAMID, width, height, share, seen, key, image)


def test_the_share_of_each_levels_pixels_is_drawn():
    n = 4000
    windows = drawn(np.full(n, 300), np.full(n, 200), 0.1)
    pixels = np.array([600 * 400, 150 * 100])
    seen = windows.count.sum(axis=0) * 64**2 / n
    assert seen / pixels == pytest.approx(0.1, rel=0.05)
    assert windows.pixels.sum() == windows.count.sum() * 64**2


@given(sides, sides, st.floats(0.01, 1), st.integers(0, 99))
def test_windows_are_chips_inside_the_image_and_each_owns_its_cell(width, height, share, seed):
    windows = drawn([width], [height], share, key=(seed, 0))
    scales = PYRAMID.scales(width, height)
    cores = {0: [], 1: []}
    for window in windows.of_image(0):
        x1, y1, x2, y2 = window.box
        scale = scales[window.level]
        assert -1e-9 <= x1 < x2 <= width + 1e-9
        assert -1e-9 <= y1 < y2 <= height + 1e-9
        assert x2 - x1 == pytest.approx(min(64 / scale, width))
        assert y2 - y1 == pytest.approx(min(64 / scale, height))
        assert window.shape == tuple(
            min(64, int(np.ceil(side * scale - 1e-6))) for side in (height, width)
        )
        c1, d1, c2, d2 = window.core
        assert x1 <= c1 + 1e-6
        assert y1 <= d1 + 1e-6
        assert c2 <= x2 + 1e-6
        assert d2 <= y2 + 1e-6
        cores[window.level].append(window.core)
    for found in cores.values():
        assert len(set(found)) == len(found)  # no cell twice
    assert len(cores[0]) + len(cores[1]) == windows.count.sum() == len(windows.chips)


@given(st.integers(0, 999), st.integers(0, 5))
def test_whole_levels_are_seen_once_where_chips_fill_them(seed, epoch):
    windows = drawn([128], [64], 1.0, key=(seed, epoch))
    assert windows.count.tolist() == [[4 * 2, 1]]


def test_cells_whose_centre_was_seen_are_left_out():
    chip = ChipPlan.of_kind(POSITIVE, [1], [0], [[0, 0, 40, 40]])
    windows = drawn([128, 128], [64, 64], 1.0, seen=chip)
    assert windows.count.tolist() == [[8, 1], [7, 1]]
    boxes = [window.box for window in windows.of_image(1) if window.level == 0]
    assert (0, 0, 32, 32) not in boxes
    assert (32, 0, 64, 32) in boxes


def test_chips_are_the_windows_as_negative_chips():
    windows = drawn([128, 128], [64, 64], 0.5, image=[7, 9])
    found = [window for i in range(2) for window in windows.of_image(i)]
    assert [w.image for w in found] == [[7, 9][i] for i in windows.chips.image]
    assert [w.level for w in found] == windows.chips.level.tolist()
    np.testing.assert_allclose([w.box for w in found], windows.chips.box)
    assert set(windows.chips.kind.tolist()) == {NEGATIVE}


def test_a_draw_depends_on_its_key_and_the_image_alone():
    size = np.full(50, 300)
    first = drawn(size, size, 0.1)
    again = drawn(size[:20], size[:20], 0.1, image=np.arange(20))
    kept = first.chips.image < 20
    np.testing.assert_array_equal(first.chips.box[kept], again.chips.box)
    other = drawn(size, size, 0.1, key=(0, 1))
    assert (
        other.chips.box.shape != first.chips.box.shape or (other.chips.box != first.chips.box).any()
    )


def test_without_images_there_is_nothing():
    windows = drawn([], [], 0.1)
    assert len(windows) == len(windows.chips) == windows.pixels.sum() == 0
