"""The COCO config is the paper's recipe on MMDetection's own detector."""

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
    ours = dict(type='SNIPERRPNHead', pyramid=without_scope(cfg.pyramid))
    assert mine['rpn_head'] == {**stock.model.rpn_head, **ours}
    assert mine['test_cfg'] == stock.model.test_cfg
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
