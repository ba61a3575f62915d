"""Training data of a stock config become chips."""

import pytest
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS
from mmengine.config import ConfigDict
from torch.utils.data import Sampler

from mmsniper.convert.data import (
    SCALE_TRANSFORMS,
    sniper_dataloader,
    sniper_pipeline,
    with_inner_settings,
)

PYRAMID = dict(chip_size=512, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
PACK = dict(type='PackDetInputs')
RESIZE = dict(type='Resize', scale=(1333, 800), keep_ratio=True)


def pipeline(*transforms):
    return [ConfigDict(t) for t in (*LOAD, *transforms, PACK)]


def loader(*transforms, **settings):
    dataset = dict(type='CocoDataset', pipeline=pipeline(*transforms))
    return dict(dict(batch_size=2, dataset=dataset), **settings)


def types(transforms):
    return [t['type'] for t in transforms]


def batch_size(*transforms, images=2):
    return sniper_dataloader(loader(*transforms, batch_size=images), PYRAMID).batch_size


# Images that are kept between their chips ---------------------------------------------------------


@pytest.mark.parametrize(('workers', 'lanes'), [(0, 8), (1, 8), (3, 24)])
def test_kept_images_come_to_the_worker_that_keeps_them(workers, lanes):
    given, notes = loader(RESIZE, num_workers=workers), []
    found = sniper_dataloader(given, PYRAMID, batch_size=8, notes=notes, cache_mb=500)
    assert (found.sampler.lanes, found.dataset.cache_mb) == (lanes, 500)
    assert 'up to 500 MB of decoded images' in notes[-1]


def test_without_a_cache_nothing_is_said_of_it():
    found = sniper_dataloader(loader(RESIZE), PYRAMID)
    assert 'lanes' not in found.sampler
    assert 'cache_mb' not in found.dataset


# The pipeline ------------------------------------------------------------------------------------


def test_the_chip_is_cut_right_after_the_annotations_are_loaded():
    found = sniper_pipeline(pipeline(RESIZE, dict(type='RandomFlip', prob=0.5)), PYRAMID)
    assert types(found) == [
        'LoadLargeImageFromFile',
        'LoadAnnotations',
        'ChipSampler',
        'ScaleRangeFilter',
        'RandomFlip',
        'PackDetInputs',
    ]
    assert found[2].pyramid == found[3].pyramid == PYRAMID


def test_images_are_loaded_once_instead_of_twice_with_the_same_arguments():
    found = sniper_pipeline(
        [
            ConfigDict(type='LoadImageFromFile', backend_args=None, to_float32=True),
            ConfigDict(LOAD[1]),
        ],
        PYRAMID,
    )
    assert found[0] == dict(type='LoadLargeImageFromFile', backend_args=None, to_float32=True)
    mine = sniper_pipeline([ConfigDict(type='MyLoader'), ConfigDict(LOAD[1])], PYRAMID)
    assert mine[0] == dict(type='MyLoader')
    assert sniper_pipeline(LOAD, PYRAMID)[0] == dict(type='LoadLargeImageFromFile')  # plain dicts


@pytest.mark.parametrize('name', sorted(SCALE_TRANSFORMS))
def test_what_changes_the_scale_or_mixes_images_is_left_out_and_named(name):
    dropped = []
    assert name not in types(sniper_pipeline(pipeline(dict(type=name)), PYRAMID, dropped))
    assert dropped == [name]


def test_other_transforms_stay_in_their_order():
    mine = [dict(type='PhotoMetricDistortion'), dict(type='MyOwn', value=3), dict(type='CutOut')]
    found = sniper_pipeline(pipeline(mine[0], RESIZE, *mine[1:]), PYRAMID)
    assert found[4:-1] == mine


def test_alternatives_lose_their_resizes_and_those_of_nothing_else_go():
    """As in the pipelines of DETR, and one that also chooses a colour."""
    crop = dict(type='RandomCrop', crop_size=(384, 600))
    color = dict(type='YOLOXHSVRandomAug')
    detr = dict(type='RandomChoice', transforms=[[RESIZE], [RESIZE, crop, RESIZE]])
    mixed = dict(type='RandomChoice', transforms=[[RESIZE, color], [RESIZE]])
    found = sniper_pipeline(pipeline(detr, mixed), PYRAMID)
    assert types(found[4:-1]) == ['RandomChoice']
    assert found[4].transforms == [[color], []]


def test_the_given_pipeline_is_not_changed():
    given = pipeline(dict(type='RandomChoice', transforms=[[RESIZE, dict(type='CutOut')]]))
    copy = [dict(t) for t in given]
    sniper_pipeline(given, PYRAMID)
    assert given == copy
    assert given[2].transforms[0][0].type == 'Resize'


def test_annotations_are_loaded_by_a_class_of_ones_own(monkeypatch):
    class LabelReader(LoadAnnotations):
        pass

    monkeypatch.setitem(TRANSFORMS._module_dict, 'LabelReader', LabelReader)
    steps = [LOAD[0], dict(type='LabelReader'), PACK]
    found = sniper_pipeline([ConfigDict(step) for step in steps], PYRAMID)
    assert types(found)[1:4] == ['LabelReader', 'ChipSampler', 'ScaleRangeFilter']


def test_a_pipeline_without_annotations_is_refused():
    with pytest.raises(ValueError, match=r'LoadImageFromFile, PackDetInputs\) has no LoadAnn'):
        sniper_pipeline([ConfigDict(LOAD[0]), ConfigDict(PACK)], PYRAMID)


# The loader --------------------------------------------------------------------------------------


def test_the_sampler_chooses_chips_and_takes_further_arguments():
    found = sniper_dataloader(
        loader(
            RESIZE,
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type='AspectRatioBatchSampler'),
            num_workers=3,
        ),
        PYRAMID,
        sampler=dict(strategy='grid'),
    )
    assert found.sampler == dict(type='ChipAwareSampler', pyramid=PYRAMID, strategy='grid')
    assert found.batch_sampler is None
    assert found.num_workers == 3


