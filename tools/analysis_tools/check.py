"""Check a config, its data and its checkpoint before training; exit status 1 on an error.

An error would train or report something wrong, a warning may, a note is worth knowing. The quick
part of it runs at the start of every training and test. With --images every image file is opened as
training opens it: whether it can be, its size, EXIF orientation, channels and depth. See
docs/checks.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from mmdet.registry import DATA_SAMPLERS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from rich.console import Console
from rich.table import Table

from mmsniper.checks import ERROR, NOTE, WARNING, Finding, merged
from mmsniper.checks.checkpoint_file import check_checkpoint_file, unpickling_fault
from mmsniper.checks.classes import (
    check_checkpoint_classes,
    check_objects,
    check_use,
    check_weights,
)
from mmsniper.checks.config import LOADERS, config_classes, leaves
from mmsniper.checks.images import ImageEntry, check_images, config_loading, image_entries
from mmsniper.checks.run import check_run
from mmsniper.checks.scales import check_scales
from mmsniper.convert import load_config
from mmsniper.datasets.coco_reader import build_checked
from mmsniper.datasets.wrappers import type_name
from mmsniper.utils.command_line import add_config_arguments, at_least, command_parser

COLOURS = {ERROR: 'red', WARNING: 'yellow', NOTE: 'blue'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--images', action='store_true', help='open every image file of training, val and test'
    )
    parser.add_argument('--workers', type=at_least(1), help='threads of --images [the cores]')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='weights that are to be tested: do they fit?'
    )
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> list[Finding]:
    """All findings; what cannot be read or built is one, and the rest goes on."""
    try:
        cfg = load_config(args.config, args.cfg_options)
    except Exception as error:  # of whatever kind: it is what training would end in
        return [_failed(args.config, 'is refused', error)]
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    failed: list[Finding] = []
    loaders = tuple(key for key in LOADERS if cfg.get(key))
    datasets = {}
    for key in loaders:
        try:
            datasets[key] = build_checked(cfg[key].dataset)
        except Exception as error:
            failed.append(_failed(f'{key}.dataset', 'cannot be built', error))
    model = _model(cfg, failed)
    findings = check_run(cfg, loaders, datasets, model)
    # The check before building says it better than what fails in building.
    known = {f.where.partition('.')[0] for f in findings if f.severity == ERROR}
    findings += [f for f in failed if f.where.partition('.')[0] not in known]
    opened: set[tuple[str, ImageEntry]] = set()
    for key, dataset in datasets.items():
        for where, leaf in leaves(dataset, f'{key}.dataset'):
            findings += check_use(leaf, where)
            findings += check_objects(leaf, where)
        if args.images and (loading := config_loading(cfg, key)):
            new = [e for e in image_entries(dataset) if (str(loading), e) not in opened]
            opened |= {(str(loading), entry) for entry in new}
            findings += check_images(new, loading, key, args.workers)
    if 'train_dataloader' in datasets:
        findings += _check_chips(cfg, datasets['train_dataloader'])
    for file, testing in ((args.checkpoint, True), (cfg.get('load_from'), False)):
        if file:
            findings += _check_checkpoint(cfg, file, model if testing else None)
    return merged(findings)


def _failed(where: str, how: str, error: Exception) -> Finding:
    what = str(error).strip() or type(error).__name__
    if not isinstance(error, (ValueError, OSError)):
        what = f'{type(error).__name__}: {what}'
    return Finding(ERROR, where, f'{how}: {what}')


def _model(cfg: Config, failed: list[Finding]) -> Any:
    config = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        config.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        return MODELS.build(config)
    except Exception as error:
        failed.append(_failed('model', 'cannot be built', error))
        return None


def _check_chips(cfg: Config, dataset: Any) -> Iterator[Finding]:
    """Compare their scales, and plan them, as training does at its start."""
    sampler = cfg.train_dataloader.get('sampler')
    if type_name(sampler) == 'ChipAwareSampler':
        yield from check_scales(cfg, dataset)
        try:
            DATA_SAMPLERS.build(dict(sampler, dataset=dataset, seed=0))
        except Exception as error:
            yield _failed('train_dataloader.sampler', 'cannot plan chips', error)


def _check_checkpoint(cfg: Config, file: str, model: Any) -> Iterator[Finding]:
    """Compare a checkpoint with the config and, if it is to be tested, with the model."""
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
        yield _failed(file, 'cannot be read', error)
        return
    classes = next((c for key in LOADERS for c in config_classes(cfg, key, [])), None)
    if classes is not None:
        training = model is None
        yield from check_checkpoint_classes(content, file, classes.names, classes.where, training)
    if model is not None:
        yield from check_weights(model, content, file)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, and how many there are."""
    if findings:
        table = Table('', 'where', 'what', 'what to do', show_lines=True)
        for column in table.columns[1:]:
            column.overflow = 'fold'
        for f in findings:
            kind = f'[{COLOURS[f.severity]}]{f.severity}[/]'
            table.add_row(kind, *(text.replace('[', r'\[') for text in (f.where, f.what, f.fix)))
        console.print(table)
    count = Counter(finding.severity for finding in findings)
    console.print(', '.join(f'{count[kind]} {kind}s' for kind in (ERROR, WARNING, NOTE)))


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Run the command; returns the findings if none is an error."""
    findings = check(parse_args(argv))
    show(findings, Console())
    if any(finding.severity == ERROR for finding in findings):
        sys.exit(1)
    return findings


if __name__ == '__main__':
    main()
