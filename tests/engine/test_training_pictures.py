"""Which pictures of a training reach a backend of MMDetection's visualizer."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import VISBACKENDS, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import BaseVisBackend

from mmsniper.chips import NEGATIVE
from mmsniper.convert import load_config

EPOCHS, WARMUP = 3, 1


class RecordingBackend(BaseVisBackend):
    """Keeps what TensorBoard or W&B would be given."""

    pictures: list

    @property
    def experiment(self):
        return self

    def _init_env(self):
        pass

    def add_image(self, name, image, step=0, **_):
        self.pictures.append((name, step, image))


class Batches(Hook):
    """Keeps the chips of each epoch as they go into the data preprocessor: name, and RGB."""

    def __init__(self):
        self.epochs = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        chips = self.epochs.setdefault(runner.epoch, [])
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            kind = 'negative' if sample.chip.kind == NEGATIVE else 'train'
            rgb = image.numpy().transpose(1, 2, 0)[..., ::-1]
            chips.append((f'{kind}_chips/level_{sample.level}', rgb))


@pytest.fixture(scope='module')
def trained(small_run_file, tmp_path_factory):
    """A training with pictures: its config, its batches, and what the backend was given."""
    folder = tmp_path_factory.mktemp('pictures')
    RecordingBackend.pictures = []
    VISBACKENDS.register_module(module=RecordingBackend, force=True)
    cfg = load_config(small_run_file)
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(folder), folder.name, 'WARNING'
    cfg.custom_hooks[0].warmup_epochs = WARMUP
    cfg.train_cfg.update(max_epochs=EPOCHS, val_interval=EPOCHS)
    read = cfg.train_dataloader.dataset.dataset
    pack = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))
    pipeline = [dict(type='LoadImageFromFile'), pack]
    data = dict(read, test_mode=True, pipeline=pipeline)
    sampler = dict(type='DefaultSampler', shuffle=False)
    cfg.val_dataloader = dict(batch_size=1, num_workers=0, sampler=sampler, dataset=data)
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=f'{read.data_root}/ann.json')
    cfg.val_cfg = dict()
    cfg.model.update(type='PyramidDetector', detector='FasterRCNN', pyramid=cfg.pyramid)
    # What the page says.
    cfg.default_hooks.visualization.update(draw=True, interval=4)
    cfg.visualizer.update(name=folder.name, vis_backends=[dict(type='RecordingBackend')])
    init_default_scope('mmdet')
    runner = Runner.from_cfg(cfg)
    batches = Batches()
    runner.register_hook(batches)
    runner.train()
    return batches.epochs, RecordingBackend.pictures


def test_each_epoch_has_a_picture_of_each_level_and_negative_chips_from_mining_on(trained):
    epochs, pictures = trained
    names = Counter(name for name, *_ in pictures if 'chips' in name)
    seen = Counter(chain.from_iterable({name for name, _ in chips} for chips in epochs.values()))
    assert names == seen
    assert names['train_chips/level_0'] == names['train_chips/level_1'] == EPOCHS
    assert names['negative_chips/level_0'] == EPOCHS - WARMUP


def test_the_validation_has_a_picture_of_the_merged_detections_and_of_each_level(trained):
    names = [name for name, *_ in trained[1] if 'chips' not in name]
    assert set(names) == {'val_img', 'val_img/level_0', 'val_img/level_1'}
    assert names.count('val_img') == 2  # of 8 images, every fourth
    shapes = {name: image.shape for name, _, image in trained[1]}
    height, width, _ = shapes['val_img/level_0']
    assert shapes['val_img'] in ((height, 2 * width, 3), (height, width, 3))


def test_pictures_are_in_the_order_of_the_training(trained):
    steps = [step for *_, step, _ in trained[1]]
    assert steps == sorted(steps)
    assert all(image.dtype == np.uint8 for *_, image in trained[1])


def test_the_first_chip_of_a_picture_is_what_the_network_saw_first(trained):
    epochs, pictures = trained
    for epoch, chips in epochs.items():
        for name in dict(chips):
            drawn = [image for other, _, image in pictures if other == name]
            drawn = drawn[epoch - EPOCHS]  # negatives have none of the first epochs
            chip = next(rgb for other, rgb in chips if other == name)
            height, width, _ = chip.shape
            enlarged = chip.repeat(4, axis=0).repeat(4, axis=1)
            first = drawn[24 : 24 + 4 * height, 9 : 9 + 4 * width]
            # Noise, but for the frame, boxes and names.
            assert (first == enlarged).all(axis=2).mean() > 0.5, name
