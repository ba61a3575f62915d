"""The pyramid: scales by hand, ranges, levels of an input, and errors for impossible ones."""

import math

import numpy as np
import pytest

from mmsniper.chips import Level, ResizeRule, ScalePyramid

FINE = dict(resize=dict(factor=3.0), valid_range=(0, 80))
MIDDLE = dict(resize=dict(factor=1.667), valid_range=(32, 150))
COARSE = dict(resize=dict(long_side=512), valid_range=(120, None))


def pyramid(*levels, chip_size=512, **kwargs):
    return ScalePyramid.from_config(dict(chip_size=chip_size, levels=list(levels), **kwargs))


@pytest.mark.parametrize(
    ('rule', 'size', 'scale'),
    [
        (dict(factor=1.667), (640, 480), 1.667),
        (dict(long_side=512), (640, 480), 0.8),
        (dict(long_side=512), (480, 1024), 0.5),
        # 800 / 480 would make the long side 1067; 1280 allows it.
        (dict(short_side=800, long_side=1280), (640, 480), 800 / 480),
        # 1400 / 400 would make the long side 3500; at most 2000 of 1000 px.
        (dict(short_side=1400, long_side=2000), (1000, 400), 2.0),
        (dict(short_side=1400, long_side=2000), (400, 1000), 2.0),
    ],
)
def test_resize_rules_by_hand(rule, size, scale):
    assert ResizeRule(**rule).scale(*size) == pytest.approx(scale)


def test_scales_of_many_images_at_once():
    scales = pyramid(FINE, MIDDLE, COARSE).scales(np.array([640, 512]), np.array([480, 1024]))
    np.testing.assert_allclose(scales, [[3, 1.667, 0.8], [3, 1.667, 0.5]])


def test_test_rule_and_range_default_to_those_of_training():
    level = Level(resize=dict(factor=2.0), valid_range=(10, None))
    assert level.test_resize == ResizeRule(factor=2.0)
    assert level.test_range == (10, math.inf)


def test_test_rule_and_range_are_used_at_test_time():
    p = pyramid(dict(FINE, test_resize=dict(factor=2.0), test_range=(0, 90)))
    assert p.scales(10, 10, test=True).tolist() == [2.0]
    assert p.ranges(test=True).tolist() == [[0, 90]]
    assert p.in_range([85.0], 0, test=True).tolist() == [True]
    assert p.in_range([85.0], 0).tolist() == [False]


def test_ranges_are_half_open():
    assert pyramid(MIDDLE).in_range([31.99, 32, 149.99, 150], 0).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_a_size_is_in_range_of_several_levels_if_in_that_of_any():
    p = pyramid(FINE, MIDDLE, COARSE)
    assert p.in_range([10, 100, 200], (0, 2)).tolist() == [True, False, True]


def test_differences_name_each_value():
    one = pyramid(FINE, MIDDLE)
    assert one.differences(pyramid(FINE, MIDDLE)) == []
    other = pyramid(FINE, dict(MIDDLE, valid_range=(40, 150)), chip_size=256, adopt_orphans=True)
    assert one.differences(other) == [
        ('chip_size', 512, 256),
        ('adopt_orphans', False, True),
        ('levels[1].valid_range', (32, 150), (40, 150)),
        ('levels[1].test_range', (32, 150), (40, 150)),
    ]


def test_pyramids_of_other_numbers_of_levels_differ_in_their_levels():
    one, other = pyramid(FINE, MIDDLE), pyramid(MIDDLE)
    assert one.differences(other) == [('levels', one.levels, other.levels)]


def test_a_pyramid_is_built_from_its_config_once():
    p = pyramid(FINE, COARSE)
    assert ScalePyramid.from_config(p) is p
    assert p.num_levels == 2


class TestLevelsAt:
    def test_the_nearest_level_in_log_scale(self):
        p = pyramid(dict(FINE, resize=dict(factor=4.0)), dict(MIDDLE, resize=dict(factor=1.0)))
        # 2 is as far from 4 as from 1 in the logarithm; 2.5 is nearer to 1 only in difference.
        assert p.levels_at(2.1, (100, 100)) == (0,)
        assert p.levels_at(1.9, (100, 100)) == (1,)
        assert p.levels_at(2.5, (100, 100)) == (0,)

    def test_levels_that_show_the_image_at_the_same_scale_are_all_given(self):
        p = pyramid(FINE, dict(MIDDLE, resize=dict(factor=1.0)), COARSE)
        assert p.levels_at(1.0, (512, 300)) == (1, 2)
        assert p.levels_at(1.0, (1024, 300)) == (1,)

    def test_the_test_rules_on_request(self):
        p = pyramid(
            dict(FINE, test_resize=dict(factor=1.5)), dict(MIDDLE, test_resize=dict(factor=0.5))
        )
        assert p.levels_at(1.3, (100, 100), test=True) == (0,)
        assert p.levels_at(1.3, (100, 100)) == (1,)


