"""The configs with negative chips are those without, and what negative chips need."""

from pathlib import Path

import pytest
from mmengine.registry import HOOKS

from mmsniper.convert import load_config
from mmsniper.engine import NegativeChipHook

SNIPER = Path(__file__).resolve().parents[2] / 'configs' / 'sniper'


@pytest.mark.parametrize('data', ['toy', 'bccd'])
def test_they_add_the_hook_and_keep_images_without_objects(data):
    plain = load_config(SNIPER / f'faster_rcnn_r18_sniper_{data}.py')
    cfg = load_config(SNIPER / f'faster_rcnn_r18_sniper_negatives_{data}.py')
    *before, hook = cfg.custom_hooks
    assert before == plain.custom_hooks
    assert isinstance(HOOKS.build(hook), NegativeChipHook)
    assert cfg.train_dataloader.dataset.dataset.filter_cfg.pop('filter_empty_gt') is False
    assert plain.train_dataloader.dataset.dataset.filter_cfg.pop('filter_empty_gt') is True
    for key in set(plain) - {'custom_hooks'}:
        assert cfg[key] == plain[key], key


def test_the_paper_s_config_mines_after_four_epochs():
    cfg = load_config(SNIPER / 'faster_rcnn_r101_sniper.py')
    assert [hook.type for hook in cfg.custom_hooks] == [
        'SyncBuffersHook',
        'PixelCounterHook',
        'TrainingTimeHook',
        'ConsistencyHook',
        'ResumeHook',
        'NegativeChipHook',
    ]
    assert HOOKS.build(cfg.custom_hooks[-1]).warmup_epochs == 4
    filter_cfg = cfg.train_dataloader.dataset.dataset.filter_cfg
    assert filter_cfg == dict(filter_empty_gt=False, min_size=32)
