"""Our configs of rotated boxes: what they give, and that the small ones train and are tested."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from mmengine.runner import Runner

from mmsniper.convert.config import load_config
from mmsniper.testing.toy_dataset import ToyDatasetSpec, make_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [
    path.relative_to(ROOT / 'configs').as_posix()
    for path in sorted(ROOT.glob('configs/**/*.py'))
    if re.search('mmrotate|rotated', path.read_text())
]
TRAINED = ['baselines/rotated_faster_rcnn_r18_single_scale_toy.py']
TRAINED += ['sniper/rotated_faster_rcnn_r18_sniper_toy.py']


@pytest.fixture(scope='module')
def frozen():
    file = ROOT / 'tests' / 'frozen' / 'test_frozen_configs.py'
    spec = importlib.util.spec_from_file_location('frozen_configs', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('path', CONFIGS)
def test_the_config_is_the_frozen_one(path, frozen):
    stored = json.loads(frozen.stored_file(path).read_text())
    assert list(frozen.differences(stored, frozen.resolved(path))) == []


@pytest.mark.parametrize('path', TRAINED)
def test_the_configs_of_toy_scenes_train_and_are_tested_by_rotated_overlaps(
    path, tmp_path, monkeypatch
):
    sizes = dict(num_train=2, num_val=1, min_side=240, max_side=280)
    spec = ToyDatasetSpec(rotated=True, **sizes)
    make_toy_dataset(tmp_path / 'work_dirs' / 'toy_rotated_data', spec)
    monkeypatch.chdir(tmp_path)
    options = {
        'work_dir': 'run',
        'train_cfg.max_epochs': 1,
        'log_level': 'ERROR',
        'model.test_cfg.rcnn.max_per_img': 10,
    }
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options.update({f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False})
    runner = Runner.from_cfg(load_config(ROOT / 'configs' / path, options))
    runner.train()
    assert runner.iter >= 1
    found = runner.message_hub.log_scalars
    assert 'val/r_coco/bbox_mAP' in found
