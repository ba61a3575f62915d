"""The tables of a comparison: what each contestant costs and reaches, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.comparison import mean, sample_std
from harness.pixel_budget import MINING_COST
from harness.results import markdown_table
from harness.training_run import CPU, DEVICE, MINING_CPU_SECONDS, MINING_PIXELS, TEST, TRAIN

COLUMNS = (
    'config',
    'test',
    'epochs',
    'training Mpx',
    'minutes',
    'CPU minutes',
    'AP',
    'AP50',
    'AP small',
    'AP medium',
    'AP large',
    'AR',
)
_METRICS = ('AP', 'AP50', 'APs', 'APm', 'APl', 'AR')
_MINED = 'mined Mpx'
_WRONG = {'FP@0.5': 'FP at recall 0.5', 'FP@0.9': 'at 0.9'}
_COMPARED = {'AP': 'AP', 'APs': 'AP small', 'AR': 'AR', 'FP@0.5': 'FP at recall 0.5'}


def costs(train: Mapping[str, float]) -> dict[str, float]:
    """What a training costs, mining included.

    Args:
        train (dict): Results of the stage, or their means.

    Returns:
        dict: ``train_pixels`` and ``mining_pixels``; ``pixels``, both together, where those of
        mining count a third; ``seconds`` of training iterations, and ``cpu_seconds`` of both.
    """
    mined = train.get(MINING_PIXELS, 0.0)
    return dict(
        train_pixels=train['train_pixels'],
        mining_pixels=mined,
        pixels=train['train_pixels'] + MINING_COST * mined,
        seconds=train['train_seconds'],
        cpu_seconds=train['train_cpu_seconds'] + train.get(MINING_CPU_SECONDS, 0.0),
    )


def devices(entry: Mapping[str, Any]) -> list[str]:
    """What a contestant's trainings ran on; those that do not say it ran on a CPU."""
    return sorted({run[TRAIN].get(DEVICE, CPU) for run in entry['runs']})


def tested(entry: Mapping[str, Any]) -> Iterator[str]:
    """The stages of a contestant that are tests."""
    return (stage for stage in entry['mean'] if stage != TRAIN)


def best_test(entry: Mapping[str, Any]) -> str:
    """The test of a contestant with the best AP; the first that every one has, if it is that."""
    return max(tested(entry), key=lambda stage: (entry['mean'][stage]['AP'], stage == TEST))


def table_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """The cells of a summary's table, under ``COLUMNS``; one row for each contestant and test."""
    rows = []
    for entry in summary['contestants']:
        if not entry['runs']:
            continue
        cost, spread = costs(entry['mean'][TRAIN]), entry['std']
        elsewhere = '' if devices(entry) == [CPU] else f' ({", ".join(devices(entry))})'
        told = [
            _scaled(cost['train_pixels'], 1e6),
            _scaled(cost['seconds'], 60),
            _scaled(cost['cpu_seconds'], 60) + elsewhere,
        ]
        for stage in tested(entry):
            reached = entry['mean'][stage]
            metrics = [_number(reached[m], spread[stage][m]) for m in _METRICS]
            test = entry['tests'].get(stage, stage)
            rows.append([entry['name'], test, str(entry['epochs']), *told, *metrics])
    return rows


def full_table(summary: Mapping[str, Any]) -> list[list[str]]:
    """The same with its head, and with what not every comparison has: mining, false positives."""
    entries = [entry for entry in summary['contestants'] if entry['runs']]
    head, rows = list(COLUMNS), table_rows(summary)
    if any(MINING_PIXELS in entry['mean'][TRAIN] for entry in entries):
        place = head.index('training Mpx') + 1
        head.insert(place, _MINED)
        for entry, row in zip((e for e in entries for _ in tested(e)), rows):
            row.insert(place, _scaled(entry['mean'][TRAIN].get(MINING_PIXELS, 0.0), 1e6))
    stages = [(entry, stage) for entry in entries for stage in tested(entry)]
    for key, name in _WRONG.items():
        if all(key in entry['mean'][stage] for entry, stage in stages):
            head.append(name)
            for (entry, stage), row in zip(stages, rows):
                row.append(_number(entry['mean'][stage][key], entry['std'][stage][key], 1))
    return [head, *rows]