class TestGaps:
    def test_ranges_that_overlap_or_touch_have_none(self):
        assert pyramid(FINE, MIDDLE, COARSE).gaps() == []
        touching = pyramid(FINE, dict(COARSE, valid_range=(80, None)))
        assert touching.gaps() == touching.gaps(test=True) == []

    def test_sizes_between_below_and_above_the_ranges(self):
        p = pyramid(
            dict(FINE, valid_range=(8, 30)),
            dict(MIDDLE, valid_range=(20, 90)),
            dict(COARSE, valid_range=(120, 400)),
        )
        assert p.gaps() == [(0, 8), (90, 120), (400, math.inf)]
        for low, high in p.gaps():
            sizes = [low, np.nextafter(min(high, 1e9), 0)]
            assert not p.in_range(sizes, [0, 1, 2]).any()
            assert p.in_range([high], [0, 1, 2]).all() == (high < 400)

    def test_those_of_the_test_are_of_its_ranges(self):
        fine = dict(FINE, valid_range=(0, 30))
        coarse = dict(COARSE, valid_range=(45, None))
        p = pyramid(dict(fine, test_range=(0, 35)), dict(coarse, test_range=(30, None)))
        assert (p.gaps(), p.gaps(test=True)) == ([(30, 45)], [])
        p = pyramid(fine, coarse)
        assert p.gaps() == p.gaps(test=True) == [(30, 45)]

    def test_a_pyramid_that_adopts_orphans_has_them_in_its_test_only(self):
        p = pyramid(FINE, dict(COARSE, valid_range=(90, None)), adopt_orphans=True)
        assert (p.gaps(), p.gaps(test=True)) == ([], [(80, 90)])
        valid, _ = p.valid_and_fits(np.array([[0, 0, 85.0, 85.0]]), 640, 480)
        assert valid.any()


