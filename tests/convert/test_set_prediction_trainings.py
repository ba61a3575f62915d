"""Stock configs with set predictions of several kinds train on chips and are tested."""

import numpy as np
import pytest
from untrained import StatisticsOfBatches

from harness.reduced import reduced
from mmsniper.convert import load_config
from mmsniper.engine import SNIPERRunner
from mmsniper.models import SNIPERDDQDETRHead

CONFIGS = {'DDQ': ('ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py', SNIPERDDQDETRHead)}
PYRAMID = """pyramid = dict(chip_size=96, levels=[
    dict(resize=dict(factor=1.5), valid_range=(0, 24)),
    dict(resize=dict(factor=0.5), valid_range=(16, None))])
"""
MINE = """
_base_ = ['mmdet::{stock}', '{fragment}', '{pyramid}']
sniper = dict(batch_size=2)
here = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{root}/', ann_file='ann.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('a', 'b'))))
train_dataloader = val_dataloader = test_dataloader = here
val_evaluator = test_evaluator = dict(ann_file='{root}/ann.json')
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=10)
param_scheduler = []
model = dict(bbox_head=dict(num_classes=2), test_cfg=dict(max_per_img=30))
default_hooks = dict(checkpoint=dict(by_epoch=False))
"""


@pytest.mark.parametrize('name', CONFIGS)
def test_two_steps_and_a_test(small_images, tmp_path, pytestconfig, name):
    stock, head = CONFIGS[name]
    file, pyramid = tmp_path / 'mine.py', tmp_path / 'pyramid.py'
    pyramid.write_text(PYRAMID)
    fragment = pytestconfig.rootpath / 'configs' / '_base_' / 'sniper.py'
    file.write_text(MINE.format(stock=stock, fragment=fragment, pyramid=pyramid, root=small_images))
    cfg = reduced(load_config(file))
    cfg.update(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name)
    runner = SNIPERRunner.from_cfg(cfg)
    runner.register_hook(StatisticsOfBatches())
    runner.train()
    assert runner.iter == 2
    assert isinstance(runner.model.bbox_head, head)
    log = runner.message_hub.log_scalars
    losses = {key: value.data[0] for key, value in log.items() if 'loss' in key}
    assert 'train/aux_enc_aux_loss_cls' in losses
    assert all(np.isfinite(values).all() for values in losses.values())
    metrics = runner.test()
    assert 'coco/bbox_mAP' in metrics
