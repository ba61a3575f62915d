"""Finer levels are seen where coarser ones found most."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import POSITIVE, ChipPlan, ScalePyramid
from mmsniper.chips.coarse_to_fine import CoarseToFineWindows
from mmsniper.chips.windows import LevelWindows

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=1.0), valid_range=(0, 40)),
            dict(resize=dict(factor=0.5), valid_range=(30, 90)),
            dict(resize=dict(factor=0.25), valid_range=(60, None)),
        ],
    )
)
NOTHING = ChipPlan.empty()
NO_BOX, NO_SCORE = np.zeros((0, 4)), np.zeros(0)


def coarse_to_fine(share, sizes=((512, 512),), seen=NOTHING, key=(0, 0), **options):
    width, height = zip(*sizes)
    return CoarseToFineWindows(
        options.pop('pyramid', PYRAMID), width, height, share, 1024, seen, key, **options
    )


def square(x, y, side):
    """A box around a point."""
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def cores(windows):
    return [window.core[:2] for window in windows]


def test_the_coarsest_level_is_seen_whole_as_without_a_share():
    windows = coarse_to_fine(0.1, [(512, 300), (9000, 400)], image=[4, 7])
    whole = LevelWindows(PYRAMID, [512, 9000], [300, 400], 1024, [4, 7])
    for i in range(2):
        found = windows.of_level(i, 2, NO_BOX, NO_SCORE)
        assert found == [window for window in whole.of_image(i) if window.level == 2]
        assert windows.count[i, 2] == len(found)


def test_finer_levels_have_the_same_pixels_a_share_of_the_finest():
    n = 2000
    windows = coarse_to_fine(0.1, [(512, 512)] * n)
    fine, middle, coarse = windows.count.mean(axis=0)
    assert fine == pytest.approx(6.4, rel=0.05)  # of 64
    assert middle == pytest.approx(6.4, rel=0.05)  # of 16
    assert coarse == 1  # of 128 px
    assert windows.pixels.mean() == pytest.approx((fine + middle) * 64**2 + 128**2)


def test_those_are_seen_in_which_the_scores_add_up_to_most():
    windows = coarse_to_fine(3 / 64)
    where = [(20, 20), (30, 30), (200, 100), (500, 500)]
    boxes = np.array([square(*place, 20) for place in where])
    found = windows.of_level(0, 0, boxes, np.array([0.2, 0.3, 0.9, 0.4]))
    assert cores(found)[:1] == [(0, 0)]
    assert cores(found)[1:] == [(192, 64), (448, 448)]
    two = coarse_to_fine(2 / 64).of_level(0, 0, boxes, np.array([0.2, 0.3, 0.9, 0.4]))
    assert cores(two) == [(0, 0), (192, 64)]


def test_only_what_the_level_learns_counts_and_only_where_no_chip_was():
    seen = ChipPlan.of_kind(POSITIVE, [0, 0], [0, 1], [[0, 0, 64, 64], [400, 400, 512, 512]])
    windows = coarse_to_fine(1 / 64, seen=seen)
    boxes = np.array([square(250, 250, 120), square(20, 20, 20), square(410, 410, 20)])
    found = windows.of_level(0, 0, boxes, np.array([0.9, 0.8, 0.1]))
    assert cores(found) == [(384, 384)]


def test_cells_that_were_seen_come_last():
    seen = ChipPlan.of_kind(POSITIVE, [0], [0], [[0, 0, 512, 448]])
    windows = coarse_to_fine(8 / 64, seen=seen)
    assert cores(windows.of_level(0, 0, NO_BOX, NO_SCORE)) == [(64 * x, 448) for x in range(8)]
    windows = coarse_to_fine(10 / 64, seen=seen)
    assert len(windows.of_level(0, 0, NO_BOX, NO_SCORE)) == 10


def test_where_nothing_was_found_it_is_drawn_by_the_key():
    def places(key):
        windows = coarse_to_fine(4 / 64, [(512, 512)] * 300, key=key)
        return [cores(windows.of_level(i, 0, NO_BOX, NO_SCORE)) for i in range(300)]

    assert places((0, 1)) == places((0, 1)) != places((0, 2))
    _, times = np.unique(np.concatenate(places((0, 1))), axis=0, return_counts=True)
    assert len(times) == 64
    assert times.max() < 40  # 19 on average


def test_of_a_single_level_a_share_is_drawn():
    pyramid = ScalePyramid(64, PYRAMID.levels[:1])
    windows = coarse_to_fine(0.25, pyramid=pyramid)
    assert windows.count.tolist() == [[16]]
    assert len(windows.of_level(0, 0, NO_BOX, NO_SCORE)) == 16


@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.floats(0.01, 1),
    st.integers(0, 99),
    st.integers(0, 30),
)
def test_as_many_as_announced_and_each_owns_its_cell(width, height, share, seed, number):
    windows = coarse_to_fine(share, [(width, height)], key=(seed, 0))
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, [width, height], (number, 2))
    boxes = np.hstack([low, low + generator.uniform(1, 100, (number, 2))])
    pixels = 0
    for level in range(3):
        found = windows.of_level(0, level, boxes, generator.uniform(size=number))
        assert len(found) == windows.count[0, level]
        assert len(set(cores(found))) == len(found)
        pixels += sum(window.pixels for window in found)
        for window in found:
            (x1, y1, x2, y2), (c1, d1, c2, d2) = window.box, window.core
            assert x1 - 1e-6 <= c1 < c2 <= x2 + 1e-6
            assert y1 - 1e-6 <= d1 < d2 <= y2 + 1e-6
    assert windows.pixels.tolist() == [pixels]


def test_without_images_there_is_nothing():
    windows = CoarseToFineWindows(PYRAMID, [], [], 0.1, 1024, NOTHING, (0, 0))
    assert len(windows) == windows.count.sum() == windows.pixels.sum() == 0
