"""The curves of a training, from what mmengine has written into its work folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Curve = tuple[list[float], list[float]]
"""x and y of its points."""

_SCALARS = '*/vis_data/scalars.json'
_LOSS, _METRIC = 'loss', 'mAP'


@dataclass(frozen=True)
class TrainingLog:
    """The curves of a training.

    Attributes:
        losses: Each loss over iterations, the sum first.
        metrics: Each AP, as the metric calls it, over epochs, or over iterations in trainings
            without epochs; where COCO's evaluation had nothing to say (-1), there is no point.
        runs: Number of runs that the folder has logs of: a resumed training has several.
        by_epoch: Whether the training counts epochs.
    """

    losses: Mapping[str, Curve]
    metrics: Mapping[str, Curve]
    runs: int
    by_epoch: bool


def read_training_log(work_dir: Path) -> TrainingLog:
    """Read the curves of a work folder.

    Of several runs in it, a later one replaces the earlier from its first iteration on, so that a
    resumed training is one curve.

    Args:
        work_dir (Path): The work folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no log in it.
        ValueError: If a log is none.
    """
    if not work_dir.is_dir():
        raise FileNotFoundError(f'there is no work folder {work_dir}')
    files = sorted(work_dir.glob(_SCALARS))
    if not files:
        raise FileNotFoundError(
            f'{work_dir} has no log of a training, {_SCALARS}: name the folder that the training '
            f'has written its checkpoints to'
        )
    training: dict[float, dict[str, float]] = {}
    testing: dict[float, dict[str, float]] = {}
    runs = 0
    for file in files:
        rows = list(_rows(file))
        runs += bool(rows)
        for kind, is_training in ((training, True), (testing, False)):
            mine = {row['step']: row for row in rows if ('iter' in row) is is_training}
            first = min(mine, default=float('inf'))
            for step in [step for step in kind if step >= first]:
                del kind[step]
            kind.update(mine)
    losses = _curves(training, lambda name: _LOSS in name)
    metrics = _curves(testing, lambda name: _METRIC in name)
    by_sum_first = dict(sorted(losses.items(), key=lambda item: item[0] != _LOSS))
    by_epoch = any('epoch' in row for row in training.values())
    return TrainingLog(by_sum_first, metrics, runs, by_epoch)


def _rows(file: Path) -> Iterator[dict[str, float]]:
    """The entries of a log; a killed run may have left its last one unfinished."""
    lines = file.read_text('utf-8', 'replace').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            if number < len(lines):
                raise ValueError(
                    f'{file}: line {number} is no JSON, as logs of a training are'
                ) from None
            return
        if isinstance(row, dict) and isinstance(row.get('step'), int | float):
            yield row


def _curves(
    rows: Mapping[float, Mapping[str, float]], wanted: Callable[[str], bool]
) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for step in sorted(rows):
        for name, value in rows[step].items():
            if wanted(name) and isinstance(value, int | float) and value != -1:
                xs, ys = curves.setdefault(name, ([], []))
                xs.append(step)
                ys.append(value)
    return curves
