"""Which level an input belongs to, and whether its geometry agrees."""

import numpy as np
import pytest

from mmsniper.chips import ScalePyramid
from mmsniper.chips.input_level import homography_scale, levels_of_input

# Rounding explains a relative 5/64 at level 0, 3/64 at level 1 (2 window px and 1 input px).
PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 16), test_resize=dict(factor=4.0)),
            dict(resize=dict(factor=1.0), valid_range=(12, None)),
        ],
    )
)


def info(scale, **more):
    return dict(scale_factor=(scale, scale), ori_shape=(300, 400), **more)


def matrix(scale_x, scale_y):
    return np.array([[scale_x, 0, -7], [0, scale_y, 5], [0, 0, 1]], np.float32)


def test_the_level_that_is_written_counts_not_the_nearest():
    coincide = ScalePyramid.from_config(
        dict(
            chip_size=64,
            levels=[dict(resize=dict(factor=f), valid_range=(0, None)) for f in (1.01, 1.0)],
        )
    )
    assert levels_of_input(info(1.0), coincide)[0] == (0, 1)
    assert levels_of_input(info(1.0, level=0), coincide)[0] == (0,)
    assert levels_of_input(info(1.0, level=1), coincide)[0] == (1,)


def test_without_a_level_scale_factor_tells_it():
    assert levels_of_input(info(1.9), PYRAMID) == ((0,), pytest.approx(1.9))
    assert levels_of_input(info(1.9, homography_matrix=matrix(1, 1)), PYRAMID)[0] == (0,)


def test_the_scale_is_that_of_the_homography_where_there_is_one():
    levels, scale = levels_of_input(
        info(0.98, level=0, homography_matrix=matrix(1.9, 2.0)), PYRAMID
    )
    assert (levels, scale) == ((0,), pytest.approx(np.sqrt(3.8)))


@pytest.mark.parametrize('flipped', [(-2, 2), (2, -2), (-2, -2)])
def test_a_flip_changes_no_scale(flipped):
    assert homography_scale(matrix(*flipped)) == 2
    given = info(2.0, level=0, homography_matrix=matrix(*flipped))
    assert levels_of_input(given, PYRAMID) == ((0,), 2.0)


def test_a_rotation_changes_no_scale():
    turned = [[0, 2, 9], [-2, 0, 9], [0, 0, 1]]
    assert homography_scale(turned) == 2


@pytest.mark.parametrize(('level', 'off'), [(0, 0.02 + 5 / 64), (1, 0.02 + 3 / 64)])
@pytest.mark.parametrize('sign', [-1, 1])
def test_a_scale_that_rounding_cannot_explain_is_refused(level, off, sign):
    wanted = (2.0, 1.0)[level]
    levels_of_input(info(wanted * (1 + sign * off * 0.99), level=level), PYRAMID)
    with pytest.raises(ValueError, match=f'level {level}.*drop the transform.*Resize.*Mosaic'):
        levels_of_input(info(wanted * (1 + sign * off * 1.01), level=level), PYRAMID)


def test_of_a_resize_that_has_overwritten_scale_factor_the_homography_tells():
    """The chip had a scale of 2, the Resize after it doubled that: scale_factor looks right."""
    with pytest.raises(ValueError, match='level 0.* scale of 2, but it has one of 4'):
        levels_of_input(info(2.0, level=0, homography_matrix=matrix(4, 4)), PYRAMID)


@pytest.mark.parametrize('level', [-1, 2])
def test_a_level_that_the_pyramid_has_not_is_refused(level):
    with pytest.raises(ValueError, match=f'level {level}, but .* levels 0 to 1: use the same'):
        levels_of_input(info(2.0, level=level), PYRAMID)


@pytest.mark.parametrize('key', ['scale_factor', 'ori_shape'])
def test_a_key_that_is_missing_is_named_with_its_fix(key):
    given = info(2.0)
    del given[key]
    with pytest.raises(ValueError, match=f"no '{key}' in its metainfo.*keep '{key}'"):
        levels_of_input(given, PYRAMID)


@pytest.mark.parametrize('key', ['scale_factor', 'ori_shape'])
@pytest.mark.parametrize('value', [2.0, (2.0,), ('a', 'b'), 'a', [None, 2.0]])
def test_what_is_no_pair_of_numbers_is_named(key, value):
    with pytest.raises(ValueError, match=f"'{key}' must be a pair of numbers, got "):
        levels_of_input({**info(2.0), key: value}, PYRAMID)


@pytest.mark.parametrize('key', ['scale_factor', 'ori_shape'])
@pytest.mark.parametrize('value', [(0.0, 1.0), (1.0, 0.0), (-1.0, 2.0), (2.0, float('nan'))])
def test_a_pair_that_is_not_positive_is_named(key, value):
    with pytest.raises(ValueError, match=f"'{key}' must be positive, got "):
        levels_of_input({**info(2.0), key: value}, PYRAMID)


def test_of_a_shape_with_channels_the_first_two_count_height_first():
    """Of 40 px rounding explains 3/40, of the 3 channels it would explain more."""
    narrow = dict(scale_factor=(1.09, 1.09), ori_shape=(400, 40, 3), level=1)
    assert levels_of_input(narrow, PYRAMID)[0] == (1,)
    with pytest.raises(ValueError, match='drop the transform'):
        levels_of_input({**narrow, 'scale_factor': (1.1, 1.1)}, PYRAMID)
