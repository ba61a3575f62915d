"""MMRotate reads the toy data set's boxes as they were drawn."""

import subprocess
import sys

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmrotate.datasets import DOTADataset
from mmrotate.structures.bbox import rbox2qbox

from mmsniper.testing import CLASSES, ToyDatasetSpec, make_toy_dataset

SPEC = ToyDatasetSpec(seed=2, num_train=3, num_val=1, min_side=300, max_side=400, rotated=True)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    make_toy_dataset(root, SPEC, processes=1)
    with DefaultScope.overwrite_default_scope('mmrotate'):
        return DOTADataset(
            data_root=str(root),
            ann_file='annfiles/train/',
            data_prefix=dict(img_path='train/'),
            img_suffix='jpg',
            metainfo=dict(classes=CLASSES),
            pipeline=[
                dict(type='mmdet.LoadImageFromFile'),
                dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
                dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
            ],
        )


def test_the_boxes_are_the_rectangles_that_were_drawn(dataset):
    assert len(dataset) == 3
    for sample in dataset:
        scene = SPEC.scene('train', int(sample['img_id']) - 1)
        assert sample['img_shape'] == (scene.height, scene.width)
        assert sample['gt_bboxes_labels'].tolist() == [o.label for o in scene.labelled]
        found = rbox2qbox(sample['gt_bboxes'].tensor).reshape(-1, 4, 2).numpy()
        for corners, item in zip(found, scene.labelled, strict=True):
            # Wherever it begins, a rectangle has the same corners.
            gaps = np.linalg.norm(corners[:, None] - item.corners, axis=2)
            assert gaps.min(axis=0).max() < 0.05


def test_processes_that_are_started_can_import_mmrotate():
    subprocess.run([sys.executable, '-c', 'import mmrotate.models'], check=True)
