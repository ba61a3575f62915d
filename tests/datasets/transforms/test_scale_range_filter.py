import math

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose, RandomChoiceResize
from mmdet.datasets.transforms import RandomFlip, Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmsniper.chips import POSITIVE
from mmsniper.datasets import IGNORE_REGION, Chip, ChipSampler, LevelResize, ScaleRangeFilter

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 16)),
        dict(resize=dict(factor=1.0), valid_range=(12, 40)),
        dict(resize=dict(factor=0.5), valid_range=(32, None)),
    ],
)


def square(x, y, size):
    return [x, y, x + size, y + size]


def inputs(boxes, *, size=(400, 300), ignored=(), **more):
    width, height = size
    return (
        dict(
            img=np.zeros((height, width, 3), np.uint8),
            img_shape=(height, width),
            ori_shape=(height, width),
            gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
            gt_bboxes_labels=np.arange(len(boxes)),
            gt_ignore_flags=np.isin(np.arange(len(boxes)), ignored),
        )
        | more
    )


def chip(level, x, y):
    side = (32, 64, 128)[level]
    return Chip(level, (float(x), float(y), float(x + side), float(y + side)), POSITIVE)


def on_chip(boxes, level, x=0, y=0, min_visible=0.5, pyramid=PYRAMID, **more):
    transforms = [ChipSampler(pyramid), ScaleRangeFilter(pyramid, min_visible)]
    return Compose(transforms)(inputs(boxes, chip=chip(level, x, y), **more))


# --- chips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('level', 'size', 'valid'),
    [
        (0, 15.9, True),
        (0, 16, False),
        (1, 11.9, False),
        (1, 12, True),
        (1, 39.9, True),
        (1, 40, False),
        (2, 31.9, False),
        (2, 32, True),
        (2, 120, True),
    ],
)
def test_ranges_are_half_open_in_original_pixels(level, size, valid):
    out = on_chip([square(1, 1, size)], level)
    assert out['gt_ignore_flags'].tolist() == [not valid]


def test_the_size_is_the_root_of_the_area():
    thin_of_size_12, thin_of_size_11 = [2, 2, 38, 6], [2, 12, 38, 12 + 121 / 36]
    out = on_chip([thin_of_size_12, thin_of_size_11], level=1)
    assert out['gt_ignore_flags'].tolist() == [False, True]


def test_it_is_the_full_box_that_must_be_in_range():
    cut_to_20_of_40_wide = [-20 + 100, 104, 20 + 100, 124]  # size 28.3: in range, visible part too
    cut_to_24_of_48 = [-24 + 100, 130, 24 + 100, 178]  # size 48: only the visible part is in range
    out = on_chip([cut_to_20_of_40_wide, cut_to_24_of_48], level=1, x=100, y=100)
    assert out['gt_ignore_flags'].tolist() == [False, True]


@pytest.mark.parametrize(
    ('min_visible', 'flags'), [(0.5, [False, True]), (0.45, [False, False]), (0.6, [True, True])]
)
def test_enough_of_a_valid_box_must_be_visible(min_visible, flags):
    half, less = square(88, 110, 24), square(86.8, 140, 24)  # 50% and 45%
    out = on_chip([half, less], level=1, x=100, y=100, min_visible=min_visible)
    assert out['gt_ignore_flags'].tolist() == flags


def test_invalid_boxes_become_ignored_and_keep_their_label():
    out = on_chip([square(2, 2, 20), square(40, 2, 8)], level=1)
    assert out['gt_ignore_flags'].tolist() == [False, True]
    assert out['gt_bboxes_labels'].tolist() == [0, 1]


def test_boxes_that_were_ignored_stay_so_and_lose_their_label():
    out = on_chip([square(2, 2, 20), square(40, 2, 20), square(2, 40, 8)], 1, ignored=[1])
    assert out['gt_ignore_flags'].tolist() == [False, True, True]
    assert out['gt_bboxes_labels'].tolist() == [0, IGNORE_REGION, 2]
    assert IGNORE_REGION == -1


def test_the_loaded_labels_are_not_written_to():
    results = inputs([square(2, 2, 20)], ignored=[0])
    labels = results['gt_bboxes_labels']
    ScaleRangeFilter(PYRAMID)(results)
    assert labels.tolist() == [0]


def test_array_boxes_work_too():
    results = inputs([square(2, 2, 20), square(40, 2, 8)], chip=chip(1, 0, 0))
    results['gt_bboxes'] = results['gt_bboxes'].numpy()
    out = Compose([ChipSampler(PYRAMID), ScaleRangeFilter(PYRAMID)])(results)
    assert isinstance(out['gt_bboxes'], np.ndarray)
    assert out['gt_ignore_flags'].tolist() == [False, True]


@pytest.mark.parametrize(('adopt', 'valid_at'), [(False, [0]), (True, [0, 1])])
def test_orphans_are_valid_where_they_first_fit_if_adopted(adopt, valid_at):
    """Size 11.8 is valid at level 0, whose chips show 32 px; the box fits at levels 1 and 2."""
    orphan, pyramid = [2, 2, 38, 5.9], PYRAMID | dict(adopt_orphans=adopt)
    for level in range(3):
        cut = ChipSampler(pyramid, min_visible_size=1)(inputs([orphan], chip=chip(level, 0, 0)))
        flags = ScaleRangeFilter(pyramid)(cut)['gt_ignore_flags'].tolist()
        assert flags == [level not in valid_at]


