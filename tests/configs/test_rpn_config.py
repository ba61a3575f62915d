"""The RPN-only config trains on the detector's chips, and negative chips can be mined with it."""

from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.hub import get_config

from comparing import without_scope
from harness.reduced import reduced
from mmsniper.convert import load_config
from mmsniper.models.proposals import proposal_head

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'sniper'


@pytest.fixture(scope='module')
def cfg():
    register_all_modules()
    return load_config(CONFIGS / 'rpn_r101_sniper.py')


@pytest.fixture(scope='module')
def detector():
    return load_config(CONFIGS / 'faster_rcnn_r101_sniper.py')


def test_it_is_the_stock_rpn_and_is_judged_by_the_recall_of_its_proposals(cfg):
    stock = get_config('mmdet::rpn/rpn_r101_fpn_1x_coco.py')
    for part in ('neck', 'test_cfg'):
        assert {k: v for k, v in cfg.model[part].items() if k != '_scope_'} == stock.model[part]
    assert cfg.model.backbone.init_cfg == stock.model.backbone.init_cfg
    for key in ('val_evaluator', 'test_evaluator'):
        assert cfg[key].metric == 'proposal_fast'
        assert cfg[key].ann_file == stock[key].ann_file
    assert [t.type for t in cfg.test_pipeline] == [t.type for t in stock.test_pipeline]


def test_it_sees_the_detectors_chips_in_the_detectors_way_for_four_epochs(cfg, detector):
    for key in ('pyramid', 'optim_wrapper', 'auto_scale_lr'):
        assert without_scope(cfg[key]) == without_scope(detector[key]), key
    assert cfg.custom_imports.imports == detector.custom_imports.imports
    assert cfg.train_dataloader.dataset.pipeline == detector.train_dataloader.dataset.pipeline
    for part in ('backbone', 'data_preprocessor', 'neck', 'rpn_head'):
        assert without_scope(cfg.model[part]) == without_scope(detector.model[part]), part
    mine, theirs = (c.model.train_cfg.rpn.to_dict() for c in (cfg, detector))
    mine['assigner'].setdefault('match_low_quality', True)  # the default
    assert mine == theirs
    assert cfg.train_dataloader.sampler == detector.train_dataloader.sampler
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    # The detector's warm-up; its learning rate drops after more than four epochs.
    assert cfg.train_cfg.max_epochs == 4
    assert cfg.param_scheduler == detector.param_scheduler[:1]


def test_images_without_objects_are_there_to_be_mined(cfg):
    assert cfg.train_dataloader.dataset.dataset.filter_cfg.filter_empty_gt is False


def test_negative_chips_can_be_mined_with_it(cfg):
    model = MODELS.build(reduced(cfg).model)
    assert proposal_head(model) is model.bbox_head
