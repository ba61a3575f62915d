"""Stock configs with other RoI heads than Faster R-CNN's, or other masks, train and are tested."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.models.roi_heads import HybridTaskCascadeRoIHead
from mmdet.registry import MODELS
from untrained import StatisticsOfBatches

from harness.reduced import reduced
from mmsniper.convert import load_config
from mmsniper.engine import SNIPERRunner
from mmsniper.models import (
    SNIPERMask2FormerHead,
    SNIPERRoIMixin,
    SNIPERRTMDetInsSepBNHead,
    SNIPERSparseRoIHead,
)

WIDTH, HEIGHT = 160, 120
CONFIGS = {
    'double': 'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
    'dynamic': 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'grid': 'grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py',
    'HTC': 'htc/htc_r50_fpn_1x_coco.py',
    'mask scoring': 'ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py',
    'PISA': 'pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py',
    'PointRend': 'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'SCNet': 'scnet/scnet_r50_fpn_1x_coco.py',
    'sparse': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'QueryInst': 'queryinst/queryinst_r50_fpn_1x_coco.py',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'RTMDet-Ins': 'rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
}
# Types of the parts that know what is invalid.
OURS = {'Mask2Former': SNIPERMask2FormerHead, 'RTMDet-Ins': SNIPERRTMDetInsSepBNHead}
MASKED = ('HTC', 'mask scoring', 'PISA', 'PointRend', 'SCNet', 'QueryInst', 'Mask2Former')
MASKED += ('RTMDet-Ins',)
PYRAMID = """pyramid = dict(chip_size=96, levels=[
    dict(resize=dict(factor=1.5), valid_range=(0, 40)),
    dict(resize=dict(factor=0.5), valid_range=(30, None))])
"""
MINE = """
_base_ = ['mmdet::{stock}', '{fragment}', '{pyramid}']
sniper = dict(batch_size=2, negative_chips=None)
here = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{root}/', ann_file='ann.json', data_prefix=dict(img='images/', seg='seg/')))
train_dataloader = test_dataloader = here
test_evaluator = dict(ann_file='{root}/ann.json')
val_cfg = val_dataloader = val_evaluator = None
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2)
param_scheduler = []
optim_wrapper = dict(optimizer=dict(lr=1e-5))  # else all is background after two steps
model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))
default_hooks = dict(checkpoint=dict(by_epoch=False))
"""


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Three images of squares, large and small, with masks and a semantic map."""
    folder = tmp_path_factory.mktemp('squares')
    for name in ('images', 'seg'):
        (folder / name).mkdir()
    classes = CocoDataset.METAINFO['classes']
    coco = dict(images=[], annotations=[])
    coco['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    rng = np.random.default_rng(0)
    for i in range(3):
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        kinds = np.zeros((HEIGHT, WIDTH), np.uint8)
        for k, side in enumerate((12, 24, 70)):
            x, y = (20 * k + 10 * i, 8 * k)
            image[y : y + side, x : x + side] = 80 * k
            kinds[y : y + side, x : x + side] = k + 1
            corners = [x, y, x + side, y, x + side, y + side, x, y + side]
            coco['annotations'].append(
                dict(id=3 * i + k + 1, image_id=i, category_id=k + 1, iscrowd=0)
                | dict(bbox=[x, y, side, side], area=side**2, segmentation=[corners])
            )
        coco['images'].append(dict(id=i, file_name=f'{i}.jpg', width=WIDTH, height=HEIGHT))
        cv2.imwrite(str(folder / 'images' / f'{i}.jpg'), image)
        cv2.imwrite(str(folder / 'seg' / f'{i}.png'), kinds)
    (folder / 'ann.json').write_text(json.dumps(coco))
    (folder / 'pyramid.py').write_text(PYRAMID)
    return folder


@pytest.fixture
def config(images, tmp_path, pytestconfig):
    """(name of CONFIGS) -> its SNIPER version on these images, at reduced size."""

    def make(name):
        file = tmp_path / 'mine.py'
        file.write_text(
            MINE.format(
                stock=CONFIGS[name],
                fragment=pytestconfig.rootpath / 'configs' / '_base_' / 'sniper.py',
                pyramid=images / 'pyramid.py',
                root=images,
            )
        )
        cfg = reduced(load_config(file))
        if (cfg.model.test_cfg or {}).get('rpn'):  # the grid head sees each as each class
            cfg.model.test_cfg.rpn.max_per_img = 3
        cfg.update(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name)
        return cfg

    return make


@pytest.mark.parametrize('name', CONFIGS)
def test_two_steps_and_a_test(config, name):
    runner = SNIPERRunner.from_cfg(config(name))
    runner.register_hook(StatisticsOfBatches())
    runner.train()
    assert runner.iter == 2
    kind = OURS.get(name, SNIPERRoIMixin | SNIPERSparseRoIHead)
    assert any(isinstance(part, kind) for part in runner.model.modules())
    log = runner.message_hub.log_scalars
    assert all(np.isfinite(value.data[0]).all() for key, value in log.items() if 'loss' in key)
    if name in ('HTC', 'SCNet'):
        assert log['train/loss_semantic_seg'].data[0][-1] > 0
    if name == 'QueryInst':  # whose boxes leave the image as long as it has learned nothing
        for head in runner.model.roi_head.bbox_head:
            torch.nn.init.zeros_(head.fc_reg.weight)
            torch.nn.init.zeros_(head.fc_reg.bias)
    metrics = runner.test()
    kinds = ['bbox'] + ['segm'] * (name in MASKED)
    assert {f'coco/{kind}_mAP' for kind in kinds} <= set(metrics)
    if name in MASKED:
        assert log['train/loss_mask' if name in OURS else 'train/loss'].data[0].min() > 0


def test_what_a_run_dumps_is_what_a_later_process_builds(config, tmp_path):
    cfg = config('HTC')
    cfg.dump(tmp_path / 'dumped.py')
    later = load_config(tmp_path / 'dumped.py').model
    assert later == cfg.model
    head = MODELS.build(later.roi_head)
    assert isinstance(head, HybridTaskCascadeRoIHead)
    assert isinstance(head, SNIPERRoIMixin)