def test_each_data_set_that_reads_images_is_wrapped_where_it_is():
    """As VOC 07+12: a RepeatDataset of a ConcatDataset of two."""
    one = dict(
        type='VOCDataset',
        ann_file='a',
        pipeline=pipeline(RESIZE),
        filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=32),
    )
    both = dict(type='ConcatDataset', datasets=[one, dict(one, ann_file='b')])
    given = dict(batch_size=2, dataset=dict(type='RepeatDataset', times=3, dataset=both))
    found = sniper_dataloader(given, PYRAMID).dataset
    assert found.type == 'RepeatDataset'
    assert found.times == 3
    wrapped = found.dataset.datasets
    assert types(wrapped) == ['ChipDataset', 'ChipDataset']
    assert [w.dataset.ann_file for w in wrapped] == ['a', 'b']
    assert all(w.dataset.pipeline == [] for w in wrapped)
    # Boxes that are small in the image are objects of the finest level.
    assert wrapped[0].dataset.filter_cfg == dict(filter_empty_gt=True, min_size=32)


def test_images_are_not_mixed():
    """As in YOLOX: both pipelines become one."""
    inner = dict(type='CocoDataset', pipeline=[ConfigDict(t) for t in LOAD])
    mixing = dict(
        type='MultiImageMixDataset',
        dataset=inner,
        pipeline=[
            dict(type='Mosaic', img_scale=(640, 640)),
            dict(type='RandomFlip', prob=0.5),
            PACK,
        ],
    )
    found = sniper_dataloader(dict(batch_size=8, dataset=mixing), PYRAMID).dataset
    assert found.type == 'ChipDataset'
    assert found.dataset.type == 'CocoDataset'
    assert types(found.pipeline)[-2:] == ['RandomFlip', 'PackDetInputs']


def test_settings_beside_the_data_set_that_is_mixed_are_not_lost_without_a_word():
    """As of a child config of YOLOX that is written like one of Faster R-CNN."""
    inner = dict(type='CocoDataset', ann_file='coco.json', pipeline=LOAD)
    mixing = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[PACK], max_refetch=3)
    assert sniper_dataloader(dict(dataset=mixing), PYRAMID).dataset.type == 'ChipDataset'
    with pytest.raises(ValueError, match=r'have ann_file, .* train_dataloader\.dataset\.dataset'):
        sniper_dataloader(dict(dataset=dict(mixing, ann_file='mine.json')), PYRAMID)


