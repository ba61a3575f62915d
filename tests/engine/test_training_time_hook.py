"""The time of a training is that of its epochs, and goes on where the last checkpoint stopped."""

from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from mmsniper.engine import TrainingTimeHook, training_time_hook


@pytest.fixture
def clock(monkeypatch):
    """Stand-in for the time module: set ``wall`` and ``cpu``."""
    clock = SimpleNamespace(wall=0.0, cpu=0.0)
    clock.perf_counter, clock.process_time = lambda: clock.wall, lambda: clock.cpu
    monkeypatch.setattr(training_time_hook, 'time', clock)
    return clock


def train_epoch(hook, runner, clock, wall, cpu):
    hook.before_train_epoch(runner)
    clock.wall += wall
    clock.cpu += cpu
    hook.after_train_epoch(runner)


def test_epochs_add_up_and_what_lies_between_them_does_not_count(clock):
    runner = SimpleNamespace(message_hub=MessageHub('time_hook_1'))
    hook = TrainingTimeHook()
    train_epoch(hook, runner, clock, wall=10, cpu=8)
    clock.wall, clock.cpu = clock.wall + 100, clock.cpu + 100  # validation
    train_epoch(hook, runner, clock, wall=20, cpu=15)
    assert runner.message_hub.get_info('train_seconds') == 30
    assert runner.message_hub.get_info('train_cpu_seconds') == 23


def test_a_resumed_training_goes_on_from_its_checkpoint(clock):
    hub = MessageHub('time_hook_2')
    hub.update_info('train_seconds', 50.0)
    hub.update_info('train_cpu_seconds', 40.0)
    train_epoch(TrainingTimeHook(), SimpleNamespace(message_hub=hub), clock, wall=5, cpu=4)
    assert hub.get_info('train_seconds') == 55
    assert hub.get_info('train_cpu_seconds') == 44
