"""What has become slower: short forms of the measurements in benchmarks/, against a reference.

Runs one script after the other, with few images and rounds, and compares *ratios* of two things
that were measured side by side in one run with those in benchmarks/results/bench.json, in processor
time wherever it can be told. A ratio is worse if it is above the median of the reference's runs by
more than 25% (of memory 10%, of what is counted 2%), or by more than three times the spread of
those runs, largest minus smallest, whichever is more. What looks worse is run twice more, and the
median of the three counts.

Where one of two things has become faster, the ratio of the other to it gets worse: look at both. On
another kind of machine ratios are others, so make a reference of your own before you change
something:

    python benchmarks/bench.py --update --reference work_dirs/before.json
    python benchmarks/bench.py --reference work_dirs/before.json
    python benchmarks/bench.py --only planning mining

Exit status: 1 if something got worse, is not measured any more, or a script failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from harness.results import machine
from harness.short_runs import (
    COUNT,
    MEMORY,
    SPREADS,
    TIME,
    Measurement,
    Ratio,
    Row,
    Run,
    compare,
    run_once,
)
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error
from mmsniper.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / 'benchmarks/results/bench.json'
REPEATS_OF_REFERENCE = 3
MORE_RUNS = 2
"""Of what looks worse."""

RULE = (
    f'Limit: the median of the reference and {TIME.tolerance:.0%} (memory {MEMORY.tolerance:.0%}, '
    f'counts {COUNT.tolerance:.0%}), or {SPREADS} times the spread of its runs if that is more.'
)


def named(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The one row that has these values."""
    (found,) = (row for row in rows if wanted.items() <= row.items())
    return found


def of_way(result: dict[str, Any], name: str) -> float:
    """Processor time of a way of inference.py, AutoFocus's = 1."""
    return named(result['sizes'][0]['rows'], name=name)['cpu']


def of_chip(result: dict[str, Any], loader: str, overviews: bool = False) -> float:
    """Processor time of a chip in window_reading.py."""
    scene = f'{result["side"]}{"_overviews" if overviews else ""}.tif'
    return named(result['runs'], what='a chip', scene=scene, loader=loader)['cpu_seconds']


def of_infer(result: dict[str, Any], loader: str) -> dict[str, Any]:
    """The row of infer.py in window_reading.py, on the scene without overviews."""
    return named(result['runs'], what='infer.py', scene=f'{result["side"]}.tif', loader=loader)


def of_loader(result: dict[str, Any], loader: str) -> dict[str, Any]:
    """The row of a transform in large_images.py."""
    return named(result['runs'], loader=loader, workers=1)


def of_start(result: dict[str, Any], processes: int) -> dict[str, Any]:
    """The row of a number of processes in start_up.py."""
    return named(result['runs'], processes=processes)


def of_step(detector: str) -> tuple[Ratio, ...]:
    """What SNIPER adds to a training step on the same chips."""

    def step(result: dict[str, Any]) -> float:
        variants = result['detectors'][detector]['variants']
        return variants['A']['cpu_step'] / variants['B']['cpu_step']

    def count(result: dict[str, Any], what: str) -> float:
        counted = result['detectors'][detector]['synchronisations'][what]
        return counted['A'] / counted['B']

    return (
        Ratio(f'{detector}: step, SNIPER / stock', step),
        Ratio(f'{detector}: operations', lambda result: count(result, 'operations'), COUNT),
        Ratio(f'{detector}: waits for a GPU', lambda result: count(result, 'totals'), COUNT),
    )


