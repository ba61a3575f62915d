"""The COCO config is the paper's recipe on MMDetection's own detector."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch.nn.modules.batchnorm import _BatchNorm

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
    for part in ('neck', 'rpn_head'):
        mine = {k: v for k, v in cfg.model[part].items() if k != '_scope_'}
        assert mine == stock.model[part]
    assert cfg.model.backbone.depth == 101
    assert [t.type for t in cfg.test_pipeline] == [t.type for t in stock.test_pipeline]
    assert cfg.test_pipeline[1].scale == stock.test_pipeline[1].scale == (1333, 800)
    assert cfg.train_dataloader.dataset.dataset.ann_file == stock.train_dataloader.dataset.ann_file


def test_batchnorm_is_trained_beyond_the_stem_and_the_first_stage(model):
    model.train()
    frozen = {'bn1', 'layer1'}
    for name, module in model.backbone.named_modules():
        if isinstance(module, _BatchNorm):
            trained = name.split('.')[0] not in frozen
            assert module.training == trained, name
            assert module.weight.requires_grad == trained, name


def test_the_learning_rate_follows_the_paper_scaled_to_160_chips(cfg):
    """0.0005 to 0.015 in 2000 iterations, a tenth from epoch 5.33; times 160 / 128."""
    scheduled = torch.nn.Linear(1, 1)
    optim = build_optim_wrapper(scheduled, {**cfg.optim_wrapper, 'type': 'OptimWrapper'})
    epoch_length = 3000
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
    drop = int(5.33 * epoch_length)
    assert rates[0] == pytest.approx(0.0005)
    assert rates[2000] == pytest.approx(0.015)
    assert rates[drop - 1] == pytest.approx(0.015)
    assert rates[drop + 1] == pytest.approx(0.0015)
    assert rates[-1] == pytest.approx(0.0015)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size


def test_one_config_dict_is_the_pyramid_of_every_piece(cfg):
    pieces = [
        cfg.model.roi_head,
        cfg.train_dataloader.sampler,
        *(t for t in cfg.train_pipeline if t.type in ('ChipSampler', 'ScaleRangeFilter')),
        cfg.tta_model,
        *cfg.tta_pipeline[1].transforms[0],
    ]
    assert len(pieces) == 8
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
