"""What docs/paper.md says to do when 20 chips do not fit on a GPU: each line trains."""

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import DictAction

from harness.reduced import reduced
from mmsniper.convert import load_config
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'sniper' / 'faster_rcnn_r50_sniper.py'
SECTION = (ROOT / 'docs' / 'paper.md').read_text().partition('## When 20 chips do not fit')[2]
LINES = re.findall(r'^\| [^|]+ \| `([^`]*--cfg-options [^`]+)` \|', SECTION, re.M)


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toy')
    make_toy_dataset(folder, ToyDatasetSpec(num_train=2, num_val=1, min_side=300, max_side=340), 1)
    return folder


def options_of(line):
    parser = argparse.ArgumentParser()
    parser.add_argument('--auto-scale-lr', action='store_true')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(shlex.split(line))


def test_the_page_has_its_lines():
    assert len(LINES) == 5


@pytest.mark.parametrize('line', LINES)
def test_the_line_trains(line, toy, tmp_path, load_tool):
    options = options_of(line)
    small = {'pyramid.chip_size': 128, 'auto_scale_lr.enable': options.auto_scale_lr}
    cfg = load_config(CONFIG, options.cfg_options | small)
    for name, value in options.cfg_options.items():
        if name != 'sniper.batch_size':
            assert value_of(cfg, name) == value, name
    chips = options.cfg_options.get('sniper.batch_size', 20)
    assert cfg.train_dataloader.batch_size == chips
    # A line that scales the learning rate has a warm-up of as many chips as without it.
    if options.auto_scale_lr:
        load_tool('train').check_base_batch_size(cfg)
        end = options.cfg_options.get('param_scheduler.0.end')
        assert end in (None, 1000 * 20 / chips)

    cfg = reduced(cfg)
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'model.roi_head.bbox_head.num_classes': 4,
            'launcher': 'none',
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_size': 2,
            'train_dataloader.dataset.dataset.data_root': f'{toy}/',
            'train_dataloader.dataset.dataset.ann_file': 'annotations/train.json',
            'train_dataloader.dataset.dataset.data_prefix.img': 'train/',
            'train_dataloader.dataset.dataset.metainfo': dict(
                classes=('disc', 'ring', 'square', 'cross')
            ),
            'train_cfg.max_epochs': 1,
            'val_dataloader': None,
            'val_cfg': None,
            'val_evaluator': None,
        }
    )
    runner = load_tool('_launch').build_runner(cfg)
    runner.train()
    losses = [float(v) for v in runner.message_hub.get_scalar('train/loss').data[0]]
    assert len(losses) >= 2
    assert np.isfinite(losses).all()


def value_of(cfg, name):
    for key in name.split('.'):
        cfg = cfg[int(key)] if key.isdigit() else cfg[key]
    return cfg
