"""Cells fill a level, and the chip around each shows all of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import ScalePyramid
from mmsniper.chips.level_cells import LevelCells

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 40)),
            dict(resize=dict(factor=0.5), valid_range=(30, None)),
        ],
    )
)
sides = st.integers(1, 400)


@given(sides, sides, st.sampled_from([0, 1]))
def test_chips_lie_in_the_image_and_show_their_cells_which_fill_it(width, height, level):
    cells = LevelCells(PYRAMID, [7, width], [7, height])
    count = cells.count[1, level]
    core, chip = cells.at(1, level, np.arange(count))
    scale = PYRAMID.scales(width, height)[level]
    assert (chip[:, :2] >= -1e-9).all()
    assert (chip[:, 2:] <= np.array([width, height]) + 1e-9).all()
    side = np.minimum(64 / scale, [width, height])
    np.testing.assert_allclose(chip[:, 2:] - chip[:, :2], np.tile(side, (count, 1)))
    shape = np.minimum(64, np.ceil(side * scale - 1e-6))[::-1]
    assert cells.shape[1, level].tolist() == shape.tolist()
    assert (core[:, :2] >= chip[:, :2] - 1e-6).all()
    assert (core[:, 2:] <= chip[:, 2:] + 1e-6).all()
    assert (core[:, 2:] - core[:, :2]).prod(axis=1).sum() == pytest.approx(width * height)
    middle = (core[:, :2] + core[:, 2:]) / 2
    assert cells.containing(1, level, middle).tolist() == list(range(count))


def test_points_on_the_edges_of_the_image_are_in_its_cells():
    cells = LevelCells(PYRAMID, [128], [64])  # 4 x 2 at the finer level
    points = np.array([[0, 0], [128, 0], [0, 64], [128, 64], [32, 31]], float)
    assert cells.containing(0, 0, points).tolist() == [0, 3, 4, 7, 1]


def test_a_chip_and_a_rounding_error_are_one_cell():
    pyramid = ScalePyramid.from_config(
        dict(chip_size=64, levels=[dict(resize=dict(factor=1 + 1e-12), valid_range=(0, None))])
    )
    assert LevelCells(pyramid, [64], [64]).count.tolist() == [[1]]


def test_levels_are_measured_in_chips_of_which_small_ones_are_one():
    cells = LevelCells(PYRAMID, [128, 96, 20], [64, 30, 20])
    assert cells.chips.tolist() == [[8, 1], [3, 1], [1, 1]]
