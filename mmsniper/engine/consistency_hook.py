"""A run starts only if its data, model, metrics and checkpoint say the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmsniper.checks import NOTE, Finding, refuse_errors
from mmsniper.checks.classes import (
    check_checkpoint_classes,
    check_numbers,
    check_use,
    check_weights,
    saved_weights,
)
from mmsniper.checks.config import config_classes, leaves
from mmsniper.checks.run import TESTING, TRAINING, check_run
from mmsniper.datasets.wrappers import all_datasets, read_datasets, type_name
from mmsniper.utils.made_once import made_once


@HOOKS.register_module()
class ConsistencyHook(Hook):
    """Refuse to train or test something wrong.

    Compared are the number of classes in heads and data, the names and the order of classes in
    metainfo, annotation files and checkpoint, the files of metrics and data sets, and, in a test,
    the shapes of weights (docs/checks.md). Configs with a pyramid have this hook.

    Raises:
        ValueError: At the start of the run; the message lists all that is wrong. What may be right
            is logged as warnings.
    """

    # Before hooks that use weights, such as EMAHook, change the checkpoint.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Check what has been built."""
        loaders = _loaders(runner)
        datasets = {
            key: loop.dataloader.dataset
            for key in loaders
            if isinstance(loop := _loop(runner, key), BaseLoop)
        }
        used = tuple(key for key in loaders if key in datasets)
        if used:
            model = _unwrapped(runner.model)
            _refuse(made_once(lambda: check_run(runner.cfg, used, datasets, model)))
        for where, part in _unread_parts(datasets.get(TRAINING[0])):
            findings = made_once(lambda part=part, where=where: list(check_use(part, where)))
            for finding in findings:
                if finding.severity == NOTE and is_main_process():
                    print_log(finding.what, logger='current')
            _refuse(findings)

    def after_load_checkpoint(self, runner: Runner, checkpoint: Mapping[str, Any]) -> None:
        """Compare the checkpoint with the config's classes and, in a test, with the model."""
        loaders = _loaders(runner)
        file, testing = str(runner._load_from or 'the checkpoint'), loaders == TESTING
        findings: list[Finding] = []
        classes = next((c for key in loaders for c in config_classes(runner.cfg, key, [])), None)
        if classes is not None:
            findings += check_checkpoint_classes(
                checkpoint, file, classes.names, classes.where, training=not testing
            )
        model = _unwrapped(runner.model)
        if testing or runner._resume:
            findings += check_weights(model, checkpoint, file)
        else:
            findings += check_numbers(model, saved_weights(checkpoint), file)
        _refuse(findings)


def _refuse(findings: Iterable[Finding]) -> None:
    refuse_errors(findings, log=is_main_process())


def _unread_parts(dataset: Any) -> Iterator[tuple[str, Any]]:
    """The data sets below any wrappers, but those that ``ChipDataset`` has read and told of."""
    told = {
        id(part)
        for chips in all_datasets(dataset)
        if type_name(chips) == 'ChipDataset'
        for part in read_datasets(chips)
        if isinstance(part, CocoDataset)
    }
    for where, part in leaves(dataset, f'{TRAINING[0]}.dataset'):
        if id(part) not in told:
            yield where, part


def _loaders(runner: Runner) -> tuple[str, ...]:
    """The data loaders of the run: a test builds no loop that trains."""
    return TRAINING if isinstance(_loop(runner, TRAINING[0]), BaseLoop) else TESTING


def _loop(runner: Runner, loader: str) -> Any:
    """The loop of a data loader, or its config if this run has not built it."""
    return getattr(runner, f'_{loader.partition("_")[0]}_loop')


def _unwrapped(model: nn.Module) -> nn.Module:
    """The detector inside wrappers for several processes and of ``--tta``."""
    while is_model_wrapper(model) or isinstance(getattr(model, 'module', None), nn.Module):
        model = model.get_submodule('module')
    return model
