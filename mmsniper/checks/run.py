"""All checks of a run: before it builds its data, which may fail for what they find, and after."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmsniper.checks.by_hand import check_by_hand
from mmsniper.checks.checkpoint_file import check_checkpoint_file, unpickling_fault
from mmsniper.checks.classes import (
    LabelledData,
    check_checkpoint_classes,
    check_data,
    check_metrics,
    check_plain,
    check_weights,
    config_data,
    labelled_data,
    model_heads,
)
from mmsniper.checks.config import LOADERS, check_config, check_heads, config_classes, leaves
from mmsniper.checks.finding import ERROR, WARNING, Finding, refuse_errors
from mmsniper.checks.scales import check_ranges, check_scales
from mmsniper.checks.voc_files import check_voc_data
from mmsniper.convert.training_chips import samples_chips
from mmsniper.datasets.wrappers import all_configs, type_name
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
        if loaders == TRAINING:
            findings += check_pretrained(cfg)
        if cfg.get('load_from'):
            findings += check_checkpoint_file(str(cfg.load_from))
        return findings

    refuse_errors(made_once(found))


def check_pretrained(cfg: Config) -> Iterator[Finding]:
    """Check that the files are there that parts of a model take their first weights from."""
    for path, part in all_configs({'model': cfg.get('model')}):
        file = part.get('checkpoint') or ''
        if type_name(part) == 'Pretrained' and '://' not in file and not os.path.isfile(file):
            yield Finding(
                ERROR,
                file,
                f'there is no such file of weights, which {path} names',
                f'Put it there, or set {path}=None to start without',
            )


def refuse_weights(cfg: Config) -> None:
    """Check the checkpoint of a test, ``load_from``, before anything is built.

    A model that cannot be built has no weights to compare: the Runner tells why.

    Args:
        cfg (Config): The config, converted, with ``--tta`` or without. Left as it is.

    Raises:
        ValueError: If the weights are not those of the model, or of other classes.
    """
    try:
        model = built_model(cfg)
    except Exception:
        return
    refuse_errors(check_checkpoint(cfg, str(cfg.load_from), model))


def built_model(cfg: Config) -> nn.Module:
    """Build a config's detector, on the CPU, without what ``--tta`` puts around it."""
    config = dict(deepcopy(cfg.model.get('module') or cfg.model))
    if cfg.get('data_preprocessor'):
        config.setdefault('data_preprocessor', deepcopy(cfg.data_preprocessor))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet'):
        return MODELS.build(config)


def check_checkpoint(cfg: Config, file: str, model: nn.Module | None) -> Iterator[Finding]:
    """Compare a checkpoint with the config and, if it is to be tested, with the model.

    Args:
        cfg (Config): The config.
        file (str): The checkpoint; an address is not looked at.
        model (nn.Module | None): The model; None for weights that a training starts from.
    """
    if '://' in file:
        return
    if not Path(file).is_file():
        yield Finding(ERROR, file, 'there is no such checkpoint', 'Name one that exists')
        return
    findings = list(check_checkpoint_file(file))
    if findings:
        yield from findings
        return
    try:
        content = CheckpointLoader.load_checkpoint(file, 'cpu')
    except UnpicklingError as error:
        yield Finding(ERROR, file, unpickling_fault(error))
        return
    except Exception as error:
        yield Finding(ERROR, file, f'cannot be read: {type(error).__name__}: {error}')
        return
    classes = next((c for key in LOADERS for c in config_classes(cfg, key, [])), None)
    if classes is not None:
        training = model is None
        yield from check_checkpoint_classes(content, file, classes.names, classes.where, training)
    if model is not None:
        yield from check_weights(model, content, file)


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
    sampler = (cfg.get('train_dataloader') or {}).get('sampler')
    trained_on = (datasets or {}).get('train_dataloader')
    if trained_on is not None and not samples_chips(sampler):  # it tells itself
        findings += check_scales(cfg, trained_on)
        findings += check_ranges(cfg, trained_on)
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
