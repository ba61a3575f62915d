"""A training that is resumed elsewhere goes on at the same point, or says what differs."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmsniper.engine.schedule import fit_to_epoch_length

META_KEY = 'sniper'
"""Key of a checkpoint's ``meta`` with what the hook notes there, see :class:`ResumeHook`."""


@HOOKS.register_module()
class ResumeHook(Hook):
    """Carry the schedules on where a run is resumed with epochs of another length.

    With other GPUs or another batch size an epoch has another number of iterations. mmengine
    restores schedules with ``convert_to_iter_based=True`` as they were converted for the old one.
    This hook fits them to the new one (:func:`~mmsniper.engine.schedule.fit_to_epoch_length`), and
    warns of what it cannot mend: a learning rate for another batch size, and an epoch that is
    trained twice, since the checkpoint is from within it. Configs with a pyramid have this hook.

    For that, checkpoints hold in ``meta['sniper']``: ``batch_size``, the inputs of an optimizer's
    step over all GPUs; ``epoch_length``, the iterations of an epoch; and ``into_epoch``, those that
    were done of an unfinished one. Of a checkpoint without them nothing is said.
    """

    # After NegativeChipHook, which may change the length of the epoch that begins.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self._noted: dict[str, int] | None = None
        self._start = 0  # iteration with which the epoch began

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take what the checkpoint to resume from notes."""
        if runner._resume:
            self._noted = checkpoint['meta'].get(META_KEY)

    def before_train_epoch(self, runner: Runner) -> None:
        """In the first epoch of a resumed run compare, fit and warn."""
        self._start = runner.iter
        noted, self._noted = self._noted, None
        if noted is None:
            return
        _warn_of_batch_size(runner, noted['batch_size'])
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            _carry_on(runner, noted['epoch_length'], noted['into_epoch'])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note what a resumed run compares with."""
        meta = checkpoint['meta']
        meta[META_KEY] = dict(
            batch_size=_batch_size(runner),
            epoch_length=len(runner.train_dataloader),
            into_epoch=meta['iter'] - self._start if meta['epoch'] == runner.epoch else 0,
        )


def _batch_size(runner: Runner) -> int:
    """Inputs of an optimizer's step, over all GPUs."""
    # 0 for a batch sampler of one's own that does not tell: then nothing is compared.
    of_gpu = getattr(runner.train_dataloader.batch_sampler, 'batch_size', 0)
    # Several optimizers have a count each, and a training step of their own.
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return of_gpu * counts * get_world_size()


def _warn_of_batch_size(runner: Runner, before: int) -> None:
    now = _batch_size(runner)
    if now == before:
        return
    runner.logger.warning(
        f'the batch size over all GPUs is {now}, but the resumed run had {before}. The learning '
        f"rate is the checkpoint's, for {before}: --auto-scale-lr does not change it. Make it "
        f'{before} again: {before / get_world_size():g} on each GPU, by sniper.batch_size (or '
        f'train_dataloader.batch_size), or by more steps for an update, '
        f'optim_wrapper.accumulative_counts. Or start anew with the weights: '
        f'load_from={runner._load_from} without --resume'
    )


def _carry_on(runner: Runner, before: int, into_epoch: int) -> None:
    """Fit what depends on the length of epochs, which was ``before``."""
    now, epoch = len(runner.train_dataloader), runner.epoch
    fit_to_epoch_length(runner, resumed=now == before, into_epoch=into_epoch / before)
    if now != before:
        runner.logger.info(
            f'an epoch has {now} iterations, in the resumed run it had {before}: schedules that '
            f'are given in epochs go on at epoch {epoch + into_epoch / before:.3g} of '
            f'{runner.max_epochs}'
        )
    if into_epoch:
        runner.logger.warning(
            f'{runner._load_from} is from within epoch {epoch + 1}, after {into_epoch} of '
            f'{before} iterations. This run trains the whole epoch, so those are done twice, and '
            f'the schedules are ahead by as many. Resume from checkpoints of whole epochs: '
            f'default_hooks.checkpoint.by_epoch=True'
        )
