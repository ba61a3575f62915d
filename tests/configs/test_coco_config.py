"""The COCO config is the recipe of paper and release on MMDetection's own detector."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch.nn.modules.batchnorm import _BatchNorm

from comparing import without_scope
from harness.reduced import reduced
from mmsniper.convert import load_config

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'sniper' / 'faster_rcnn_r101_sniper.py'


@pytest.fixture(scope='module')
def cfg():
    cfg = load_config(CONFIG)
    cfg.model.backbone.init_cfg = None
    return cfg


@pytest.fixture(scope='module')
def model(cfg):
    return MODELS.build(cfg.model)


def test_it_is_the_stock_detector_but_for_the_recipe(cfg):
    stock = get_config('mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py')
    mine = without_scope(cfg.model)
    assert (mine['type'], mine['detector']) == ('PyramidDetector', stock.model.type)
    assert mine['neck'] == stock.model.neck
    ours = dict(
        type='SNIPERRPNHead',
        pyramid=without_scope(cfg.pyramid),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=3.0),
    )
    assert mine['rpn_head'] == {**stock.model.rpn_head, **ours}
    assert cfg.model.backbone.depth == 101
    types = [t.type for t in stock.test_pipeline if t.type != 'Resize']
    assert [t.type for t in cfg.test_pipeline] == types
    assert 'scale_factor' not in cfg.test_pipeline[-1].meta_keys
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline == cfg.test_pipeline
    assert cfg.train_dataloader.dataset.dataset.ann_file == stock.train_dataloader.dataset.ann_file


def test_batchnorm_is_trained_beyond_the_stem_and_the_first_stage(model):
    model.train()
    frozen = {'bn1', 'layer1'}
    for name, module in model.backbone.named_modules():
        if isinstance(module, _BatchNorm):
            trained = name.split('.')[0] not in frozen
            assert module.training == trained, name
            assert module.weight.requires_grad == trained, name
            assert module.momentum == 0.005, 'in MXNet, whose release says 0.995, of the old'


@pytest.mark.parametrize(
    ('name', 'maps', 'stride', 'anchors'),
    [
        ('dcn_c5', 1, 16, [32, 64, 112, 160, 208, 256, 384]),
        ('mobilenetv2', 1, 32, [32, 64, 128, 256, 384]),
    ],
)
def test_the_release_s_models_have_one_map_and_its_anchors(name, maps, stride, anchors):
    file = {'dcn_c5': 'r101_dcn_c5', 'mobilenetv2': 'mobilenetv2'}[name]
    cfg = reduced(load_config(CONFIG.with_name(f'faster_rcnn_{file}_sniper.py')))
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        features = model.extract_feat(torch.zeros(1, 3, 128, 128))
    assert [f.shape[-1] for f in features] == [128 // stride] * maps
    (boxes,) = model.rpn_head.prior_generator.base_anchors
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    assert sides.reshape(3, -1).tolist() == [pytest.approx(anchors)] * 3


def test_mobilenet_s_batchnorm_has_statistics_of_the_chips_and_frozen_weights():
    cfg = reduced(load_config(CONFIG.with_name('faster_rcnn_mobilenetv2_sniper.py')))
    backbone = MODELS.build(cfg.model.backbone)
    backbone.train()
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            assert module.training
            assert not module.weight.requires_grad
        elif isinstance(module, torch.nn.Conv2d):
            assert module.weight.requires_grad


def test_the_learning_rate_follows_the_release_scaled_to_160_chips(cfg):
    """0.0005 to 0.015 in 1000 iterations, a tenth from epoch 10.67; times 160 / 128."""
    scheduled = torch.nn.Linear(1, 1)
    optim = build_optim_wrapper(scheduled, {**cfg.optim_wrapper, 'type': 'OptimWrapper'})
    epoch_length = 300
    schedulers = []
    for item in cfg.param_scheduler:
        item = dict(item)
        cls = PARAM_SCHEDULERS.get(item.pop('type'))
        if item.pop('convert_to_iter_based', False):
            schedulers.append(
                cls.build_iter_from_epoch(optimizer=optim, epoch_length=epoch_length, **item)
            )
        else:
            schedulers.append(cls(optimizer=optim, **item))
    rates = []
    for _ in range(cfg.max_epochs * epoch_length):
        rates.append(optim.param_groups[0]['lr'] / (160 / 128))
        optim.step()
        for scheduler in schedulers:
            scheduler.step()
    drop = int(10.67 * epoch_length)
    assert rates[0] == pytest.approx(0.0005)
    assert rates[1000] == pytest.approx(0.015)
    assert rates[drop - 1] == pytest.approx(0.015)
    assert rates[drop + 1] == pytest.approx(0.0015)
    assert rates[-1] == pytest.approx(0.0015)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size


def test_one_config_dict_is_the_pyramid_of_every_piece(cfg):
    pieces = [
        cfg.model,
        cfg.model.rpn_head,
        cfg.model.roi_head,
        cfg.train_dataloader.sampler,
        *(t for t in cfg.train_pipeline if t.type in ('ChipSampler', 'ScaleRangeFilter')),
    ]
    assert len(pieces) == 6
    assert all(piece.pyramid == cfg.pyramid for piece in pieces)


def test_smaller_chips_are_padded_to_the_chip_size(model):
    data = model.data_preprocessor(
        dict(
            inputs=[torch.zeros(3, 96, 80, dtype=torch.uint8)] * 2,
            data_samples=[DetDataSample(metainfo=dict(img_shape=(96, 80))) for _ in range(2)],
        ),
        training=True,
    )
    assert data['inputs'].shape == (2, 3, 512, 512)


def test_mmdetections_inference_sees_all_levels_by_the_file_as_it_is():
    """It is spelled out, so nothing is to be converted."""
    model = init_detector(reduced(Config.fromfile(CONFIG)), device='cpu')
    result = inference_detector(model, np.zeros((60, 90, 3), np.uint8))
    assert type(model).__name__ == 'PyramidDetectorFasterRCNN'
    assert 'scale_factor' not in result
    assert 'levels' in result.pred_instances
