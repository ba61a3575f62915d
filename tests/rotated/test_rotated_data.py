"""Rotated boxes as data sets have them: corners in DOTA's files, polygons in COCO's."""

import glob
import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmrotate.structures.bbox import RotatedBoxes

from mmsniper.apis.epoch_chips import chip_views
from mmsniper.checks.config import check_config
from mmsniper.chips import ScalePyramid
from mmsniper.datasets import ChipAwareSampler, read_annotations
from mmsniper.testing import CLASSES, ToyDatasetSpec, make_toy_dataset

SPEC = ToyDatasetSpec(seed=3, num_train=4, num_val=1, min_side=300, max_side=400, rotated=True)
PYRAMID = dict(
    chip_size=96,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 36)),
        dict(resize=dict(factor=0.5), valid_range=(24, None)),
    ],
)
CUT = [
    dict(type='mmdet.ChipSampler', pyramid=PYRAMID),
    dict(type='mmdet.ScaleRangeFilter', pyramid=PYRAMID),
]
LOAD = dict(type='mmdet.LoadImageFromFile')


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    make_toy_dataset(root, SPEC, processes=1)
    return root


@pytest.fixture(autouse=True)
def in_mmrotates_scope():
    with DefaultScope.overwrite_default_scope('mmrotate'):
        yield


def dota(root):
    inner = dict(
        type='DOTADataset',
        data_root=str(root),
        ann_file='annfiles/train/',
        data_prefix=dict(img_path='train/'),
        img_suffix='jpg',
        metainfo=dict(classes=CLASSES),
    )
    load = dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox')
    turn = dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox'))
    return dict(type='mmdet.ChipDataset', dataset=inner, pipeline=[LOAD, load, turn, *CUT])


def coco(root, ann_file='annotations/train.json'):
    inner = dict(
        type='mmdet.CocoDataset',
        data_root=str(root),
        ann_file=ann_file,
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
    )
    load = dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)
    turn = dict(type='ConvertMask2BoxType', box_type='rbox')
    return dict(type='mmdet.ChipDataset', dataset=inner, pipeline=[LOAD, load, turn, *CUT])


def test_a_coco_file_has_the_chips_of_the_dota_files(toy):
    plans = []
    for config in (dota(toy), coco(toy)):
        dataset = DATASETS.build(config)
        sampler = ChipAwareSampler(dataset, PYRAMID, seed=0)
        table = sampler.planner.table
        assert table.corners is not None
        plans.append(sampler.plan)
        # What is planned is what the pipeline makes.
        for index in sampler:
            sample = dataset[index]
            assert isinstance(sample['gt_bboxes'], RotatedBoxes)
            mine = slice(*table.offset[int(index) : int(index) + 2])
            sizes = table.sizes_of(mine)
            for size in sample['gt_sizes'].tolist():
                assert np.abs(sizes - size).min() < 1e-2
            valid = ~sample['gt_ignore_flags']
            assert valid.any()
    first, second = plans
    assert len(first) > 4
    for name in ('image', 'level', 'kind'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_allclose(first.box, second.box, atol=1e-3)


def test_without_the_transform_a_coco_file_has_upright_boxes(toy):
    config = coco(toy)
    del config['pipeline'][2]
    assert read_annotations(DATASETS.build(config)).corners is None


def test_data_sets_of_both_formats_are_planned_together(toy):
    both = dict(type='mmdet.ConcatDataset', datasets=[dota(toy), coco(toy)])
    table = read_annotations(DATASETS.build(both))
    half = len(table.boxes) // 2
    sizes = table.sizes_of(slice(None))
    np.testing.assert_allclose(sizes[:half], sizes[half:], atol=1e-4)


def test_an_object_without_a_polygon_is_named(toy, tmp_path):
    content = json.loads((toy / 'annotations' / 'train.json').read_text())
    content['annotations'][0]['segmentation'] = []
    file = tmp_path / 'train.json'
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'segmentation'):
        read_annotations(DATASETS.build(coco(toy, str(file))))


def test_pictures_of_chips_have_the_turned_boxes(toy):
    dataset = DATASETS.build(dota(toy))
    sampler = ChipAwareSampler(dataset, PYRAMID, seed=0)
    plan = sampler.plan.take(sampler.plan.image == 0)
    views = list(chip_views(dataset, 0, plan, ScalePyramid.from_config(PYRAMID), CLASSES))
    corners = sampler.planner.table.corners[: sampler.planner.table.offset[1]].reshape(-1, 4, 2)
    assert len(views) == len(plan)
    for view, window in zip(views, plan.box):
        assert view.boxes.shape == (len(view.states), 8)
        for box in view.boxes.reshape(-1, 4, 2):
            there = box / view.scale + np.floor(window[:2])
            gaps = np.linalg.norm(corners[:, :, None] - there, axis=3).min(axis=1).max(axis=1)
            assert gaps.min() < 3  # a chip's scale is that of whole pixels


@pytest.mark.parametrize('lazy', [False, True])
def test_the_order_of_a_folder_is_no_matter(toy, monkeypatch, lazy):
    def names(config):
        dataset = DATASETS.build(config)
        dataset.full_init()
        return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]

    config = {**dota(toy), 'lazy_init': lazy}
    expected = names(config)
    assert expected == sorted(expected)
    stock = glob.glob
    monkeypatch.setattr(glob, 'glob', lambda *args, **more: sorted(stock(*args, **more))[::-1])
    assert names(config) == expected
    twice = dict(type='mmdet.RepeatDataset', times=1, dataset=config['dataset'])
    assert names({**config, 'dataset': twice}) == expected


@pytest.mark.parametrize('key', ['train_dataloader', 'test_dataloader'])
def test_boxes_of_bitmaps_are_refused_where_x_and_y_would_be_exchanged(toy, key):
    def centers():
        return DATASETS.build(config)[0]['gt_bboxes'].centers.numpy()

    def found(turn=None):
        config['pipeline'][2:3] = [turn] if turn else []
        return check_config(Config({key: dict(dataset=config)}))

    chips = coco(toy)
    config = {**chips['dataset'], 'pipeline': chips['pipeline'][:-2]}
    _, load, turn = config['pipeline']
    assert found(turn) == []
    polygons = centers()
    del load['poly2mask']  # True
    # Those of whole pixels; stock exchanges x and y. When it no longer does, this may go.
    np.testing.assert_allclose(centers()[:, ::-1], polygons, atol=1)
    (error,) = found(turn)
    assert (error.severity, error.where) == ('error', f'{key}.dataset.pipeline')
    assert "ConvertMask2BoxType(box_type='rbox') after LoadAnnotations(with_mask" in error.what
    assert 'poly2mask=False' in error.fix
    (error,) = found({**turn, 'type': 'mmrotate.ConvertMask2BoxType', 'box_type': RotatedBoxes})
    # Corners and upright boxes are made right, and masks alone are no matter.
    assert found({**turn, 'box_type': 'qbox'}) == []
    assert found({**turn, 'box_type': 'hbox'}) == []
    assert found() == []
