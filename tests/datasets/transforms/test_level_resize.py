import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmdet.datasets.transforms import Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmsniper.datasets import LevelResize

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(
            resize=dict(factor=2.0),
            valid_range=(0, 16),
            test_resize=dict(short_side=140, long_side=200),
        ),
        dict(
            resize=dict(factor=1.0),
            valid_range=(12, 40),
            test_resize=dict(short_side=80, long_side=128),
        ),
        dict(
            resize=dict(factor=0.3),
            valid_range=(32, None),
            test_resize=dict(short_side=48, long_side=51),
        ),
    ],
)
STOCK_SCALES = [(200, 140), (128, 80), (51, 48)]


def image(width, height):
    return dict(img=np.zeros((height, width, 3), np.uint8), img_shape=(height, width))


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 400), st.integers(2, 400), st.integers(0, 2))
def test_the_short_and_long_side_rule_gives_the_shapes_of_stock_resize(width, height, level):
    ours = LevelResize(PYRAMID, level=level, test=True)(image(width, height))
    scale = min(
        max(STOCK_SCALES[level]) / max(width, height), min(STOCK_SCALES[level]) / min(width, height)
    )
    if min(width, height) * scale < 0.5:  # stock Resize fails where nothing is left
        assert min(ours['img_shape']) == 1
        return
    stock = Resize(scale=STOCK_SCALES[level], keep_ratio=True)(image(width, height))
    assert ours['img_shape'] == stock['img_shape']
    assert ours['scale_factor'] == pytest.approx(stock['scale_factor'])


@pytest.mark.parametrize(('level', 'shape'), [(0, (60, 202)), (1, (30, 101)), (2, (9, 30))])
def test_the_factor_rule_scales_and_rounds(level, shape):
    out = LevelResize(PYRAMID, level=level)(image(101, 30))
    assert out['img'].shape == (*shape, 3)
    assert out['img_shape'] == shape
    assert out['scale_factor'] == (shape[1] / 101, shape[0] / 30)


def test_boxes_and_masks_follow():
    results = image(100, 50)
    results['gt_bboxes'] = HorizontalBoxes(torch.tensor([[10.0, 20.0, 40.0, 50.0]]))
    bitmap = np.zeros((1, 50, 100), np.uint8)
    bitmap[0, 20:50, 10:40] = 1
    results['gt_masks'] = BitmapMasks(bitmap, 50, 100)
    results['gt_seg_map'] = bitmap[0] * 7
    out = LevelResize(PYRAMID, level=0)(results)
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [[20, 40, 80, 100]])
    np.testing.assert_allclose(out['gt_masks'].get_bboxes('hbox').numpy(), [[20, 40, 80, 100]])
    np.testing.assert_array_equal(out['gt_seg_map'], out['gt_masks'].masks[0] * 7)


def test_without_a_level_each_one_comes_up():
    resize = LevelResize(PYRAMID)
    shapes = {resize(image(100, 50))['img_shape'] for _ in range(60)}
    assert shapes == {(100, 200), (50, 100), (15, 30)}


def test_makes_the_multi_scale_test_in_test_time_aug():
    transforms = [
        [dict(type='LevelResize', pyramid=PYRAMID, level=i, test=True) for i in range(3)],
        [dict(type='RandomFlip', prob=0.0)],
        [dict(type='PackDetInputs', meta_keys=('img_shape', 'scale_factor', 'flip'))],
    ]
    augment = Compose([dict(type='TestTimeAug', transforms=transforms)])
    out = augment(image(100, 50) | dict(ori_shape=(50, 100)))
    assert [tuple(img.shape[1:]) for img in out['inputs']] == [(100, 200), (64, 128), (26, 51)]
    assert [sample.img_shape for sample in out['data_samples']] == [(100, 200), (64, 128), (26, 51)]


@pytest.mark.parametrize('test', [False, True])
def test_writes_the_level(test):
    assert LevelResize(PYRAMID, level=2, test=test)(image(100, 50))['level'] == 2
    for _ in range(9):
        out = LevelResize(PYRAMID, test=test)(image(100, 50))
        assert (
            out['img_shape']
            == LevelResize(PYRAMID, out['level'], test)(image(100, 50))['img_shape']
        )


def test_an_input_is_resized_to_one_level_only():
    resize = LevelResize(PYRAMID, level=1)
    with pytest.raises(ValueError, match='of level 1 already.*drop the LevelResize'):
        resize(resize(image(100, 50)))


@pytest.mark.parametrize('level', [-1, 3])
def test_says_which_levels_there_are(level):
    with pytest.raises(ValueError, match=r'level must be in 0\.\.2 or None, got'):
        LevelResize(PYRAMID, level=level)


def test_repr_tells_the_settings():
    text = repr(LevelResize(PYRAMID, level=1, test=True, interpolation='area'))
    assert text.startswith('LevelResize(pyramid=ScalePyramid(chip_size=64')
    assert text.endswith("level=1, test=True, interpolation='area')")
