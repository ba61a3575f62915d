"""Pyramids in words and as config files."""

import math

import pytest

from mmsniper.chips import ResizeRule, ScalePyramid, pyramid_config
from mmsniper.chips.pyramid_text import describe_range, describe_rule


@pytest.mark.parametrize(
    ('rule', 'words'),
    [
        (ResizeRule(factor=2.3), 'factor 2.3'),
        (ResizeRule(factor=1.0), 'factor 1'),
        (ResizeRule(long_side=512), 'long side 512'),
        (ResizeRule(short_side=480, long_side=800), 'short side 480, long side up to 800'),
    ],
)
def test_a_rule_in_words(rule, words):
    assert describe_rule(rule) == words


def test_a_range_in_words():
    assert describe_range((30.0, 45.5)) == '30 to 45.5 px'
    assert describe_range((96.0, math.inf)) == '96 px and more'


def test_a_config_has_what_differs_from_the_defaults():
    pyramid = ScalePyramid.from_config(
        dict(
            chip_size=64,
            levels=[
                dict(resize=dict(factor=2.0), valid_range=(0, 16), test_range=(0, 20.5)),
                dict(
                    resize=dict(short_side=48, long_side=64),
                    valid_range=(12, None),
                    test_resize=dict(factor=1.0),
                ),
            ],
            adopt_orphans=True,
        )
    )
    assert pyramid_config(pyramid, 'of  a file\nwith numbers') == (
        '# of a file\n'
        '# with numbers\n'
        'pyramid = dict(\n'
        '    chip_size=64,\n'
        '    levels=[\n'
        '        dict(resize=dict(factor=2.0), valid_range=(0, 16), test_range=(0, 20.5)),\n'
        '        dict(resize=dict(short_side=48, long_side=64), valid_range=(12, None), '
        'test_resize=dict(factor=1.0)),\n'
        '    ],\n'
        '    adopt_orphans=True,\n'
        ')\n'
    )
