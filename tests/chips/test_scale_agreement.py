"""Training and test scales: by how much they differ, and what is said of it."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from mmsniper.chips import SCALE_TOLERANCE, ScalePyramid, scale_disagreement

PYRAMIDS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'pyramids'


def pyramid(name):
    return ScalePyramid.from_config(Config.fromfile(PYRAMIDS / f'{name}.py').pyramid)


COCO = pyramid('coco_paper')


def of_factor(train, test):
    level = dict(resize=dict(factor=train), test_resize=dict(factor=test), valid_range=(0, None))
    return ScalePyramid.from_config(dict(chip_size=64, levels=[level]))


def test_the_papers_pyramid_on_three_sizes_of_images():
    """By hand: 3 and 1.667 over the smaller of 1400 / 1080 and 2000 / 1920, and so on."""
    found = scale_disagreement(COCO, 1920, 1080)
    assert found.factors == pytest.approx([3 * 1920 / 2000, 1.667 * 1920 / 1280, 1])
    assert found.share.tolist() == [1, 1, 0]
    assert found.message.startswith(
        'the pyramid trains level 0 at 2.88 times and level 1 at 2.5 times the scale of its test '
        '(images of 1920x1080 px): '
    )
    assert scale_disagreement(COCO, 4000, 3000).factors[0] == pytest.approx(3 / (1400 / 3000))
    assert scale_disagreement(COCO, 640, 480).message == ''


def test_the_message_names_the_fix():
    message = scale_disagreement(COCO, 4000, 3000).message
    for file in re.findall(r'\S+\.py', message):
        assert (PYRAMIDS.parents[2] / file).exists()
    assert 'suggest_pyramid.py' in message
    assert 'resolution.py' in message


@pytest.mark.parametrize(
    ('train', 'differs'), [(1.25, False), (1.26, True), (1 / 1.25, False), (1 / 1.26, True)]
)
def test_both_directions_have_the_same_tolerance(train, differs):
    assert bool(scale_disagreement(of_factor(train, 1.0), 100, 100).message) == differs


@pytest.mark.parametrize('path', sorted(PYRAMIDS.glob('*.py')), ids=lambda path: path.stem)
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_every_pyramid_but_cocos_agrees_on_all_images(path, width, height):
    if path.stem != 'coco_paper':
        assert scale_disagreement(pyramid(path.stem), width, height).message == ''


SIZES = st.lists(st.tuples(st.integers(100, 4000), st.integers(100, 4000)), min_size=1, max_size=9)


@given(SIZES)
def test_the_numbers_are_those_of_the_images_one_by_one(sizes):
    found = scale_disagreement(COCO, *np.transpose(sizes))
    ratios = [
        [float(level.resize.scale(*size) / level.test_resize.scale(*size)) for level in COCO.levels]
        for size in sizes
    ]
    for level, column in enumerate(zip(*ratios)):
        differs = [not 1 / SCALE_TOLERANCE <= ratio <= SCALE_TOLERANCE for ratio in column]
        assert found.share[level] == pytest.approx(np.mean(differs))
        assert found.factors[level] == pytest.approx(np.median(column))
    assert bool(found.message) == (found.share > 0.25).any()


@given(SIZES)
def test_the_example_is_an_image_that_differs_at_the_levels_named(sizes):
    message = scale_disagreement(COCO, *np.transpose(sizes)).message
    if not message:
        return
    size = tuple(map(int, re.search(r'images of (\d+)x(\d+) px', message).groups()))
    assert size in sizes
    alone = scale_disagreement(COCO, *size)
    for level, factor in re.findall(r'level (\d) at (\S+) times', message):
        assert alone.share[int(level)] == 1
        assert alone.factors[int(level)] == pytest.approx(float(factor), rel=1e-2)


def test_the_example_is_the_most_common_size():
    width = np.array([640, 1920, 4000, 4000])
    height = np.array([480, 1080, 3000, 3000])
    message = scale_disagreement(COCO, width, height).message
    assert 'images of 4000x3000 px, 75% of the images differ by over 1.25)' in message


def test_a_few_odd_images_are_no_reason_for_a_warning():
    sizes = np.array([[640, 480]] * 3 + [[4000, 3000]])
    found = scale_disagreement(COCO, *sizes.T)
    assert found.share[0] == 0.25
    assert found.message == ''


def test_no_images():
    found = scale_disagreement(COCO, np.empty(0), np.empty(0))
    assert found.factors.tolist() == [1, 1, 1]
    assert found.message == ''