def test_flip_after_the_filter_or_before_it_makes_no_difference():
    boxes = [square(2, 2, 20), square(40, 2, 8)]
    flip, filter_ = RandomFlip(prob=1.0), ScaleRangeFilter(PYRAMID)
    outs = [
        Compose([ChipSampler(PYRAMID), *order])(inputs(boxes, chip=chip(1, 0, 0)))
        for order in ([flip, filter_], [filter_, flip])
    ]
    for out in outs:
        assert out['gt_ignore_flags'].tolist() == [False, True]


# --- whole images: SNIP ---------------------------------------------------------------------------

SIZES = (10, 14, 20, 35, 60)
VALID_AT = {0: [1, 1, 0, 0, 0], 1: [0, 1, 1, 1, 0], 2: [0, 0, 0, 1, 1]}
SCENE = [square(70 * i, 5, size) for i, size in enumerate(SIZES)]


def valid(results):
    return (~results['gt_ignore_flags']).astype(int).tolist()


@pytest.mark.parametrize('level', [0, 1, 2])
def test_an_image_at_a_levels_resolution_has_its_range(level):
    pipeline = Compose([LevelResize(PYRAMID, level=level), ScaleRangeFilter(PYRAMID)])
    assert valid(pipeline(inputs(SCENE))) == VALID_AT[level]


def test_without_resizing_the_scale_is_one():
    assert valid(ScaleRangeFilter(PYRAMID)(inputs(SCENE))) == VALID_AT[1]


def test_stock_resizes_get_the_range_of_the_nearest_level():
    near_level_2 = Resize(scale=(240, 180), keep_ratio=True)  # factor 0.6
    assert valid(Compose([near_level_2, ScaleRangeFilter(PYRAMID)])(inputs(SCENE))) == VALID_AT[2]
    near_level_0 = RandomChoiceResize([(800, 600), (700, 525)], keep_ratio=True)
    assert valid(Compose([near_level_0, ScaleRangeFilter(PYRAMID)])(inputs(SCENE))) == VALID_AT[0]


def test_levels_with_the_same_scale_share_their_ranges():
    levels = [
        dict(resize=dict(factor=1.0), valid_range=(0, 16)),
        dict(resize=dict(long_side=400), valid_range=(32, None)),
    ]
    out = ScaleRangeFilter(dict(chip_size=64, levels=levels))(inputs(SCENE))
    assert valid(out) == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(('level', 'expected'), [(0, [1, 1, 0, 0, 0]), (1, [0, 0, 0, 1, 1])])
def test_levels_with_the_same_scale_keep_theirs_after_level_resize(level, expected):
    levels = [
        dict(resize=dict(factor=1.0), valid_range=(0, 16)),
        dict(resize=dict(long_side=400), valid_range=(32, None)),
    ]
    pyramid = dict(chip_size=64, levels=levels)
    pipeline = Compose([LevelResize(pyramid, level=level), ScaleRangeFilter(pyramid)])
    assert valid(pipeline(inputs(SCENE))) == expected


@pytest.mark.parametrize('first', [LevelResize(PYRAMID, level=0), ChipSampler(PYRAMID)])
def test_says_that_a_resize_came_in_between(first):
    more = dict(chip=chip(0, 0, 0)) if isinstance(first, ChipSampler) else {}
    resize = Resize(scale_factor=2.0, keep_ratio=True)  # the level's own: 2 times 2
    with pytest.raises(ValueError, match='level 0.* scale of 2, but it has one of 4.*drop'):
        Compose([first, resize, ScaleRangeFilter(PYRAMID)])(inputs(SCENE, **more))


@pytest.mark.parametrize('resize', [None, 0.5, 2.0])
def test_boxes_that_are_no_objects_are_dropped_from_whole_images(resize):
    nothing = [[20, 30, 20, 40], [np.nan, 30, 30, 40], [-30, 30, -20, 40], [500, 30, 520, 40]]
    results = inputs([*nothing, square(100, 100, 34)])
    results['gt_masks'] = BitmapMasks(np.zeros((5, 300, 400), np.uint8), 300, 400)
    first = [] if resize is None else [Resize(scale_factor=resize, keep_ratio=True)]
    out = Compose([*first, ScaleRangeFilter(PYRAMID)])(results)
    assert out['gt_bboxes_labels'].tolist() == [4]
    assert len(out['gt_bboxes']) == len(out['gt_ignore_flags']) == len(out['gt_masks']) == 1


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize('key', ['gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags'])
def test_says_which_annotation_is_missing(key):
    results = inputs(SCENE)
    del results[key]
    with pytest.raises(KeyError, match=f'needs .*{key}.*LoadAnnotations'):
        ScaleRangeFilter(PYRAMID)(results)


def test_says_that_a_planned_chip_was_not_cut():
    with pytest.raises(ValueError, match='put ChipSampler before ScaleRangeFilter'):
        ScaleRangeFilter(PYRAMID)(inputs(SCENE, chip=chip(0, 0, 0)))


def test_says_that_boxes_were_dropped_in_between():
    results = ChipSampler(PYRAMID)(inputs(SCENE, chip=chip(2, 0, 0)))
    results['gt_bboxes'] = results['gt_bboxes'][:1]
    with pytest.raises(ValueError, match='there were 2 boxes .* now there are 1'):
        ScaleRangeFilter(PYRAMID)(results)


@pytest.mark.parametrize('value', [-0.1, 1.1, math.nan])
def test_min_visible_is_a_fraction(value):
    with pytest.raises(ValueError, match='min_visible is a fraction from 0 to 1, got'):
        ScaleRangeFilter(PYRAMID, min_visible=value)


def test_repr_tells_the_settings():
    text = repr(ScaleRangeFilter(PYRAMID, min_visible=0.3))
    assert text.startswith('ScaleRangeFilter(pyramid=ScalePyramid(chip_size=64')
    assert text.endswith('min_visible=0.3)')
