"""What a detector needs to be tested although it has learned nothing."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm


class StatisticsOfBatches(Hook):
    """A detector that has learned nothing has no statistics, and signals die away in it."""

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
