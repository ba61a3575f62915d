"""The RPN-only config trains on the detector's chips, and negative chips can be mined with it."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmsniper.models.proposals import proposal_head
from mmsniper.testing import CLASSES, ToyDatasetSpec, make_toy_dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'sniper'


@pytest.fixture(scope='module')
def cfg():
    register_all_modules()
    return Config.fromfile(CONFIGS / 'rpn_r101_sniper.py')


@pytest.fixture(scope='module')
def detector():
    return Config.fromfile(CONFIGS / 'faster_rcnn_r101_sniper.py')


@pytest.fixture(scope='module')
def small(cfg):
    """The model with ResNet-18 and an eighth of the channels."""
    model = deepcopy(cfg.model)
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    torch.manual_seed(0)
    return MODELS.build(model)


@pytest.fixture(scope='module')
def toy_loader(cfg, tmp_path_factory):
    """The config's own data loader on four toy images, one of which has no objects."""
    root = tmp_path_factory.mktemp('toy')
    make_toy_dataset(root, ToyDatasetSpec(num_train=4, num_val=1, min_side=300, max_side=340), 1)
    loader = deepcopy(cfg.train_dataloader)
    loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    loader.dataset.dataset.update(
        data_root=str(root), ann_file='annotations/train.json', data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES))
    return Runner.build_dataloader(loader, seed=0)


def test_it_is_the_stock_rpn_and_is_judged_by_the_recall_of_its_proposals(cfg):
    stock = get_config('mmdet::rpn/rpn_r101_fpn_1x_coco.py')
    for part in ('neck', 'rpn_head', 'test_cfg'):
        assert {k: v for k, v in cfg.model[part].items() if k != '_scope_'} == stock.model[part]
    assert cfg.model.backbone.init_cfg == stock.model.backbone.init_cfg
    for key in ('val_evaluator', 'test_evaluator'):
        assert cfg[key].metric == 'proposal_fast'
        assert cfg[key].ann_file == stock[key].ann_file
    assert [t.type for t in cfg.test_pipeline] == [t.type for t in stock.test_pipeline]


def test_it_sees_the_detectors_chips_in_the_detectors_way_for_two_epochs(cfg, detector):
    for key in ('pyramid', 'train_pipeline', 'optim_wrapper', 'auto_scale_lr', 'custom_imports'):
        assert cfg[key] == detector[key], key
    for part in ('backbone', 'data_preprocessor', 'neck'):
        assert cfg.model[part] == detector.model[part], part
    mine, theirs = (c.model.train_cfg.rpn.to_dict() for c in (cfg, detector))
    mine['assigner'].setdefault('match_low_quality', True)  # the default
    assert mine == theirs
    assert cfg.train_dataloader.sampler == detector.train_dataloader.sampler
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    # The detector's warm-up; its learning rate drops after more than two epochs.
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.param_scheduler == detector.param_scheduler[:1]


def test_images_without_objects_are_there_to_be_mined(cfg):
    assert cfg.train_dataloader.dataset.dataset.filter_cfg.filter_empty_gt is False


def test_negative_chips_can_be_mined_with_it(small):
    assert proposal_head(small) is small.bbox_head


def test_it_trains_on_chips_with_every_parameter_that_is_not_frozen(small, toy_loader):
    small.train()
    data = small.data_preprocessor(next(iter(toy_loader)), training=True)
    assert data['inputs'].shape == (4, 3, 512, 512)
    losses = small(**data, mode='loss')
    assert set(losses) == {'loss_rpn_cls', 'loss_rpn_bbox'}
    loss, _ = small.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in small.named_parameters():
        frozen = name.startswith(('backbone.conv1', 'backbone.bn1', 'backbone.layer1'))
        assert parameter.requires_grad != frozen, name
        if not frozen:
            assert torch.isfinite(parameter.grad).all(), name