MEASUREMENTS = (
    Measurement(
        'planning.py',
        '--built-in --images 1000 8000 --grid-images 1000 --scenes 2 --negatives 30 --repeats 3',
        (
            Ratio(
                'first epoch / grid',
                lambda r: r['runs'][0]['ms_per_image_cpu'] / r['runs'][0]['ms_grid_cpu'],
            ),
            Ratio(
                'first epoch, image of 8000 / of 1000',
                lambda r: r['runs'][1]['ms_per_image_cpu'] / r['runs'][0]['ms_per_image_cpu'],
            ),
            Ratio(
                'later epoch / first epoch',
                lambda r: r['runs'][1]['ms_later_epochs_cpu'] / r['runs'][1]['ms_per_image_cpu'],
            ),
            Ratio(
                'dense scene / 1000 images, grid',
                lambda r: r['scenes'][1]['seconds_cpu'] / r['runs'][0]['ms_grid_cpu'],
            ),
            Ratio(
                "image's negative chips / grid",
                lambda r: r['negatives'][0]['ms_median_cpu'] / r['runs'][0]['ms_grid_cpu'],
            ),
        ),
    ),
    Measurement(
        'start_up.py',
        '--built-in --images 5000 --processes 1 2',
        (
            Ratio(
                'plan / read',
                lambda r: (
                    of_start(r, 1)['first_cpu_seconds_plan']
                    / of_start(r, 1)['first_cpu_seconds_read']
                ),
            ),
            Ratio(
                'plan, first of two / one alone',
                lambda r: (
                    of_start(r, 2)['first_cpu_seconds_plan']
                    / of_start(r, 1)['first_cpu_seconds_plan']
                ),
            ),
            Ratio(
                'read, second of two / first',
                lambda r: (
                    of_start(r, 2)['others_cpu_seconds_read']
                    / of_start(r, 2)['first_cpu_seconds_read']
                ),
            ),
        ),
    ),
    Measurement(
        'loading.py',
        '--photos 2 --chips 24 --rounds 3',
        (Ratio('chip, kept image / decoded', lambda r: 1 / r['rows'][-1]['times_faster']),),
    ),
    Measurement(
        'large_images.py',
        '--side 6000 --formats jpg --workers 1 --objects 300 --folder {folder}',
        (
            Ratio(
                'chip, large image / stock',
                lambda r: (
                    of_loader(r, 'LoadLargeImageFromFile')['cpu_seconds_per_chip']
                    / of_loader(r, 'LoadImageFromFile')['cpu_seconds_per_chip']
                ),
            ),
            Ratio(
                'memory, large image / decoded',
                lambda r: of_loader(r, 'LoadLargeImageFromFile')['peak'],
                MEMORY,
            ),
        ),
    ),
    Measurement(
        'window_reading.py',
        '--side 8000 --large-side 2000 --objects 200 --folder {folder}',
        (
            Ratio(
                'chip, windows / decoded',
                lambda r: of_chip(r, 'LoadImageWindows') / of_chip(r, 'LoadLargeImageFromFile'),
            ),
            Ratio(
                'chip, overviews / none',
                lambda r: of_chip(r, 'LoadImageWindows', True) / of_chip(r, 'LoadImageWindows'),
            ),
            Ratio(
                'infer.py, windows / decoded',
                lambda r: (
                    of_infer(r, 'windows')['cpu_seconds'] / of_infer(r, 'decoded')['cpu_seconds']
                ),
            ),
            Ratio(
                'infer.py, memory',
                lambda r: (
                    of_infer(r, 'windows')['peak_bytes'] / of_infer(r, 'decoded')['peak_bytes']
                ),
                MEMORY,
            ),
        ),
        needs='rasterio',
    ),
    Measurement(
        'mining.py',
        '--toy-scenes --images 4 --repeats 5',
        (
            Ratio('mining / whole detector', lambda r: r['ratios']['detector_cpu']),
            Ratio('mining / RPN', lambda r: r['ratios']['rpn_cpu']),
        ),
    ),
    Measurement(
        'inference.py',
        '--random-weights --sizes 1 --rounds 3 --without-sahi --device cpu --folder {folder}',
        (
            Ratio('AutoFocus / one scale', lambda r: 1 / of_way(r, 'one scale, 500 px')),
            Ratio(
                'full pyramid / one scale',
                lambda r: of_way(r, 'full pyramid') / of_way(r, 'one scale, 500 px'),
            ),
            Ratio(
                'windows together / AutoFocus',
                lambda r: of_way(r, 'all scenes and unlike windows together, 1.5'),
            ),
        ),
    ),
    Measurement(
        'training_step.py',
        '--device cpu --small-chips --workers 0 --rounds 6 --warmup 1 '
        '--configs faster_rcnn_r50 retinanet_r50 rtmdet_s',
        (*of_step('faster_rcnn_r50'), *of_step('retinanet_r50'), *of_step('rtmdet_s')),
    ),
)
LEFT_OUT = {
    'for a GPU': ('python benchmarks/gpu_training.py', 'python benchmarks/training_step.py'),
    'accuracy, with trainings of minutes to hours (docs/benchmarks.md)': (
        'python benchmarks/compare_training.py PRESET',
        'python benchmarks/negatives.py',
        'python benchmarks/overfit.py',
        'python benchmarks/nms_control.py',
        'python benchmarks/autofocus.py DATA CHECKPOINT',
        'python benchmarks/autofocus_release.py DATA CHECKPOINT',
    ),
}


