"""A run in which config, data and checkpoint differ is refused at its start, not logged."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmsniper.convert import load_config
from mmsniper.engine import ConsistencyHook, SNIPERRunner


def runner_of(config, work_dir, kind=Runner, **options):
    cfg = load_config(config, options)
    cfg.work_dir, cfg.default_scope = str(work_dir), 'mmdet'
    return kind.from_cfg(cfg)


@pytest.fixture
def with_classes(small_run, small_images, tmp_path):
    """A config file of the small training with the categories of its file changed."""

    def write(change, **replacements):
        content = json.loads((small_images / 'ann.json').read_text())
        change(content)
        text = small_run.read_text().replace('ann.json', str(tmp_path / 'changed.json'))
        (tmp_path / 'changed.json').write_text(json.dumps(content))
        for old, new in replacements.items():
            text = text.replace(f'{old}=', f'{new}=')
        (tmp_path / 'changed.py').write_text(text)
        return tmp_path / 'changed.py'

    return write


def test_configs_with_a_pyramid_have_the_hook_once(small_run):
    cfg = load_config(small_run)
    assert [hook.type for hook in cfg.custom_hooks].count('ConsistencyHook') == 1
    assert isinstance(HOOKS.build(dict(type='ConsistencyHook')), ConsistencyHook)


@pytest.mark.parametrize('kind', [Runner, SNIPERRunner])
def test_a_training_of_classes_in_another_order_is_refused(with_classes, tmp_path, kind):
    path = with_classes(lambda content: content['categories'].reverse())
    runner = runner_of(path, tmp_path / 'run', kind)
    with pytest.raises(ValueError, match=r"metainfo=dict\(classes=\('b', 'a'\)\)"):
        runner.train()


def test_heads_of_another_number_are_refused(small_run, tmp_path):
    runner = runner_of(small_run, tmp_path / 'run', **{'model.roi_head.bbox_head.num_classes': 3})
    with pytest.raises(ValueError, match='roi_head.bbox_head.num_classes: is 3'):
        runner.train()


class Loaded:
    """A Runner's part in loading a checkpoint."""

    def __init__(self, cfg, model, resume=False):
        self.cfg, self.model, self._load_from, self._resume = cfg, model, 'c.pth', resume
        self._train_loop = self._val_loop = self._test_loop = None


def test_a_test_refuses_weights_and_classes_that_do_not_fit(small_run):
    cfg = load_config(small_run)
    cfg.test_dataloader = Config(dict(dataset=cfg.train_dataloader.dataset.dataset)).to_dict()
    model = torch.nn.Linear(2, 3)
    hook = ConsistencyHook()
    state = model.state_dict()

    def load(classes, weights, wrapped=model, resume=False):
        content = dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=classes)))
        hook.after_load_checkpoint(Loaded(cfg, wrapped, resume), content)

    load(('a', 'b'), state)
    wrapper = torch.nn.Module()  # as of --tta
    wrapper.module = model
    load(('a', 'b'), state, wrapper)
    with pytest.raises(ValueError, match=r'weight has the shape \(9, 2\), and \(3, 2\)'):
        load(('a', 'b'), dict(state, weight=torch.zeros(9, 2)))
    with pytest.raises(ValueError, match='in another order'):
        load(('b', 'a'), state)


@pytest.fixture
def whole_images(small_run):
    """A function that makes a Runner of the small detector on whole images, as SNIP has them."""

    def runner(work_dir, **dataset):
        cfg = load_config(small_run)
        loader = cfg.train_dataloader
        loader.sampler, loader.batch_sampler = dict(type='DefaultSampler', shuffle=True), None
        pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
        loader.dataset = dict(loader.dataset.dataset, pipeline=pipeline, **dataset)
        cfg.custom_hooks, cfg.work_dir, cfg.default_scope = [], str(work_dir), 'mmdet'
        return Runner.from_cfg(cfg)

    return runner


def test_what_whole_images_use_of_their_file_is_told_as_for_chips(whole_images, tmp_path):
    runner = whole_images(tmp_path)
    assert runner.train_loop
    ConsistencyHook().before_run(runner)
    [log] = tmp_path.glob('*/*.log')
    assert log.read_text().count('12 annotations: 12 used; 8 images: all used') == 1


def test_whole_images_of_which_nothing_is_left_are_refused(whole_images, small_images, tmp_path):
    content = json.loads((small_images / 'ann.json').read_text())
    for annotation in content['annotations']:
        annotation['bbox'][2] = 0
    (tmp_path / 'thin.json').write_text(json.dumps(content))
    runner = whole_images(tmp_path / 'run', ann_file=str(tmp_path / 'thin.json'))
    assert runner.train_loop
    with pytest.raises(ValueError, match='nothing of .*thin.json is left to train on'):
        ConsistencyHook().before_run(runner)
