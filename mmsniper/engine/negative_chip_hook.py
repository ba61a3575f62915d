"""Mine negative chips inside a training run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmsniper.chips import NegativeChipPool
from mmsniper.datasets import ChipAwareSampler
from mmsniper.engine.schedule import fit_to_epoch_length
from mmsniper.mining import NegativeChipMiner, share_buffers, stored_pool
from mmsniper.utils.checks import check_whole_number

NEGATIVE_CHIPS = 'negative_chips'
"""Key of the message hub: which pool the run draws from, in every checkpoint."""

MINING_PIXELS = 'mining_pixels'
"""Key of the message hub: pixels that the network has seen in mining, beside the training's."""

MINING_CPU_SECONDS = 'mining_cpu_seconds'
"""Key of the message hub: processor time of rank 0 for it, without that of loader workers."""

POOL_FILE = 'negative_chips.npz'


class PoolError(ValueError):
    """The pool that the checkpoint of a resumed run names cannot be had."""


@HOOKS.register_module()
class NegativeChipHook(Hook):
    """After some epochs, mine negative chips and train on them from then on (SNIPER section 3.3).

    At the start of epoch ``warmup_epochs``, counted from 0, the RPN as it is runs over the training
    images, see :class:`~mmsniper.mining.NegativeChipMiner`. The pool is written to
    ``negative_chips.npz`` in the work folder and handed to the :class:`ChipAwareSampler`. Epochs
    then have up to ``chips_per_image`` more chips for every image, to which the schedules are
    fitted (:func:`~mmsniper.engine.schedule.fit_to_epoch_length`).

    Checkpoints name the pool, so that a resumed run loads it. Mining that was interrupted goes on
    where it was, from ``negative_chips.parts/`` in the work folder. With ``placed='anew'`` epochs
    differ in length by a few chips, and the schedules are fitted to each.

    Args:
        warmup_epochs (int): Epochs on positive chips alone, at least 1. Defaults to 2. (The paper's
            two show flipped copies as well: 4 here.)
        interval (int | None): Mine again every so many epochs, into ``negative_chips_epoch_N.npz``.
            Defaults to None, never.
        chips_per_image (int): Negative chips that an epoch takes of an image, at most. Defaults to
            2.
        **mining: Arguments of :class:`~mmsniper.mining.NegativeChipMiner`.

    Raises:
        ValueError: If an argument is out of its range; when training starts, if the detector has
            no RPN.
        TypeError: When training starts, if it is not epoch-based or has no ``ChipAwareSampler``.
        PoolError: When training is resumed, if the pool that the checkpoint names is gone, broken,
            or not the one it was trained with.

    Example:
        >>> custom_hooks = [dict(type='NegativeChipHook', warmup_epochs=2)]
    """

    # Before the hooks that take times, and whatever looks at the epoch's length.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        warmup_epochs: int = 2,
        interval: int | None = None,
        chips_per_image: int = 2,
        **mining: Any,
    ) -> None:
        check_whole_number('warmup_epochs', warmup_epochs, 1)
        check_whole_number('interval', interval, 1, optional=True)
        check_whole_number('chips_per_image', chips_per_image, 1)
        self.warmup_epochs = warmup_epochs
        self.interval = interval
        self.chips_per_image = chips_per_image
        self.miner = NegativeChipMiner(**mining)

    def before_train(self, runner: Runner) -> None:
        """Check that mining will work, and load the pool of a resumed run."""
        sampler = _sampler_of(runner)
        self.miner.check(_detector_of(runner), sampler)
        record = runner.message_hub.runtime_info.get(NEGATIVE_CHIPS)
        if record is None:
            self._warn_if_never_due(runner)
        if record is None or self._is_due(runner.epoch, record):
            return
        sampler.set_epoch(runner.epoch)
        pool = _on_all_ranks(lambda: _recorded_pool(runner, record))
        sampler.set_negatives(pool, self.chips_per_image, name=record['file'])
        fit_to_epoch_length(runner, resumed=True)

    def before_train_epoch(self, runner: Runner) -> None:
        """Mine if it is time to."""
        sampler, model = _sampler_of(runner), _detector_of(runner)
        sampler.set_epoch(runner.epoch)
        if not self._is_due(runner.epoch, runner.message_hub.runtime_info.get(NEGATIVE_CHIPS)):
            if NEGATIVE_CHIPS in runner.message_hub.runtime_info and self.miner.placed == 'anew':
                fit_to_epoch_length(runner)  # which is another one in each epoch
            return
        share_buffers(model)
        name = POOL_FILE
        if runner.epoch > self.warmup_epochs:
            name = f'{Path(POOL_FILE).stem}_epoch_{runner.epoch}.npz'
        start = time.process_time()
        pool = self._pool(runner, model, sampler, Path(runner.work_dir) / name)
        spent = {
            MINING_CPU_SECONDS: time.process_time() - start,
            MINING_PIXELS: self.miner.pixels(sampler),
        }
        sampler.set_negatives(pool, self.chips_per_image)
        record = {'file': name, 'origin': pool.origin, 'epoch': runner.epoch}
        hub = runner.message_hub
        hub.update_info(NEGATIVE_CHIPS, record)
        for key, value in spent.items():
            hub.update_info(key, hub.runtime_info.get(key, 0) + value)
        fit_to_epoch_length(runner)

    def _is_due(self, epoch: int, record: Mapping[str, Any] | None) -> bool:
        """Whether to mine at the start of an epoch, given what was mined last."""
        if record and record['epoch'] == epoch:  # resumed in the middle of the epoch
            return False
        since = epoch - self.warmup_epochs
        return since == 0 or bool(self.interval and since > 0 and since % self.interval == 0)

    def _warn_if_never_due(self, runner: Runner) -> None:
        left = range(runner.epoch, runner.max_epochs)
        if not left or any(self._is_due(epoch, None) for epoch in left):
            return
        why = f'ends after {runner.max_epochs}'
        if runner.epoch > self.warmup_epochs:
            why = f'was resumed at {runner.epoch}, from a checkpoint without negative chips'
        runner.logger.warning(
            f'no negative chips will be mined: with warmup_epochs={self.warmup_epochs} and '
            f'interval={self.interval} NegativeChipHook mines at the start of epoch '
            f'{self.warmup_epochs}, counted from 0, but this training {why}. Set warmup_epochs to '
            f'an epoch that is to come, or leave the hook out (sniper = dict(negative_chips=None))'
        )

    def _pool(
        self, runner: Runner, model: nn.Module, sampler: ChipAwareSampler, file: Path
    ) -> NegativeChipPool:
        """The pool that the file holds, if it is what would be mined now, or else a new one."""
        origin = self.miner.origin(model, sampler)
        parts = file.with_suffix('.parts')
        pool = _on_all_ranks(lambda: stored_pool(file, origin))
        if pool is not None:
            runner.logger.info(f'{file} was mined before: {pool.statistics}')
            if is_main_process():  # killed after the pool was written
                shutil.rmtree(parts, ignore_errors=True)
            return pool
        loader = runner.train_dataloader
        batch_size = loader.batch_sampler.batch_size
        pool = self.miner.mine(
            model,
            sampler,
            batch_pixels=batch_size * sampler.pyramid.chip_size**2,
            num_workers=loader.num_workers,
            parts_dir=parts / origin,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # of shapes that training does not have
        if is_main_process():
            for left in file.parent.glob(f'.{file.name}.*.tmp'):
                left.unlink()  # by a process that was killed while it wrote
            pool.save(file)
            shutil.rmtree(parts, ignore_errors=True)
        runner.logger.info(f'{pool.statistics}; saved to {file}')
        if not pool.statistics.proposals:
            runner.logger.warning(
                f'the RPN proposes nothing in any image, so training goes on without negative '
                f'chips: are the losses numbers (weights of NaN find nothing), and is score_thr of '
                f'NegativeChipHook, {self.miner.score_thr:g}, too high?'
            )
        elif not pool.statistics.chips:
            runner.logger.warning(
                f'no window holds more than {self.miner.min_proposals} proposals outside positive '
                f'chips, so training goes on without negative chips: lower min_proposals of '
                f'NegativeChipHook, or remove the hook'
            )
        return pool


def _sampler_of(runner: Runner) -> ChipAwareSampler:
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        raise TypeError(
            f'NegativeChipHook mines between epochs, which a {type(runner.train_loop).__name__} '
            f'does not have: use EpochBasedTrainLoop, or mine beforehand with '
            f'tools/analysis_tools/mine_negatives.py and give the file to '
            f'ChipAwareSampler(negatives=FILE)'
        )
    sampler = getattr(runner.train_dataloader.batch_sampler, 'sampler', None)
    if not isinstance(sampler, ChipAwareSampler):
        raise TypeError(
            f'NegativeChipHook gives negative chips to a ChipAwareSampler, but the sampler of '
            f'train_dataloader is a {type(sampler).__name__}: use sampler=dict('
            f"type='ChipAwareSampler', pyramid=pyramid)"
        )
    return sampler


def _detector_of(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _on_all_ranks(load: Callable[[], Any]) -> Any:
    """What rank 0 loads, whose files the other ranks may not see."""
    content = [load() if is_main_process() else None]
    broadcast_object_list(content)
    return content[0]


def _recorded_pool(runner: Runner, record: dict[str, Any]) -> NegativeChipPool:
    """The pool that the checkpoint of a resumed run names."""
    folders = [Path(runner.work_dir)]
    if runner._load_from:
        folders.append(Path(runner._load_from).parent)
    files = [folder / record['file'] for folder in folders]
    file = next(filter(Path.is_file, files), None)
    if file is None:
        raise PoolError(
            f'the run to resume was trained with the negative chips of {record["file"]}, which is '
            f'not in {" or ".join(map(str, folders))}: copy it there, or resume from a checkpoint '
            f'of epoch {record["epoch"]} or before to mine again'
        )
    try:
        pool = NegativeChipPool.from_file(file)
    except ValueError as error:
        raise PoolError(str(error)) from error
    if pool.origin != record['origin']:
        raise PoolError(
            f'{file} is not the pool that the run to resume was trained with (it was mined from '
            f'{pool.origin}, that one from {record["origin"]}): put the right file there, or '
            f'resume from a checkpoint of epoch {record["epoch"]} or before to mine again'
        )
    return pool
