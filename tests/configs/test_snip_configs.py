"""SNIP: SNIPER's levels and ranges on whole images, by stock data set and sampler."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner

from mmsniper.convert import load_config
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.mark.parametrize(
    ('snip', 'sniper'),
    [
        ('faster_rcnn_r101_snip', 'faster_rcnn_r101_sniper'),
        ('faster_rcnn_r18_snip_toy', 'faster_rcnn_r18_sniper_toy'),
    ],
)
def test_it_tests_and_assigns_as_sniper_does_and_makes_no_chips(snip, sniper):
    cfg = load_config(CONFIGS / 'snip' / f'{snip}.py')
    other = load_config(CONFIGS / 'sniper' / f'{sniper}.py')
    for key in ('pyramid', 'tta_model', 'tta_pipeline', 'test_dataloader', 'param_scheduler'):
        assert cfg[key] == other[key], key
    assert cfg.model.roi_head == other.model.roi_head
    assert cfg.model.train_cfg == other.model.train_cfg
    loader = cfg.train_dataloader
    assert (loader.dataset.type, loader.sampler.type) == ('CocoDataset', 'DefaultSampler')
    assert [t.type for t in loader.dataset.pipeline] == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'LevelResize',
        'ScaleRangeFilter',
        'RandomFlip',
        'PackDetInputs',
    ]
    hooks = [hook.type for hook in other.custom_hooks]
    assert [hook.type for hook in cfg.custom_hooks] == [h for h in hooks if h != 'NegativeChipHook']
    assert cfg.model.data_preprocessor.get('batch_augments') is None


def test_the_toy_config_trains_on_whole_images_at_every_level(tmp_path):
    spec = ToyDatasetSpec(num_train=4, num_val=1, min_side=300, max_side=340)
    make_toy_dataset(tmp_path / 'toy', spec, 1)
    cfg = load_config(CONFIGS / 'snip' / 'faster_rcnn_r18_snip_toy.py')
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'w'),
            'train_cfg.max_epochs': 3,
            'train_cfg.val_begin': 9,
            'param_scheduler': [],
            'randomness.seed': 0,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.data_root': f'{tmp_path / "toy"}/',
            'train_dataloader.dataset.filter_cfg.filter_empty_gt': False,
            # Nothing is tested here.
            'val_dataloader': None,
            'val_cfg': None,
            'val_evaluator': None,
            'test_dataloader': None,
            'test_cfg': None,
            'test_evaluator': None,
        }
    )
    runner = Runner.from_cfg(cfg)
    np.random.seed(0)
    shapes, invalid = set(), 0
    for _ in range(6):
        for i in range(4):
            sample = runner.train_dataloader.dataset[i]
            width = sample['inputs'].shape[2]
            shapes.add(round(width / sample['data_samples'].ori_shape[1], 1))
            invalid += int((sample['data_samples'].ignored_instances.labels >= 0).sum())
    assert shapes == {1.0, 0.4, 0.2}
    assert invalid > 0
    runner.train()
    losses = [float(v) for v in runner.message_hub.get_scalar('train/loss').data[0]]
    assert len(losses) == 12
    assert np.isfinite(losses).all()
