"""How many pixels a training has cost so far."""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import tensor

TRAIN_PIXELS = 'train_pixels'


@HOOKS.register_module()
class PixelCounterHook(Hook):
    """Count the pixels that the network is trained on, over all ranks and without padding.

    The sum is logged after every epoch and kept in the message hub as ``train_pixels``, so it is in
    every checkpoint and goes on after a resume.
    """

    def __init__(self) -> None:
        self._seen = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Add the batch's pixels."""
        self._seen += sum(img.shape[-2] * img.shape[-1] for img in data_batch['inputs'])

    def after_train_epoch(self, runner: Runner) -> None:
        """Add up the ranks' pixels before the epoch's checkpoint is written."""
        seen = tensor(self._seen)
        all_reduce(seen)
        self._seen = 0
        total = runner.message_hub.runtime_info.get(TRAIN_PIXELS, 0) + seen.item()
        runner.message_hub.update_info(TRAIN_PIXELS, total)
        runner.logger.info(f'trained on {total / 1e6:.1f} million pixels so far')
