"""Small detectors, from MMDetection's own configs, that build and run in a fraction of a second."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config

import mmsniper.models  # noqa: F401

STOCK = {
    'faster': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
}
NUM_CLASSES = 3


@pytest.fixture(scope='session', autouse=True)
def _registered():
    register_all_modules()


@pytest.fixture(scope='session')
def small_config():
    """(name of STOCK) -> its model config with ResNet-18, 8 base channels and 3 classes."""

    def make(name: str) -> ConfigDict:
        cfg = get_config(STOCK[name]).model
        cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
        cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
        cfg.rpn_head.update(in_channels=8, feat_channels=8)
        cfg.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        cfg.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
        head = cfg.roi_head
        head.bbox_roi_extractor.out_channels = 8
        for box in head.bbox_head if isinstance(head.bbox_head, list) else [head.bbox_head]:
            box.update(in_channels=8, fc_out_channels=16, num_classes=NUM_CLASSES)
        if 'mask_head' in head:
            head.mask_roi_extractor.out_channels = 8
            head.mask_head.update(
                in_channels=8, conv_out_channels=8, num_classes=NUM_CLASSES, num_convs=1
            )
        return cfg

    return make


@pytest.fixture
def build():
    """Build a model config, with weights that are the same every time."""

    def build_(cfg: dict) -> torch.nn.Module:
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
        return model

    return build_