def parse_args(
    argv: Sequence[str] | None = None, measurements: Sequence[Measurement] = MEASUREMENTS
) -> argparse.Namespace:
    names = [measurement.name for measurement in measurements]
    parser = command_parser(__doc__)
    parser.add_argument(
        '--only', nargs='+', choices=names, default=names, metavar='NAME', help='measure these'
    )
    parser.add_argument(
        '--repeats',
        type=at_least(1),
        help=f'runs of each, of which the median counts [1, with --update {REPEATS_OF_REFERENCE}]',
    )
    parser.add_argument('--update', action='store_true', help='make these runs the reference')
    parser.add_argument('--reference', type=Path, default=REFERENCE, help='JSON file')
    args = parser.parse_args(argv)
    args.repeats = args.repeats or (REPEATS_OF_REFERENCE if args.update else 1)
    return args


def read_reference(args: argparse.Namespace) -> dict[str, Any]:
    """What the reference has of each measurement, by its name."""
    if args.reference.is_file():
        return json.loads(args.reference.read_text('utf-8'))['measurements']
    if args.update:
        return {}
    raise ValueError(f'there is no reference {args.reference}: make it, with --update')


def ratios_of(reference: Mapping[str, Any], measurement: Measurement) -> dict[str, list[float]]:
    """The reference's ratios of a measurement; none if its short form was another."""
    entry = reference.get(measurement.name, {})
    return entry['ratios'] if entry.get('options') == measurement.options else {}


def measure(
    measurement: Measurement, reference: Mapping[str, Sequence[float]], args: argparse.Namespace
) -> list[Run]:
    """Run a measurement, again if something looks worse, until it fails."""
    runs: list[Run] = []
    wanted = args.repeats
    while len(runs) < wanted and not (runs and runs[-1].fault):
        runs.append(run_once(measurement))
        if len(runs) == args.repeats and not args.update:
            rows = compare(measurement, reference, runs)
            wanted += MORE_RUNS * any(row.bad and row.now is not None for row in rows)
    return runs


def told(measurement: Measurement, runs: Sequence[Run]) -> str:
    """A line about the runs of a measurement, with rich's markup."""
    seconds, cpu = (sum(getattr(run, name) for run in runs) for name in ('seconds', 'cpu_seconds'))
    times = f', {len(runs)} runs' if len(runs) > 1 else ''
    line = f'{measurement.name}: {seconds:.0f} s, processor {cpu:.0f} s{times}'
    fault = runs[-1].fault
    return f'{line}, [red]failed[/]: {escape(fault)}' if fault else line


