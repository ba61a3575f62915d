"""A training that takes seconds: small images, a small detector, and a config file for both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

NUM_IMAGES = 8
EMPTY = (3, 6)
"""Images without objects."""

CONFIG = """
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(
    imports=['mmsniper.datasets', 'mmsniper.models', 'mmsniper.engine'],
    allow_failed_imports=False)
pyramid = dict(chip_size=64, levels=[
    dict(resize=dict(factor=1.0), valid_range=(0, 24)),
    dict(resize=dict(factor=0.5), valid_range=(16, None))])
model = dict(
    backbone=dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None,
                  norm_cfg=dict(type='BN', requires_grad=True)),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        type='SNIPERRoIHead', pyramid=pyramid,
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=2)),
    train_cfg=dict(rpn=dict(assigner=dict(type='ValidRangeAssigner')),
                   rpn_proposal=dict(nms_pre=50, max_per_img=20)),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)))
train_dataloader = dict(
    batch_size=4, num_workers=0,
    sampler=dict(type='ChipAwareSampler', pyramid=pyramid),
    dataset=dict(
        type='ChipDataset',
        dataset=dict(
            type='CocoDataset', data_root='{root}', ann_file='ann.json',
            data_prefix=dict(img=''), metainfo=dict(classes=('a', 'b')),
            filter_cfg=dict(filter_empty_gt=False)),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='ChipSampler', pyramid=pyramid),
            dict(type='ScaleRangeFilter', pyramid=pyramid),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs')]))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', begin=0, eta_min=1e-5, by_epoch=True,
         convert_to_iter_based=True)]
custom_hooks = [dict(
    type='NegativeChipHook', warmup_epochs=2, share=1.0, min_proposals=2, num_proposals=30,
    window_size=128)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='session')
def small_images(tmp_path_factory) -> Path:
    """A folder with 8 noisy images of two sizes in COCO format, two of them without objects."""
    folder = tmp_path_factory.mktemp('small_images')
    rng = np.random.default_rng(0)
    coco = dict(images=[], annotations=[], categories=[])
    coco['categories'] = [dict(id=1, name='a'), dict(id=2, name='b')]
    for i in range(NUM_IMAGES):
        width, height = (180, 140) if i % 2 else (150, 200)
        img = rng.integers(0, 256, (height, width, 3), np.uint8)
        coco['images'].append(dict(id=i, file_name=f'{i}.png', width=width, height=height))
        for k in range(0 if i in EMPTY else 2):
            side = (14, 30)[k]
            x, y = rng.integers(0, 60, 2).tolist()
            img[y : y + side, x : x + side] = 255 * k
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=i,
                    category_id=k + 1,
                    iscrowd=0,
                    bbox=[x, y, side, side],
                    area=side * side,
                )
            )
        cv2.imwrite(str(folder / f'{i}.png'), img)
    (folder / 'ann.json').write_text(json.dumps(coco))
    return folder


@pytest.fixture(scope='session')
def small_run_file(small_images, tmp_path_factory) -> Path:
    """A config file of a training with negative chips on the small images."""
    path = tmp_path_factory.mktemp('small_run') / 'small.py'
    path.write_text(CONFIG.replace('{root}', str(small_images)))
    return path


@pytest.fixture
def small_run(small_run_file, tmp_path) -> Path:
    """The same, in a folder of the test's own."""
    return Path(shutil.copy(small_run_file, tmp_path))