def test_images_without_objects_are_kept_if_asked():
    given = loader(RESIZE)
    given['dataset']['filter_cfg'] = dict(filter_empty_gt=True)
    kept = sniper_dataloader(given, PYRAMID, keep_empty=True).dataset.dataset
    assert kept.filter_cfg.filter_empty_gt is False
    assert given['dataset']['filter_cfg']['filter_empty_gt'] is True


# Batches of as many pixels -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ('transforms', 'images', 'chips'),
    [
        # 2 * 1333 * 800 / 512**2 = 8.1
        ([RESIZE], 2, 8),
        # RTMDet: 32 * 640**2 / 512**2 = 50, whatever is before the crop
        (
            [
                dict(type='CachedMosaic', img_scale=(640, 640)),
                dict(type='RandomResize', scale=(1280, 1280), ratio_range=(0.5, 2.0)),
                dict(type='RandomCrop', crop_size=(640, 640)),
                dict(type='Pad', size=(640, 640)),
            ],
            32,
            50,
        ),
        # Two scales: the mean of both, 2 * 1333 * 720 / 512**2 = 7.3
        ([dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)])], 2, 7),
        ([dict(type='RandomResize', scale=[(1333, 640), (1333, 800)])], 2, 7),
        # A crop that is larger than the image crops nothing.
        ([RESIZE, dict(type='RandomCrop', crop_size=(2000, 2000))], 2, 8),
        ([RESIZE, dict(type='RandomCrop', crop_type='relative_range', crop_size=(0.3, 0.3))], 2, 8),
        ([dict(type='Resize', scale=1024)], 1, 4),
        # Never none, and unknown pixels leave the number as it is.
        ([dict(type='Resize', scale=(64, 64))], 1, 1),
        ([dict(type='RandomFlip')], 3, 3),
    ],
)
def test_a_batch_of_chips_has_the_pixels_of_the_batch_of_images(transforms, images, chips):
    assert batch_size(*transforms, images=images) == chips


def test_a_batch_size_that_is_given_holds():
    assert sniper_dataloader(loader(RESIZE), PYRAMID, batch_size=5).batch_size == 5


@pytest.mark.parametrize('key', ['transforms', 'policies', 'aug_space'])
def test_alternatives_of_all_kinds_lose_their_resizes(key):
    policies = [[dict(RESIZE), dict(type='Rotate')], [dict(RESIZE)]]
    *_, choice, _ = sniper_pipeline(pipeline({'type': 'AutoAugment', key: policies}), PYRAMID)
    assert choice[key] == [[dict(type='Rotate')], []]
    assert 'AutoAugment' not in types(
        sniper_pipeline(pipeline({'type': 'AutoAugment', key: [[dict(RESIZE)]]}), PYRAMID)
    )


def test_a_pipeline_that_cuts_chips_already_cuts_them_once():
    cut = [dict(type='ChipSampler', min_visible_size=5), dict(type='ScaleRangeFilter')]
    found = sniper_pipeline(pipeline(*cut, RESIZE), PYRAMID)
    assert types(found) == [
        'LoadLargeImageFromFile',
        'LoadAnnotations',
        'ChipSampler',
        'ScaleRangeFilter',
        'PackDetInputs',
    ]
    assert found[2].min_visible_size == 5


def test_what_is_around_mixed_images_stays_around_what_reads_them():
    repeated = dict(type='RepeatDataset', times=2, dataset=loader()['dataset'])
    repeated['dataset']['pipeline'] = LOAD
    mixing = [dict(type='Mosaic'), dict(type='RandomFlip', prob=0.5), PACK]
    mixed = dict(type='MultiImageMixDataset', dataset=repeated, pipeline=mixing)
    found = sniper_dataloader(dict(batch_size=1, dataset=mixed), PYRAMID).dataset
    assert (found.type, found.get('pipeline')) == ('RepeatDataset', None)
    assert types(found.dataset.pipeline)[-2:] == ['RandomFlip', 'PackDetInputs']


