"""The pixels of a training are those of its inputs, in every epoch and on every rank."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from mmsniper.engine import PixelCounterHook, pixel_counter_hook


@pytest.fixture
def runner(request):
    hub = MessageHub(request.node.name)
    return SimpleNamespace(message_hub=hub, logger=logging.getLogger('pixel_counter'))


def train_epoch(hook, runner, *batches):
    for i, shapes in enumerate(batches):
        hook.after_train_iter(runner, i, dict(inputs=[torch.zeros(3, *shape) for shape in shapes]))
    hook.after_train_epoch(runner)


def test_the_inputs_of_all_batches_and_epochs_add_up(runner, caplog):
    hook = PixelCounterHook()
    with caplog.at_level(logging.INFO, 'pixel_counter'):
        train_epoch(hook, runner, [(2, 3), (4, 5)], [(10, 10)])
        assert runner.message_hub.get_info('train_pixels') == 6 + 20 + 100
        train_epoch(hook, runner, [(1000, 2000)])
    assert runner.message_hub.get_info('train_pixels') == 126 + 2_000_000
    assert caplog.messages[-1] == 'trained on 2.0 million pixels so far'


def test_a_resumed_training_goes_on_from_its_checkpoint(runner):
    runner.message_hub.update_info('train_pixels', 500)
    train_epoch(PixelCounterHook(), runner, [(2, 3)])
    assert runner.message_hub.get_info('train_pixels') == 506


def test_the_pixels_of_all_ranks_count(runner, monkeypatch):
    monkeypatch.setattr(pixel_counter_hook, 'all_reduce', lambda seen: seen.mul_(4))
    hook = PixelCounterHook()
    train_epoch(hook, runner, [(2, 3)])
    train_epoch(hook, runner, [(1, 1)])
    assert runner.message_hub.get_info('train_pixels') == 4 * 7