class TestValidAndFits:
    def test_by_hand(self):
        p = pyramid(FINE, MIDDLE, COARSE)
        boxes = np.array(
            [
                [0, 0, 50, 50],  # valid at the two fine levels
                [0, 0, 120, 120],  # at the two coarse ones
                [0, 0, 10, 400],  # size 63.2: valid as the first, but 3 * 400 > 512 < 1.667 * 400
                [0, 0, 170, 1],  # 3 * 170 = 510
                [0, 0, 171, 1],  # 3 * 171 = 513
            ],
            np.float32,
        )
        valid, fits = p.valid_and_fits(boxes, 640, 480)
        assert valid.tolist() == [
            [True, True, False],
            [False, True, True],
            [True, True, False],
            [True, False, False],
            [True, False, False],
        ]
        assert fits[:, 0].tolist() == [True, True, False, True, False]
        assert fits[2].tolist() == [False, False, True]

    def test_adopted_orphans_are_valid_at_the_finest_level_where_they_fit(self):
        thin = np.array([[0, 0, 10, 400], [0, 0, 50, 50]], np.float32)
        valid, fits = pyramid(FINE, MIDDLE, COARSE, adopt_orphans=True).valid_and_fits(
            thin, 640, 480
        )
        assert (valid & fits).tolist() == [[False, False, True], [True, True, False]]

    def test_a_box_that_fits_nowhere_is_not_adopted(self):
        long = np.array([[0, 0, 2000, 10]], np.float32)
        valid, fits = pyramid(FINE, adopt_orphans=True).valid_and_fits(long, 3000, 100)
        assert not fits.any()
        assert not (valid & fits).any()

    @pytest.mark.parametrize('chip_size', [224, 320, 512, 600])
    def test_a_box_as_wide_as_its_image_fits_where_the_image_does(self, chip_size):
        p = pyramid(
            dict(resize=dict(long_side=chip_size), valid_range=(0, None)), chip_size=chip_size
        )
        width = np.arange(1, 20_001)
        boxes = np.stack([width * 0, width * 0, width, width * 0 + 1], axis=1)
        assert p.valid_and_fits(boxes, width, np.ones_like(width))[1].all()

    def test_nan_boxes_are_neither(self):
        valid, fits = pyramid(COARSE).valid_and_fits(np.full((1, 4), np.nan), 10, 10)
        assert not valid.any()
        assert not fits.any()

    def test_no_boxes(self):
        valid, fits = pyramid(FINE, COARSE).valid_and_fits(np.zeros((0, 4)), 10, 10)
        assert valid.shape == fits.shape == (0, 2)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(chip_size=0, levels=[FINE]), 'chip_size must be positive, got 0'),
        (dict(chip_size=-512, levels=[FINE]), 'chip_size must be positive'),
        (dict(chip_size=512.0, levels=[FINE]), 'chip_size must be an integer, got 512.0'),
        (dict(chip_size=True, levels=[FINE]), 'chip_size must be an integer'),
        (dict(chip_size=512, levels=[]), 'at least one level'),
        (dict(chip_size=512, levels=FINE), 'levels must be a list'),
        (dict(chip_size=512), 'levels'),
        (dict(chip_size=512, levels=[FINE], chips=3), r"unknown keys \['chips'\]"),
        (
            dict(chip_size=512, levels=[FINE], adopt_orphans='no'),
            'adopt_orphans must be True or False',
        ),
        (dict(chip_size=512, levels='fine'), "levels must be a list of levels, got 'fine'"),
        (dict(chip_size=512, levels=FINE), 'levels must be a list of levels, got {'),
        (dict(chip_size=512, levels=7), 'levels must be a list of levels, got 7'),
        (dict(chip_size=True, levels=[FINE]), 'chip_size must be an integer, got True'),
        ('paper', 'pyramid must be a dict'),
        (dict(chip_size=512, levels=[FINE, 7]), 'level 1: level must be a dict, got 7'),
        (dict(chip_size=512, levels=[dict(resize=dict(factor=1.0))]), 'level 0: .*valid_range'),
        (dict(chip_size=512, levels=[dict(FINE, valid_range=(80, 80))]), r'level 0: .*\[80, 80\)'),
        (dict(chip_size=512, levels=[dict(FINE, valid_range=(90, 80))]), r'\[90, 80\) is empty'),
        (dict(chip_size=512, levels=[dict(FINE, valid_range=(-1, 80))]), 'negative'),
        (dict(chip_size=512, levels=[dict(FINE, valid_range=(0, 80, 9))]), 'must be a pair'),
        (dict(chip_size=512, levels=[dict(FINE, valid_range=80)]), 'must be a pair'),
        (dict(chip_size=512, levels=[dict(FINE, test_range=(9, 9))]), r'test_range \[9, 9\)'),
        (dict(chip_size=512, levels=[dict(FINE, resize=3.0)]), 'resize must be a dict'),
        (dict(chip_size=512, levels=[dict(FINE, test_resize=3.0)]), 'test_resize must be a dict'),
        (dict(chip_size=512, levels=[dict(FINE, resize=dict())]), 'none of them'),
        (dict(chip_size=512, levels=[dict(FINE, resize=dict(short_side=8))]), r"\['short_side'\]"),
        (
            dict(chip_size=512, levels=[dict(FINE, resize=dict(factor=3, long_side=8))]),
            'either factor',
        ),
        (dict(chip_size=512, levels=[dict(FINE, resize=dict(factor=0))]), 'positive and finite'),
        (
            dict(chip_size=512, levels=[dict(FINE, resize=dict(factor=math.inf))]),
            'positive and finite',
        ),
        (dict(chip_size=512, levels=[dict(FINE, resize=dict(factor='3'))]), "number, got '3'"),
        (dict(chip_size=512, levels=[dict(FINE, resize=dict(short_side=9, long_side=8))]), 'swap'),
        (dict(chip_size=512, levels=[MIDDLE, FINE]), 'fine to coarse, but resize of level 0'),
        (dict(chip_size=512, levels=[FINE, dict(FINE, valid_range=(32, 150))]), 'fine to coarse'),
        (
            dict(chip_size=512, levels=[dict(FINE, valid_range=(40, 80)), MIDDLE]),
            r'valid_range \[40, 80\) of level 0',
        ),
        (dict(chip_size=512, levels=[dict(FINE, valid_range=(0, 160)), MIDDLE]), 'larger objects'),
        (
            dict(chip_size=512, levels=[dict(FINE, test_resize=dict(factor=1.0)), MIDDLE]),
            'test_resize of level 0',
        ),
    ],
)
def test_an_impossible_pyramid_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        ScalePyramid.from_config(config)
