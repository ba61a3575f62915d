"""Small detectors, from MMDetection's own configs, that build and run in a fraction of a second."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config

import mmsniper.models  # noqa: F401
from harness.reduced import reduced

STOCK = {
    'faster': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
}
FAMILIES = {
    'FasterRCNN': STOCK['faster'],
    'MaskRCNN': STOCK['mask'],
    'CascadeRCNN': STOCK['cascade'],
    'RetinaNet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'RTMDet': 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    'RTMDet-Ins': 'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
    'DeformableDETR': 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'DDQ': 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
    'Double-Head R-CNN': 'mmdet::double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
    'Dynamic R-CNN': 'mmdet::dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'GA-Faster R-CNN': 'mmdet::guided_anchoring/ga-faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'GA-RetinaNet': 'mmdet::guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py',
    'Grid R-CNN': 'mmdet::grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py',
    'HTC': 'mmdet::htc/htc_r50_fpn_1x_coco.py',
    'Mask Scoring R-CNN': 'mmdet::ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py',
    'Mask2Former': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'PISA': 'mmdet::pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py',
    'PointRend': 'mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'QueryInst': 'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py',
    'SCNet': 'mmdet::scnet/scnet_r50_fpn_1x_coco.py',
    'Sparse R-CNN': 'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'TOOD': 'mmdet::tood/tood_r50_fpn_1x_coco.py',
    'TridentNet': 'mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py',
    'VFNet': 'mmdet::vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco.py',
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
        for part in model.modules():
            if isinstance(part, TridentConv):  # of which MMDetection leaves what memory holds
                torch.nn.init.kaiming_normal_(part.weight)
        return model

    return build_


@functools.cache
def _reduced_family(family: str) -> ConfigDict:
    cfg = reduced(get_config(FAMILIES[family])).model
    cfg.data_preprocessor.pad_size_divisor = 32  # as our configs have it
    roi_head = cfg.get('roi_head') or ConfigDict()
    names = ('mask_head', 'mask_iou_head', 'point_head', 'glbctx_head')
    if 'panoptic_head' in cfg:
        for head in (cfg.panoptic_head, cfg.panoptic_fusion_head):
            head.num_things_classes = NUM_CLASSES
        cfg.panoptic_head.loss_cls.class_weight = [1.0] * NUM_CLASSES + [0.1]
    parts = [roi_head.get('bbox_head', cfg.get('bbox_head')), *map(roi_head.get, names)]
    for part in parts:
        for head in part if isinstance(part, list) else [part]:
            if head is not None:
                head.num_classes = NUM_CLASSES
    return cfg


@pytest.fixture
def family_config() -> Callable[[str], ConfigDict]:
    """(key of FAMILIES) -> the stock config of that detector at reduced size, with 3 classes."""
    return lambda family: copy.deepcopy(_reduced_family(family))


@pytest.fixture
def at_levels(family_config, build) -> Callable[..., torch.nn.Module]:
    """(key of FAMILIES, pyramid) -> a PyramidDetector whose random weights find boxes of sizes.

    With ``noise=False`` they are those that MMDetection starts with.
    """

    def make(
        family: str,
        pyramid: dict,
        type: str = 'PyramidDetector',
        noise: bool = True,
        **settings: Any,
    ) -> Any:
        cfg = family_config(family)
        cfg.update(settings, type=type, detector=cfg.type, pyramid=pyramid)
        model = build(cfg).eval()
        for name, value in model.named_parameters() if noise else ():
            value.data += 0.02 * torch.randn_like(value)
            # Distances from a point to the sides of its box, which are tiny at first.
            if name.endswith('conv_reg.bias') or ('rtm_reg' in name and name.endswith('bias')):
                value.data += 2
        return model

    return make


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """(width, height, seed) -> an image of blurred noise."""

    def make(width: int = 230, height: int = 190, seed: int = 0) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return cv2.GaussianBlur(noise, (0, 0), 3)

    return make


@pytest.fixture
def unresized() -> Callable[..., dict]:
    """Images as they are, as a data loader gives them."""
    pack = Compose([dict(type='PackDetInputs')])

    def batch(*images: np.ndarray) -> dict:
        return pseudo_collate(
            [
                pack(
                    dict(
                        img=image,
                        img_shape=image.shape[:2],
                        ori_shape=image.shape[:2],
                        img_path='x.jpg',
                        img_id=i,
                    )
                )
                for i, image in enumerate(images)
            ]
        )

    return batch
