"""A chip's level goes with it, and nothing may change its scale after it was cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import BaseTransform, Compose
from mmdet.datasets.transforms import Resize
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes

from mmsniper.chips import POSITIVE, ScalePyramid
from mmsniper.chips.input_level import levels_of_input
from mmsniper.datasets import Chip, ChipDataset, ChipIndex, ChipSampler, LevelResize

CHIPS = [
    Chip(0, (8.0, 8.0, 40.0, 40.0), POSITIVE),
    Chip(1, (8.0, 8.0, 72.0, 72.0), POSITIVE),
    Chip(2, (8.0, 8.0, 136.0, 136.0), POSITIVE),
]
FLIP = dict(type='RandomFlip', prob=1.0)
RESIZE = dict(type='Resize', scale_factor=0.5, keep_ratio=True)


@TRANSFORMS.register_module(force=True)
class OwnResize(Resize):
    """A user's own, of which only its base class tells that it resizes."""


@TRANSFORMS.register_module(force=True)
class Shrink(BaseTransform):
    """Changes the scale without being a known transform."""

    def __init__(self):
        self.resize = Resize(scale_factor=0.5, keep_ratio=True)

    def transform(self, results):
        return self.resize(results)


@pytest.fixture
def chip_dataset(five_images, pyramid):
    def make(*transforms, before=(), pack=True):
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='ChipSampler', pyramid=pyramid),
            *before,
            dict(type='ScaleRangeFilter', pyramid=pyramid),
            *transforms,
            *([dict(type='PackDetInputs')] if pack else []),
        ]
        return ChipDataset(five_images(), pipeline)

    return make


def by_hand(pyramid, *transforms):
    """A stock pipeline, on an image of 240x220 px with one box."""
    np.random.seed(0)
    chip, filter_ = (dict(type=t, pyramid=pyramid) for t in ('ChipSampler', 'ScaleRangeFilter'))
    return Compose([chip, filter_, *transforms])(
        dict(
            img=np.zeros((220, 240, 3), np.uint8),
            img_shape=(220, 240),
            ori_shape=(220, 240),
            gt_bboxes=HorizontalBoxes(torch.tensor([[50.0, 60.0, 60.0, 70.0]])),
            gt_bboxes_labels=np.zeros(1, int),
            gt_ignore_flags=np.zeros(1, bool),
        )
    )


# --- the level is carried -------------------------------------------------------------------------


@pytest.mark.parametrize('chip', CHIPS)
@pytest.mark.parametrize(
    'transforms',
    [
        [],
        [FLIP],
        [dict(type='RandomChoice', transforms=[[FLIP], [dict(type='PhotoMetricDistortion')]])],
        [dict(type='RandomCrop', crop_size=(40, 40), allow_negative_crop=True), FLIP],
        [dict(type='Rotate', prob=1.0, level=5)],
        [dict(type='Expand', prob=1.0), dict(type='Pad', size_divisor=32)],
        [dict(type='RandomAffine', scaling_ratio_range=(1, 1))],
    ],
)
def test_stock_packing_keeps_a_chip_and_its_level(chip_dataset, pyramid, chip, transforms):
    sample = chip_dataset(*transforms)[ChipIndex(3, chip)]['data_samples']
    assert (sample.level, sample.chip) == (chip.level, chip)
    levels, scale = levels_of_input(sample.metainfo, ScalePyramid.from_config(pyramid))
    assert (levels, scale) == ((chip.level,), pytest.approx((2.0, 1.0, 0.5)[chip.level]))


def test_packed_keys_are_left_as_they_are(five_images, chip_pipeline):
    keys = ('ori_shape', 'scale_factor', 'level', 'homography_matrix', 'chip')
    pipeline = [*chip_pipeline[:-1], dict(type='PackDetInputs', meta_keys=keys)]
    sample = ChipDataset(five_images(), pipeline)[ChipIndex(3, CHIPS[1])]['data_samples']
    assert set(sample.metainfo_keys()) == {*keys, 'uncut_objects'}
    assert sample.level == 1


def test_stock_packing_keeps_the_uncut_objects_of_a_chip(chip_dataset, pyramid):
    """Of the box of 50 px at (150, 150) the chip at (160, 160) shows a part."""
    chip = Chip(1, (160.0, 160.0, 224.0, 224.0), 0)
    dataset = chip_dataset(FLIP)
    sample = dataset[ChipIndex(3, chip)]['data_samples']
    assert sample.uncut_objects.tolist() == [[150, 150, 200, 200]]
    # It shows 40 px of it, flipped; the level has objects of up to 40 px.
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[24, 0, 64, 40]]