def differences(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far the first contestant is ahead of each other, seed by seed, in the best test of each.

    Returns:
        list[dict]: ``name`` of the other, the ``seeds`` that both have, and ``mean`` and ``std``
        of the differences of AP, AP small, AR and false positives at a recall of 0.5. Those of
        fewer than two seeds are left out.
    """
    first, *others = summary['contestants']
    if not first['runs']:
        return []
    own = {run['seed']: run[best_test(first)] for run in first['runs']}
    found = []
    for other in others:
        stage = best_test(other) if other['runs'] else TEST
        pairs = [(own[r['seed']], r[stage]) for r in other['runs'] if r['seed'] in own]
        if len(pairs) < 2:
            continue
        ahead = {
            key: [_minus(mine.get(key), theirs.get(key)) for mine, theirs in pairs]
            for key in _COMPARED
        }
        found.append(
            dict(
                name=other['name'],
                seeds=[run['seed'] for run in other['runs'] if run['seed'] in own],
                mean={key: mean(values) for key, values in ahead.items()},
                std={key: sample_std(values) for key, values in ahead.items()},
            )
        )
    return found


def _minus(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def markdown(summary: Mapping[str, Any], title: str, command: str) -> str:
    """A page with the tables of a summary.

    Args:
        summary (dict): From :func:`harness.comparison.summarise`, or with several of them in
            ``parts``.
        title (str): Its heading.
        command (str): The command line that makes it.
    """
    lines = [f'# {title}', '', summary['description'], '', f'Made by `{command}`.', '']
    for part in summary.get('parts', [summary]):
        lines += _part(part, bool(summary.get('parts')))
    return '\n'.join(lines)


def _part(summary: Mapping[str, Any], one_of_several: bool) -> list[str]:
    budget = f'{summary["pixels"] / 1e6:.0f} million training pixels'
    seeds = ', '.join(map(str, summary['seeds']))
    head, *rows = full_table(summary)
    lines = []
    if one_of_several:
        lines += [f'## {budget}, {"seeds" if len(summary["seeds"]) > 1 else "seed"} {seeds}', '']
    lines += [
        f'Each config was trained for the whole number of epochs that comes nearest to {budget} '
        f'(counted before padding; what mining sees counts a third), with {summary["threads"]} '
        f'thread(s) a process. Seeds: {seeds}; the table gives means ± sample standard '
        f'deviations. Minutes are of the training iterations, CPU minutes of mining as well; how '
        f'fast the clock ran depends on what else the machine did, CPU minutes less so. AR is '
        f"COCO's, at 100 detections; FP are false positives per image where that share of the "
        f'objects is found.',
        '',
        *markdown_table(head, rows),
    ]
    ahead = differences(summary)
    if ahead:
        first = summary['contestants'][0]['name']
        ahead_rows = [
            [
                f'{first} - {item["name"]}',
                str(len(item['seeds'])),
                *(
                    _number(item['mean'][key], item['std'][key], 1 if key[:2] == 'FP' else 3)
                    for key in _COMPARED
                ),
            ]
            for item in ahead
        ]
        lines += ['Differences, seed by seed:', '']
        lines += markdown_table(('difference', 'seeds', *_COMPARED.values()), ahead_rows)
    return lines


def _scaled(value: float | None, unit: float) -> str:
    return '-' if value is None else f'{value / unit:.1f}'


def _number(value: float | None, spread: float | None = None, digits: int = 3) -> str:
    if value is None:
        return '-'
    told = f'{value:.{digits}f}'
    return told if spread is None else f'{told} ± {spread:.{digits}f}'
