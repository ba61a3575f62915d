"""The demo's configs train as they say, and both on the same detector."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from harness.pixel_budget import pixels_per_epoch
from mmsniper.convert import load_config
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SNIPER = CONFIGS / 'sniper' / 'faster_rcnn_r18_sniper_toy.py'
SINGLE_SCALE = CONFIGS / 'baselines' / 'faster_rcnn_r18_single_scale_toy.py'


@pytest.fixture(scope='module')
def toy_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    make_toy_dataset(root, ToyDatasetSpec(num_train=3, num_val=1, min_side=300, max_side=340), 1)
    return root


def moved(node, before, after):
    """The same nested settings with all paths under another folder."""
    if isinstance(node, dict):
        return {key: moved(value, before, after) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(moved(item, before, after) for item in node)
    return node.replace(before, after) if isinstance(node, str) else node


def load(path, toy_root, work_dir):
    """The config on the small data set, without worker processes, one epoch long."""
    cfg = load_config(path)
    assert cfg.data_root == 'work_dirs/toy_data/'
    cfg = Config(moved(cfg.to_dict(), cfg.data_root, f'{toy_root}/'))
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'train_cfg.max_epochs': 1,
            **{
                f'{part}_dataloader.{key}': value
                for part in ('train', 'val', 'test')
                for key, value in (('num_workers', 0), ('persistent_workers', False))
            },
        }
    )
    return cfg


def _numbers(model):
    """Samples and proposals of an input, taken out of a config."""
    train, test = model['train_cfg'], model['test_cfg']
    settings = train['rpn_proposal'], test['rpn']
    numbers = [part.pop(key) for part in settings for key in ('nms_pre', 'max_per_img')]
    return [train['rcnn']['sampler'].pop('num'), *numbers]


def test_both_configs_train_the_same_detector():
    sniper, single = (
        deepcopy(load_config(path).model.to_dict()) for path in (SNIPER, SINGLE_SCALE)
    )
    types = [model['roi_head'].pop('type') for model in (sniper, single)]
    assert types == ['SNIPERRoIHead', 'StandardRoIHead']
    sniper['roi_head'].pop('pyramid')
    assert (sniper['type'], sniper.pop('detector')) == ('PyramidDetector', single['type'])
    sniper['type'] = single['type']
    sniper.pop('pyramid')
    sniper['data_preprocessor'].pop('batch_augments')
    for model, assigner in ((sniper, 'ValidRangeAssigner'), (single, 'MaxIoUAssigner')):
        assert model['train_cfg']['rpn']['assigner'].pop('type') == assigner
    # A chip has fewer objects than an image, and so fewer samples and proposals.
    ours, stock = map(_numbers, (sniper, single))
    assert all(mine < theirs for mine, theirs in zip(ours, stock, strict=True))
    assert sniper == single


def test_both_configs_have_the_same_schedule():
    sniper, single = load_config(SNIPER), load_config(SINGLE_SCALE)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_evaluator', 'randomness'):
        assert sniper[key] == single[key]


def test_every_piece_of_the_sniper_config_has_the_same_pyramid():
    cfg = load_config(SNIPER)
    found = []

    def collect(node):
        if isinstance(node, dict):
            found.extend([node['pyramid']] if 'pyramid' in node else [])
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            for item in node:
                collect(item)

    collect({key: value for key, value in cfg.to_dict().items() if key != 'pyramid'})
    # The model and its RoI head; sampler; ChipSampler and ScaleRangeFilter.
    assert len(found) == 5
    assert all(pyramid == cfg.pyramid.to_dict() for pyramid in found)


@pytest.mark.parametrize('path', [SNIPER, SINGLE_SCALE], ids=['sniper', 'single_scale'])
def test_a_training_counts_its_pixels_and_ends_with_its_schedule(path, toy_root, tmp_path):
    cfg = load(path, toy_root, tmp_path)
    cfg.param_scheduler = cfg.param_scheduler[1:]  # the epoch is shorter than the warm-up
    cfg.train_dataloader.batch_size = 1
    runner = Runner.from_cfg(cfg)
    runner.train()

    hub = runner.message_hub
    planned = pixels_per_epoch(cfg, max_samples=20)
    assert hub.get_info('train_pixels') == pytest.approx(planned, rel=1e-6)
    assert hub.get_info('train_seconds') > 0
    assert (tmp_path / 'epoch_1.pth').is_file()
    losses = [float(v) for v in hub.get_scalar('train/loss').data[0]]
    assert len(losses) > 1
    assert np.isfinite(losses).all()
    # max_epochs alone has shortened the schedule: the cosine is at its last step.
    cosine = (1 + np.cos(np.pi * (1 - 1 / runner.max_iters))) / 2
    expected = 1e-6 + (1e-3 - 1e-6) * cosine
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(expected)