def as_table(rows: Sequence[Row]) -> Table:
    """The verdicts."""
    table = Table('measurement, ratio', 'reference', 'limit', 'now', 'verdict')
    for previous, row in zip([None, *rows], rows):
        if previous is None or previous.measurement != row.measurement:
            table.add_row(f'[bold]{row.measurement}[/]')
        numbers = (
            '' if number is None else f'{number:.3g}'
            for number in (row.reference, row.most, row.now)
        )
        verdict = f'[red]{row.verdict}[/]' if row.bad else row.verdict
        table.add_row(f'  {escape(row.ratio)}', *numbers, verdict)
    return table


def other_facts(reference: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """In what the machine of the reference differs from this one."""
    differing = {
        f'{key} {entry["machine"].get(key)}, here {facts[key]}'
        for entry in reference.values()
        for key in facts
        if key != 'load_before' and entry['machine'].get(key) != facts[key]
    }
    return '; '.join(sorted(differing))


def written(
    measurements: Sequence[Measurement],
    reference: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The new reference: what was not measured, or failed, stays as it was."""
    entries = dict(reference)
    for measurement in measurements:
        found = runs.get(measurement.name, ())
        if found and not any(run.fault for run in found):
            entries[measurement.name] = dict(
                options=measurement.options,
                machine=dict(facts),
                seconds=[round(run.seconds, 1) for run in found],
                cpu_seconds=[round(run.cpu_seconds, 1) for run in found],
                ratios={
                    ratio.name: [
                        run.ratios[ratio.name] for run in found if ratio.name in run.ratios
                    ]
                    for ratio in measurement.ratios
                },
            )
    names = [measurement.name for measurement in measurements]
    return dict(
        command='python benchmarks/bench.py --update',
        measurements={name: entries[name] for name in names if name in entries},
    )


@exit_on_error()
def main(
    argv: Sequence[str] | None = None, measurements: Sequence[Measurement] = MEASUREMENTS
) -> int:
    """Measure, compare and tell; returns the exit status."""
    args, console, start = parse_args(argv, measurements), Console(), time.perf_counter()
    reference = read_reference(args)
    facts = machine(threads='1', torch=version('torch'), numpy=version('numpy'))
    wanted = [measurement for measurement in measurements if measurement.name in args.only]
    chosen = [measurement for measurement in wanted if measurement.possible]
    columns = SpinnerColumn(), TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    runs: dict[str, list[Run]] = {}
    rows: list[Row] = []
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task('', total=len(chosen))
            for measurement in chosen:
                bar.update(task, description=measurement.name)
                before = ratios_of(reference, measurement)
                found = runs[measurement.name] = measure(measurement, before, args)
                rows += compare(measurement, before, found)
                bar.advance(task)
                console.print(told(measurement, found))
    except KeyboardInterrupt:
        console.print('stopped: nothing was compared or written')
        return 130
    failed = [name for name, found in runs.items() if any(run.fault for run in found)]
    console.print(as_table(rows))
    console.print(RULE)
    if others := other_facts(reference, facts):
        console.print(f'The reference is of another machine: {others}.')
    for one in wanted:
        if not one.possible:
            console.print(f'Left out, {one.needs} is not installed:', one.name, sep='\n  ')
    for what, commands in LEFT_OUT.items():
        console.print(f'Left out, {what}:', *commands, sep='\n  ')
    if args.update:
        write_json(args.reference, written(measurements, reference, runs, facts))
        console.print(f'Written: {args.reference}')
    bad = [row for row in rows if row.bad and not (args.update and row.now is not None)]
    summary = f'{len(bad)} of {len(rows)} ratios got worse or are missing'
    summary += f', failed: {", ".join(failed)}' if failed else ''
    cpu = sum(run.cpu_seconds for found in runs.values() for run in found)
    console.print(f'{summary}. It took {time.perf_counter() - start:.0f} s, processor {cpu:.0f} s.')
    return int(bool(bad or failed))


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the script that runs as well
    sys.exit(main())