# What a ChipAwareSampler takes the place of -------------------------------------------------------


@pytest.mark.parametrize('kind', ['mmdet.MultiSourceSampler', Sampler])
def test_a_sampler_with_a_choice_of_its_own_is_refused(kind):
    name = getattr(kind, '__name__', kind.rpartition('.')[2] if isinstance(kind, str) else '')
    with pytest.raises(ValueError, match=rf'is a {name}.*ClassBalancedDataset.*_delete_=True'):
        sniper_dataloader(loader(sampler=dict(type=kind)), PYRAMID)


def test_settings_that_hold_for_chips_as_well_are_taken_over():
    given = dict(type='InfiniteSampler', shuffle=False, seed=1)
    found = sniper_dataloader(loader(sampler=given), PYRAMID).sampler
    assert found == dict(type='ChipAwareSampler', pyramid=PYRAMID, shuffle=False, seed=1)
    usual = dict(type='DefaultSampler', shuffle=True, seed=None, round_up=True)
    found = sniper_dataloader(loader(sampler=usual), PYRAMID).sampler
    assert found == dict(type='ChipAwareSampler', pyramid=PYRAMID)
    ours = sniper_dataloader(loader(sampler=given), PYRAMID, sampler=dict(shuffle=True)).sampler
    assert (ours.shuffle, ours.seed) == (True, 1)


@pytest.mark.parametrize(
    ('given', 'each'), [({}, 1), (dict(num_sample_class=3, seed=2), 3), (dict(seed=2), 1)]
)
def test_a_class_aware_sampler_becomes_one_of_chips(given, each):
    notes = []
    stock = loader(sampler=dict(type='mmdet.ClassAwareSampler', **given))
    found = sniper_dataloader(stock, PYRAMID, notes=notes).sampler
    expected = {**given, 'num_sample_class': each}
    assert found == dict(type='ChipAwareSampler', pyramid=PYRAMID, **expected)
    assert 'of every class equally many chips' in ' '.join(notes)
    off = sniper_dataloader(stock, PYRAMID, sampler=dict(num_sample_class=None)).sampler
    assert off.num_sample_class is None


def test_without_a_class_aware_sampler_nothing_is_said_of_classes():
    notes = []
    assert 'num_sample_class' not in sniper_dataloader(loader(), PYRAMID, notes=notes).sampler
    assert 'class' not in ' '.join(notes)


def test_arguments_for_chips_in_the_place_of_a_spelled_out_sampler_are_refused():
    """As docs/negative_chips.md has them for a config that spells its sampler out."""
    given = dict(type='DefaultSampler', shuffle=True, negatives='pool.npz')
    with pytest.raises(ValueError, match=r'has negatives, .*sniper = dict\(sampler=dict\('):
        sniper_dataloader(loader(sampler=given), PYRAMID)


def test_a_batch_sampler_with_a_choice_of_its_own_is_refused():
    given = dict(type='mmdet.MultiDataAspectRatioBatchSampler')
    with pytest.raises(ValueError, match=r'a MultiDataAspectRatioBatchSampler.*batch_sampler=None'):
        sniper_dataloader(loader(batch_sampler=given), PYRAMID)
    found = sniper_dataloader(
        loader(batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True)), PYRAMID
    )
    assert (found.batch_sampler, found.drop_last) == (None, True)


def test_another_sampler_can_be_named():
    named = sniper_dataloader(loader(), PYRAMID, 4, dict(type='Mine', shuffle=False)).sampler
    assert named == dict(type='Mine', pyramid=PYRAMID, shuffle=False)


def test_overrides_for_a_data_set_in_a_spelled_out_chip_dataset_reach_it():
    leaf = dict(
        type='CocoDataset', ann_file='a.json', data_root='d/', metainfo=dict(classes=('a',))
    )
    override = dict(ann_file='mine.json', metainfo=dict(classes=('b', 'c')))
    repeated = ConfigDict(type='RepeatDataset', times=2, dataset=dict(leaf, dataset=override))
    assert with_inner_settings(repeated) == dict(
        type='RepeatDataset', times=2, dataset=dict(leaf, **override)
    )
    assert with_inner_settings(ConfigDict(leaf)) == leaf
