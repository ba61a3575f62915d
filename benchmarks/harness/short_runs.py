"""Short runs of benchmarks as processes of their own, and what of them has become slower.

A run gives *ratios* of two numbers that were measured side by side: times are another each time, on
another machine, and while other programs are at work, ratios far less. All ratios are such that
less is better.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SPREADS = 3
"""A ratio may be worse by so many times the spread of the reference's runs."""

LIMIT_SECONDS = 600.0
"""A script that takes longer counts as failed."""

SAME, MISSING, NEW = 'same', 'missing', 'new'
_TOLD_LINES = 15  # of what a script that failed has said


@dataclass(frozen=True)
class Kind:
    """What a ratio is of.

    Args:
        tolerance (float): By how much it may always be worse: 0.25 is a quarter.
        better (str): The verdict on one that has become better by as much.
        worse (str): The verdict on one that has become worse by more.
    """

    tolerance: float
    better: str
    worse: str


TIME = Kind(0.25, 'faster', 'SLOWER')
MEMORY = Kind(0.10, 'less', 'MORE')
COUNT = Kind(0.02, 'fewer', 'MORE')  # the same every time, but for versions of the stack


@dataclass(frozen=True)
class Ratio:
    """A ratio of two numbers in a script's result.

    Args:
        name (str): Such as ``'AutoFocus / one scale'``.
        of (Callable): The ratio, from the content of the script's JSON file.
        kind (Kind): What it is of. Defaults to ``TIME``.
    """

    name: str
    of: Callable[[Any], float]
    kind: Kind = TIME


@dataclass(frozen=True)
class Measurement:
    """A script in its short form, and which ratios of its result are compared.

    Args:
        script (str): File in ``benchmarks/``.
        options (str): Its options but ``--out``; ``{folder}`` is a temporary folder.
        ratios (tuple[Ratio, ...]): Ratios of different names.
        needs (str): A package that it needs and the project does not; where it is missing, the
            measurement is left out. Defaults to ``''``, none.
    """

    script: str
    options: str
    ratios: tuple[Ratio, ...]
    needs: str = ''

    @property
    def name(self) -> str:
        """The script's name without suffix."""
        return Path(self.script).stem

    @property
    def possible(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or find_spec(self.needs) is not None

    def arguments(self, folder: Path) -> list[str]:
        """Those of the script, for results in a folder."""
        options = [option.replace('{folder}', str(folder)) for option in shlex.split(self.options)]
        return [*options, '--out', str(folder / 'result.json')]


@dataclass(frozen=True)
class Run:
    """What one run has given.

    Attributes:
        ratios: Those that were found, by name.
        seconds: By the clock.
        cpu_seconds: Processor time of the script and of the processes that it has started.
        fault: Why the script failed; empty if it did not.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    fault: str = ''


def run_once(measurement: Measurement, limit_seconds: float = LIMIT_SECONDS) -> Run:
    """Run a script in a temporary folder, which takes all that it writes.

    Args:
        measurement (Measurement): The script and its options.
        limit_seconds (float): Ends a script that takes longer. Defaults to ``LIMIT_SECONDS``.
    """
    with tempfile.TemporaryDirectory(prefix='bench_') as name:
        folder = Path(name)
        command = [sys.executable, str(ROOT / 'benchmarks' / measurement.script)]
        start, start_cpu = time.perf_counter(), _cpu_seconds_of_children()
        fault = _execute([*command, *measurement.arguments(folder)], folder, limit_seconds)
        costs = time.perf_counter() - start, _cpu_seconds_of_children() - start_cpu
        if fault:
            return Run({}, *costs, fault)
        try:
            result = json.loads((folder / 'result.json').read_text('utf-8'))
        except (OSError, ValueError) as error:
            return Run({}, *costs, f'it has written no result: {error}')
        return Run(dict(found_ratios(measurement, result)), *costs)


def _execute(command: Sequence[str], folder: Path, limit_seconds: float) -> str:
    """Run a command; returns why it failed, or nothing."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]  # measured is what lies here
    env = dict(os.environ, OMP_NUM_THREADS='1', TMPDIR=str(folder))
    env['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    log = folder / 'log.txt'
    with open(log, 'wb') as file:
        # In a session of its own, so that it can be ended with all processes that it has started.
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = child.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            return f'it took more than {limit_seconds:g} s'
        finally:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if not status:
        return ''
    said = log.read_text('utf-8', 'replace').splitlines()[-_TOLD_LINES:]
    return '\n'.join([f'exit status {status}', *said])


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def found_ratios(measurement: Measurement, result: Any) -> Iterator[tuple[str, float]]:
    """Names and values of the ratios that a result has."""
    for ratio in measurement.ratios:
        with suppress(LookupError, TypeError, ValueError, ZeroDivisionError):
            value = ratio.of(result)
            if math.isfinite(value) and value > 0:
                yield ratio.name, float(f'{value:.4g}')


def tolerance(kind: Kind, reference: Sequence[float]) -> float:
    """By how much a ratio may be worse than the median of the reference's runs, as a fraction."""
    spread = (max(reference) - min(reference)) / median(reference)
    return max(kind.tolerance, SPREADS * spread)


@dataclass(frozen=True)
class Row:
    """The verdict on a ratio.

    Attributes:
        measurement: Its name.
        ratio: The name of the ratio.
        verdict: ``'same'``, ``'missing'``, ``'new'``, or one of the words of its kind.
        bad: Whether it must not be so.
        reference: The median of the reference's runs; None without one.
        most: More than this is worse; None without a reference.
        now: The median of the runs now; None if they do not have it.
    """

    measurement: str
    ratio: str
    verdict: str
    bad: bool
    reference: float | None
    most: float | None
    now: float | None


def compare(
    measurement: Measurement, reference: Mapping[str, Sequence[float]], runs: Sequence[Run]
) -> list[Row]:
    """The verdict on each ratio of a measurement, and on those that only the reference has.

    Args:
        measurement (Measurement): What was measured.
        reference (Mapping): Values of the reference's runs, by names of ratios.
        runs (Sequence[Run]): The runs that are compared with them.
    """
    kinds = {ratio.name: ratio.kind for ratio in measurement.ratios}
    return [
        _row(
            measurement.name,
            name,
            kinds.get(name, TIME),
            reference.get(name, ()),
            [run.ratios[name] for run in runs if name in run.ratios],
        )
        for name in dict.fromkeys([*kinds, *reference])
    ]


def _row(
    measurement: str, name: str, kind: Kind, reference: Sequence[float], now: Sequence[float]
) -> Row:
    before, value = (median(values) if values else None for values in (reference, now))
    allowed = 1 + tolerance(kind, reference) if reference else None
    most = before * allowed if reference else None
    if value is None:
        verdict = MISSING
    elif before is None:
        verdict = NEW
    elif value > most:
        verdict = kind.worse
    else:
        verdict = kind.better if value < before / allowed else SAME
    bad = verdict in (MISSING, kind.worse)
    return Row(measurement, name, verdict, bad, before, most, value)
