"""All checks of a run: before it builds its data, which may fail for what they find, and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.models import RPN
from mmengine.config import Config
from torch import nn

from mmsniper.checks.by_hand import check_by_hand
from mmsniper.checks.checkpoint_file import check_checkpoint_file
from mmsniper.checks.classes import (
    LabelledData,
    check_data,
    check_metrics,
    check_plain,
    config_data,
    labelled_data,
)
from mmsniper.checks.config import (
    OTHER_CLASSES,
    Head,
    check_config,
    check_heads,
    config_classes,
    leaves,
)
from mmsniper.checks.finding import ERROR, WARNING, Finding, refuse_errors
from mmsniper.checks.scales import check_scales
from mmsniper.checks.voc_files import check_voc_data
from mmsniper.datasets.wrappers import type_name
from mmsniper.utils.made_once import made_once

TRAINING, TESTING = ('train_dataloader', 'val_dataloader'), ('test_dataloader',)
"""The data loaders of a run that trains, and of one that tests."""


def refuse_wrong(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check a config and its annotation files before anything is built.

    Of several processes one of each machine reads the files; all of them must call this.

    Args:
        cfg (Config): The config, converted. Left as it is.
        loaders (tuple[str, ...]): ``TRAINING`` or ``TESTING``.

    Raises:
        ValueError: If something wrong would be trained or tested; the message says all of it.
    """

    def found() -> list[Finding]:
        findings = check_run(cfg, loaders)
        if cfg.get('load_from'):
            findings += check_checkpoint_file(str(cfg.load_from))
        return findings

    refuse_errors(made_once(found))


def check_run(
    cfg: Config,
    loaders: tuple[str, ...],
    datasets: Mapping[str, Any] | None = None,
    model: nn.Module | None = None,
) -> list[Finding]:
    """Check what a run takes from several places, as far as it has been built.

    Args:
        cfg (Config): The config, converted. Left as it is.
        loaders (tuple[str, ...]): Keys of the data loaders that are used, that of training first.
        datasets (dict[str, Any] | None): Data sets that have been built, by the key of their
            loader. Defaults to None: the annotation files are compared with the config.
        model (nn.Module | None): The model, if it has been built. Defaults to None.
    """
    findings = check_config(cfg, loaders)
    data = {key: _data(cfg, key, (datasets or {}).get(key), findings) for key in loaders}
    parts = [part for key in loaders for part in data[key]]
    training = loaders[0] == 'train_dataloader'
    if training:
        findings += check_by_hand(cfg)
    for key in loaders:
        findings += check_voc_data(cfg, key)
        if key != 'train_dataloader':  # what reads that of training tells itself
            for part in data[key]:
                findings += [
                    Finding(WARNING, part.where, f'{part.file.path}: {warning}')
                    for warning in part.file.warnings
                ]
    if not training and any(part.labels not in (None, part.classes) for part in parts):
        # Which file is in the order of the weights? That of training, if it is here.
        parts += config_data(cfg, 'train_dataloader', [])
    findings += check_data(parts, training)
    for key in loaders:
        if key != 'train_dataloader':
            findings += check_plain(part.file for part in data[key])
            findings += check_metrics(cfg, key, data[key])
    classes = [c for key in loaders for c in config_classes(cfg, key, [])]
    if model is not None and classes and not any(f.severity == ERROR for f in findings):
        findings += check_heads(model_heads(model), classes[0])
    sampler = type_name((cfg.get('train_dataloader') or {}).get('sampler'))
    trained_on = (datasets or {}).get('train_dataloader')
    if trained_on is not None and sampler != 'ChipAwareSampler':  # it tells itself
        findings += check_scales(cfg, trained_on)
    return findings


def _data(cfg: Config, key: str, dataset: Any, findings: list[Finding]) -> list[LabelledData]:
    if dataset is None:
        return config_data(cfg, key, findings)
    wrong = {finding.where for finding in findings}  # its classes are not those that were meant
    return [
        part
        for where, leaf in leaves(dataset, f'{key}.dataset')
        if f'{where}.metainfo' not in wrong
        for part in labelled_data(leaf, where, findings)
    ]


def model_heads(model: nn.Module) -> Iterator[Head]:
    """The parts of a model that say of how many classes they are, also by a default."""
    if isinstance(model, RPN):  # its only head is of one class, and called bbox_head
        return
    for name, module in model.named_modules():
        count = getattr(module, 'num_classes', None)
        if isinstance(count, int) and not set(name.split('.')) & OTHER_CLASSES:
            yield Head(f'model.{name}', type_name(module), count)
