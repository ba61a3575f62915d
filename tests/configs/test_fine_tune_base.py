"""The detector that docs/howto/fine_tuning.md starts from on a CPU."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

from mmsniper.convert import load_config

BASES = Path(__file__).resolve().parents[2] / 'configs' / '_base_'
FILES = ('faster_rcnn_yolox_tiny_fine_tune.py', 'sniper.py', 'pyramids/hituav.py')


@pytest.fixture
def cfg(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f'_base_ = {[str(BASES / name) for name in FILES]}')
    return load_config(file)


def test_progress_is_seen_after_each_epoch_and_the_best_one_is_kept(cfg):
    assert cfg.train_cfg.val_interval == 1
    assert cfg.train_cfg.max_epochs == 10
    assert cfg.default_hooks.checkpoint.save_best == 'auto'


def test_its_backbone_is_that_of_the_weights_and_its_statistics_stay(cfg):
    assert cfg.model.backbone.init_cfg.checkpoint.rpartition('/')[2].startswith('yolox_tiny_8x8')
    # Of YOLOX-tiny, and with its weights the normalisation is that of COCO.
    assert (cfg.model.backbone.widen_factor, cfg.model.backbone.norm_eval) == (0.375, True)
    model = MODELS.build(cfg.model)
    assert not any(p.requires_grad for n, p in model.backbone.named_parameters() if '.bn.' in n)
    maps = model.extract_feat(torch.zeros(1, 3, 160, 160))
    assert [m.shape[1:] for m in maps] == [(64, s, s) for s in (40, 20, 10, 5, 3)]
