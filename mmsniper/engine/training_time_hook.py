"""How long a training has taken so far."""

from __future__ import annotations

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

TRAIN_SECONDS = 'train_seconds'
TRAIN_CPU_SECONDS = 'train_cpu_seconds'


@HOOKS.register_module()
class TrainingTimeHook(Hook):
    """Measure the time of the training iterations, without validation and start-up.

    The message hub keeps ``train_seconds`` and ``train_cpu_seconds`` (of rank 0 without its loader
    workers), so both are in every checkpoint and go on after a resume. What an interrupted run did
    after its last checkpoint is done again, so it is not counted.
    """

    def __init__(self) -> None:
        self._start = (0.0, 0.0)

    def before_train_epoch(self, runner: Runner) -> None:
        """Note the time."""
        self._start = (time.perf_counter(), time.process_time())

    def after_train_epoch(self, runner: Runner, *args: Any) -> None:
        """Add the epoch's time before its checkpoint is written."""
        stop = (time.perf_counter(), time.process_time())
        for key, begin, end in zip((TRAIN_SECONDS, TRAIN_CPU_SECONDS), self._start, stop):
            before = runner.message_hub.runtime_info.get(key, 0.0)
            runner.message_hub.update_info(key, before + end - begin)