def test_what_packs_nothing_has_the_level_in_its_results(chip_dataset):
    assert chip_dataset(pack=False)[ChipIndex(3, CHIPS[2])]['level'] == 2


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from([0.3, 0.7, 1.0, 1.6, 3.0]),
    st.sampled_from([16, 64, 100]),
    st.integers(0, 9999),
)
def test_the_rounding_of_chips_and_images_is_never_refused(width, height, factor, chip_size, seed):
    levels = [dict(resize=dict(factor=factor), valid_range=(0, None)) for factor in (factor, 0.25)]
    pyramid = ScalePyramid.from_config(dict(chip_size=chip_size, levels=levels))
    shape = (height, width)
    image = dict(img=np.zeros((*shape, 3), np.uint8), img_shape=shape, ori_shape=shape)
    np.random.seed(seed)
    for make in (ChipSampler(pyramid), LevelResize(pyramid)):
        out = make(dict(image))
        assert levels_of_input(out, pyramid)[0] == (out['level'],)


# --- nothing may change the scale -----------------------------------------------------------------


@pytest.mark.parametrize(
    ('transforms', 'named'),
    [
        ([RESIZE], 'Resize'),
        ([FLIP, dict(type='RandomAffine')], 'RandomAffine'),
        ([dict(type='CachedMosaic'), dict(type='CachedMixUp')], 'CachedMosaic, CachedMixUp'),
        ([dict(type='RandomChoice', transforms=[[FLIP], [RESIZE]])], 'Resize'),
        ([dict(type='RandomApply', transforms=[RESIZE])], 'Resize'),
        ([dict(type='OwnResize', scale=(64, 64))], 'OwnResize'),
        ([dict(type='mmcv.Resize', scale=(64, 64))], 'Resize'),
    ],
)
@pytest.mark.parametrize('where', ['before the filter', 'after it'])
def test_a_pipeline_that_changes_the_scale_of_chips_is_refused(
    chip_dataset, transforms, named, where
):
    before, after = (transforms, []) if where == 'before the filter' else ([], transforms)
    with pytest.raises(ValueError, match=f'^{named} after ChipSampler.*drop it.*ChipDataset'):
        chip_dataset(*after, before=before)


def test_whole_images_beside_chips_are_refused_where_they_come_up(five_images, pyramid):
    chips, images = ([dict(type=t, pyramid=pyramid)] for t in ('ChipSampler', 'LevelResize'))
    both = dict(type='RandomChoice', transforms=[chips, images], prob=[1.0, 0.0])
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    dataset = ChipDataset(five_images(), [*load, both, dict(type='PackDetInputs')])
    assert max(dataset[3]['inputs'].shape[1:]) <= 64
    dataset.pipeline.transforms[2].prob = [0.0, 1.0]
    with pytest.raises(RuntimeError, match='RandomChoice has made an input of the whole image'):
        dataset[3]


def test_an_unknown_transform_that_changes_the_scale_is_named_with_chip_and_file(chip_dataset):
    dataset = chip_dataset(dict(type='Shrink'))
    with pytest.raises(RuntimeError) as caught:
        dataset[ChipIndex(3, CHIPS[0])]
    message = str(caught.value)
    assert 'positive chip [8.0, 8.0, 40.0, 40.0] of level 0 of' in message
    assert '3.png' in message
    assert 'Shrink changed the scale from 2 to 1 ' in message
    assert 'drop it' in message


def test_a_chip_is_not_resized_to_a_level_again(pyramid):
    with pytest.raises(ValueError, match=r'of level 0 already.*drop the LevelResize'):
        by_hand(pyramid, dict(type='LevelResize', pyramid=pyramid))


def mosaic(dataset, *transforms):
    return DATASETS.build(
        dict(type='MultiImageMixDataset', dataset=dataset, pipeline=list(transforms))
    )


def test_chips_are_not_mixed(five_images, chips_of, make_sampler):
    mixed = mosaic(chips_of(five_images()), dict(type='Mosaic', img_scale=(64, 64)), FLIP)
    with pytest.raises(ValueError, match='MultiImageMixDataset around .* has Mosaic, .*drop it'):
        make_sampler(mixed)


# --- by hand: a stock data set, and PackDetInputs with its default keys ---------------------------


@pytest.mark.parametrize(
    'transform',
    [
        RESIZE,
        dict(type='mmcv.Resize', scale_factor=0.5),
        dict(type='RandomChoiceResize', scales=[(100, 100)], keep_ratio=True),
        dict(type='RandomApply', prob=1.0, transforms=[RESIZE]),
    ],
)
def test_a_resize_of_a_chip_is_refused_by_hand_too(pyramid, transform):
    with pytest.raises(
        ValueError, match=r'after ChipSampler changes the scale.*drop the transform'
    ):
        by_hand(pyramid, transform, dict(type='PackDetInputs'))


def test_other_transforms_work_by_hand(pyramid):
    keys = ('ori_shape', 'scale_factor', 'level', 'homography_matrix')
    crop = dict(type='RandomCrop', crop_size=(40, 40), allow_negative_crop=True)
    pack = dict(type='PackDetInputs', meta_keys=keys)
    sample = by_hand(pyramid, FLIP, crop, pack)['data_samples']
    assert levels_of_input(sample.metainfo, ScalePyramid.from_config(pyramid)) == (
        (sample.level,),
        pytest.approx(np.sqrt(np.prod(sample.scale_factor))),
    )
