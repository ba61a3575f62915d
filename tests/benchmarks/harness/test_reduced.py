"""A reduced detector has every part of the whole one, fits together, and is small."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from mmcv.ops import DeformConv2d
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmsniper.models  # noqa: F401
from harness.reduced import ReducedSize, reduced

PYRAMID = dict(
    chip_size=96,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 40)),
        dict(resize=dict(factor=0.5), valid_range=(30, None)),
    ],
)
RETINANET = 'retinanet/retinanet_r50_fpn_1x_coco'
MASK_RCNN = 'mask_rcnn/mask-rcnn_r101_fpn_1x_coco'
CASCADE = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco'
DCN = 'dcn/faster-rcnn_r101-dconv-c3-c5_fpn_1x_coco'
DILATED_C5 = 'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco'
FCOS = 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'
ATSS = 'atss/atss_r50_fpn_1x_coco'
RTMDET = 'rtmdet/rtmdet_s_8xb32-300e_coco'
DETR = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco'
TWO_STAGE_DETR = 'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco'
DINO = 'dino/dino-4scale_r50_8xb2-12e_coco'
ALL = (
    RETINANET,
    MASK_RCNN,
    CASCADE,
    DCN,
    DILATED_C5,
    FCOS,
    ATSS,
    RTMDET,
    DETR,
    TWO_STAGE_DETR,
    DINO,
    'rpn/rpn_r101_fpn_1x_coco',
    'gfl/gfl_r50_fpn_1x_coco',
    'pafpn/faster-rcnn_r50_pafpn_1x_coco',
)


@pytest.fixture(scope='module', autouse=True)
def _registered():
    register_all_modules()


def stock(name):
    return get_config(f'mmdet::{name}.py')


def build(cfg):
    torch.manual_seed(0)
    model = MODELS.build(deepcopy(cfg.model))
    model.init_weights()  # a Deformable DETR and a DINO have weights of what was in memory
    return model


def inputs(with_masks):
    """A batch of two images, each with an object."""
    mask = np.zeros((1, 96, 96), np.uint8)
    mask[:, 10:70, 10:60] = 1
    samples = []
    for _ in range(2):
        shape = dict(img_shape=(96, 96), ori_shape=(96, 96), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=dict(**shape, pad_shape=(96, 96)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10.0, 60.0, 70.0]]), labels=torch.tensor([3])
        )
        if with_masks:
            sample.gt_instances.masks = BitmapMasks(mask, 96, 96)
        samples.append(sample)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


@pytest.mark.parametrize('name', ALL)
def test_its_parts_fit_together_and_are_few(name):
    cfg = reduced(stock(name))
    model = build(cfg).train()
    batch = inputs(with_masks=name in (MASK_RCNN, CASCADE))
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    assert torch.isfinite(loss)
    # The least of the whole detectors, RTMDet-s, has 9 million. The embeddings of two stay wide.
    most = 5e6 if name in (DINO, TWO_STAGE_DETR) else 0.7e6
    assert sum(p.numel() for p in model.parameters()) < most


def test_a_mobilenet_tells_the_neck_its_channels():
    cfg = stock(RETINANET)
    cfg.model.backbone = dict(type='MobileNetV2', out_indices=(1, 2, 4, 7))
    cfg = reduced(cfg, ReducedSize(base_channels=16))
    maps = MODELS.build(cfg.model.backbone)(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == cfg.model.neck.in_channels == [8, 8, 24, 1280]


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='ResNet', depth=50, out_indices=(1, 3)),
        dict(
            type='ResNet',
            depth=101,
            dcn=dict(type='DCN', deform_groups=1),
            stage_with_dcn=(False, False, False, True),
        ),
        dict(type='ResNeXt', depth=50, groups=32, base_width=4),
        dict(type='ResNetV1d', depth=50),
        dict(type='CSPNeXt', out_indices=(0, 3, 4)),
        dict(type='CSPNeXt', arch='P6', widen_factor=1.25, out_indices=(2, 5)),
        dict(type='CSPDarknet', use_depthwise=True, out_indices=(1, 4)),
        dict(type='MobileNetV2', out_indices=(0, 6)),
    ],
    ids=lambda backbone: backbone['type'],
)
def test_the_neck_is_told_what_the_backbone_gives_out(backbone):
    cfg = stock(RETINANET)
    cfg.model.backbone = backbone
    cfg = reduced(cfg)
    maps = MODELS.build(cfg.model.backbone)(torch.zeros(2, 3, 128, 128))
    assert [m.shape[1] for m in maps] == cfg.model.neck.in_channels


def test_deformable_and_dilated_convolutions_stay():
    def count(model):
        return sum(isinstance(m, DeformConv2d) for m in model.modules())

    assert count(build(reduced(stock(DCN)))) == 4 + 6 + 3  # every block of the last three stages
    model = build(reduced(stock(DILATED_C5)))
    assert model.backbone.layer4[1].conv1.dilation == (2, 2)
    assert model.backbone(torch.zeros(1, 3, 64, 64))[0].shape == (1, 64, 4, 4)
    assert model.rpn_head.rpn_conv.in_channels == 64


def test_masks_and_the_stages_of_a_cascade_stay():
    head = build(reduced(stock(CASCADE))).roi_head
    assert len(head.bbox_head) == len(head.mask_head) == 3
    whole = stock(CASCADE).model.roi_head
    for mine, theirs in zip(head.bbox_head, whole.bbox_head):
        assert mine.num_classes == theirs.num_classes
        assert mine.bbox_coder.stds == theirs.bbox_coder.target_stds


def test_a_detector_of_all_levels_is_reduced_as_it_is_and_a_branch_of_its_maps_fits():
    ours = dict(
        type='AutoFocus',
        detector='RetinaNet',
        pyramid=PYRAMID,
        merge_cfg=dict(nms_pre=9000),
        focus_head=dict(type='FocusHead', in_channels=256, feat_channels=256),
    )
    cfg = stock(RETINANET)
    cfg.model.update(ours)
    model = reduced(cfg).model
    assert (model.focus_head.in_channels, model.focus_head.feat_channels) == (32, 32)
    assert model.merge_cfg.nms_pre == 9000, 'of what is found, of which there is little anyway'
    build(Config(dict(model=model)))
    theirs = reduced(stock(RETINANET)).model
    assert {key: model[key] for key in theirs if key != 'type'} == {
        key: value for key, value in theirs.items() if key != 'type'
    }


def test_layers_and_queries_are_lowered_never_raised():
    cfg = stock(DETR)
    cfg.model.update(num_queries=40)
    cfg.model.decoder.num_layers = 1
    model = reduced(cfg).model
    assert (model.encoder.num_layers, model.decoder.num_layers, model.num_queries) == (2, 1, 40)
    assert model.test_cfg.max_per_img == 50
    assert reduced(stock(DINO)).model.num_queries == 50


def test_what_is_stacked_or_sampled_is_little():
    assert reduced(stock(FCOS)).model.bbox_head.stacked_convs == 2  # of 4
    roi_head = reduced(stock(MASK_RCNN)).model.roi_head
    assert roi_head.mask_head.num_convs == 2  # of 4
    assert roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 2  # not as many as there are
    assert reduced(stock(DINO)).model.dn_cfg.group_cfg.num_dn_queries == 50  # of 100
    cfg = stock(RTMDET)
    cfg.model.neck.num_csp_blocks = 3
    assert reduced(cfg).model.neck.num_csp_blocks == 1


def test_a_group_keeps_its_number_of_channels():
    """256 channels in 32 groups are 8 a group, and so are 32 in 4; also where 32 is the default."""
    for name in (FCOS, ATSS, DETR):
        groups = [m for m in build(reduced(stock(name))).modules() if isinstance(m, nn.GroupNorm)]
        assert groups
        assert {m.num_channels // m.num_groups for m in groups} == {8}


def test_proposals_are_few_in_training_in_testing_and_at_a_level():
    cfg = stock(MASK_RCNN)
    cfg.model.level_rpn = dict(nms_pre=9000, max_per_img=1000)
    cfg = reduced(cfg, ReducedSize(proposals=30))
    for part in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn, cfg.model.level_rpn):
        assert (part.nms_pre, part.max_per_img) == (150, 30)
    assert cfg.model.test_cfg.rcnn == stock(MASK_RCNN).model.test_cfg.rcnn


def test_nothing_is_downloaded_and_nothing_needs_a_gpu():
    cfg = stock(RTMDET)
    cfg.load_from = 'https://example.org/weights.pth'
    cfg.optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=1))
    cfg = reduced(cfg)
    assert cfg.load_from is None
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(lr=1))
    assert cfg.model.backbone.init_cfg is None
    assert not [m for m in build(cfg).modules() if isinstance(m, nn.SyncBatchNorm)]


def test_data_losses_and_schedule_stay_and_the_given_config_too():
    cfg = stock(MASK_RCNN)
    before = deepcopy(cfg.to_dict())
    small = reduced(cfg)
    assert cfg.to_dict() == before
    for key in set(before) - {'model'}:
        assert small[key] == cfg[key], key
    assert small.model.rpn_head.loss_cls == cfg.model.rpn_head.loss_cls
    assert small.model.train_cfg.rcnn == cfg.model.train_cfg.rcnn


def test_what_is_frozen_stays_frozen_unless_told_otherwise():
    def trained(cfg):
        model = build(cfg).train()
        norms = [m for m in model.backbone.modules() if isinstance(m, _BatchNorm)]
        return model.backbone.conv1.weight.requires_grad, any(m.training for m in norms)

    assert trained(reduced(stock(DILATED_C5))) == (False, False)
    cfg = reduced(stock(DILATED_C5), unfreeze=True)
    assert trained(cfg) == (True, True)
    assert all(p.requires_grad for p in build(cfg).parameters())


@pytest.mark.parametrize(('name', 'starts_at_zero'), [(DETR, False), (RETINANET, True)])
def test_a_residual_block_starts_at_zero_unless_frozen_it_would_stay_there(name, starts_at_zero):
    model = build(reduced(stock(name)))
    for block in model.backbone.layer3:
        assert block.norm2.weight.detach().any() != starts_at_zero


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco', 'BFP, the neck'),
        ('yolof/yolof_r50-c5_8xb8-1x_coco', 'DilatedEncoder, the neck'),
        ('solov2/solov2_r50_fpn_1x_coco', 'mask_head'),
    ],
)
def test_a_part_without_a_rule_is_told_of(name, message):
    with pytest.raises(ValueError, match=message):
        reduced(stock(name))


def test_a_head_for_maps_of_different_channels_is_refused():
    cfg = stock(RETINANET)
    cfg.model.bbox_head.in_channels = (512, 1024)
    with pytest.raises(ValueError, match='equal channels'):
        reduced(cfg)


def test_a_type_that_nobody_registered_is_told_of():
    cfg = stock(RETINANET)
    cfg.model.neck.type = 'MyNeck'
    with pytest.raises(ValueError, match='custom_imports'):
        reduced(cfg)


@pytest.mark.parametrize('wrong', [dict(channels=20), dict(layers=0), dict(base_channels=2.5)])
def test_an_impossible_size_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReducedSize(**wrong)
