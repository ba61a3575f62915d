"""Keep a training's schedule right when the length of its epochs changes on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import Runner

# The state that says where a scheduler is; the rest says what it is.
_PROGRESS = ('last_step', '_global_step', '_last_value')


def fit_to_epoch_length(runner: Runner, *, resumed: bool = False, into_epoch: float = 0.0) -> None:
    """Fit the end of training and the schedules to the present length of an epoch.

    mmengine counts the iterations of a training once, at its start. Call this at the start of the
    first epoch of another length. It corrects ``runner.max_iters``, from which the time left is
    computed, and carries the schedules on where they are:

    - given in epochs and converted (``convert_to_iter_based=True``): they reach every point at the
      same epoch as before;
    - in iterations without an ``end``: they end with the training;
    - in iterations with an ``end``, or by epoch: as they were.

    Args:
        runner (Runner): An epoch-based run, at the start of an epoch.
        resumed (bool): Leave the schedules: they are those of a checkpoint that knew of this
            length. Defaults to False.
        into_epoch (float): By which part of an epoch the schedules are ahead of its start. Defaults
            to 0.0.
    """
    loop = runner.train_loop
    left = runner.max_epochs - runner.epoch
    # The loop has no other way to be told.
    loop._max_iters = runner.iter + left * len(loop.dataloader)
    runner.message_hub.update_info('max_iters', runner.max_iters)
    # Gradient accumulation completes its last step at the end of training.
    runner.optim_wrapper.initialize_count_status(runner.model, runner.iter, runner.max_iters)
    if not resumed and runner.param_schedulers and runner.cfg.get('param_scheduler'):
        runner.param_schedulers = _rebuilt(runner, into_epoch)


def _rebuilt(runner: Runner, into_epoch: float) -> Any:
    """The schedules for the new length, at the point where the old ones are."""
    old, config = runner.param_schedulers, runner.cfg.param_scheduler
    with _values_kept(runner.optim_wrapper):
        new = runner.build_param_scheduler(config)
    steps = round((runner.epoch + into_epoch) * len(runner.train_dataloader))
    if not isinstance(new, Mapping):
        return _carried_on(new, old, config, steps)
    apart = isinstance(config, Mapping) and 'type' not in config  # each optimizer has its own
    return {
        name: _carried_on(schedulers, old[name], config[name] if apart else config, steps)
        for name, schedulers in new.items()
    }


def _carried_on(
    new: list[_ParamScheduler], old: list[_ParamScheduler], config: Any, steps: int
) -> list[_ParamScheduler]:
    """Of each schedule the new one, at the old one's point, if the length of epochs matters to it.

    The others stay, with all that they remember (``ReduceOnPlateauLR`` its best metric).
    """
    configs = config if isinstance(config, Sequence) else [config]
    schedulers = []
    for scheduler, before, given in zip(new, old, configs, strict=True):
        converted = given.get('convert_to_iter_based', False)
        if not converted and (scheduler.by_epoch or 'end' in given):
            schedulers.append(before)
            continue
        state = {k: v for k, v in before.state_dict().items() if k in _PROGRESS}
        if converted:
            begun = steps >= scheduler.begin
            state['_global_step'] = steps
            state['last_step'] = min(steps, scheduler.end - 1) - scheduler.begin if begun else -1
        scheduler.load_state_dict(state)
        schedulers.append(scheduler)
    return schedulers


@contextmanager
def _values_kept(optim_wrapper: OptimWrapper) -> Iterator[None]:
    """Undo what a scheduler does to learning rates and the like when it is built."""
    groups = optim_wrapper.param_groups
    if isinstance(groups, Mapping):  # of several optimizers
        groups = [group for some in groups.values() for group in some]
    before = [dict(group) for group in groups]
    yield
    for group, values in zip(groups, before, strict=True):
        group.update({k: v for k, v in values.items() if k != 'params'})
