"""Compare configs that are trained on the same number of pixels, over several seeds."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from harness.pixel_budget import epochs_with_mining, part_of_an_epoch, pixels_per_epoch
from harness.training_run import (
    COSTS,
    FALSE_POSITIVES,
    METRICS,
    MINING_COSTS,
    TEST,
    TRAIN,
    TTA,
    OtherTest,
    RunError,
    TrainingRun,
    execute,
)
from mmsniper.convert import load_config
from mmsniper.convert.inference import sees_coarse_to_fine, sees_levels
from mmsniper.convert.training_chips import negative_chip_hook
from mmsniper.datasets.wrappers import type_name
from mmsniper.utils.compat import SUPPORTED
from mmsniper.version import __version__

# Of a run's time, for the progress bar; a test's counts for each.
_TRAIN_WEIGHT = 0.8
_TEST_WEIGHT = 0.1

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Args:
        configs (dict): Config file of each contestant by its name, as seen from the project's root.
        pixels (float): Training pixels of each run. Every contestant gets the number of epochs that
            comes nearest.
        seeds (tuple): Random seeds; one run for each of every contestant. Defaults to (0, 1, 2).
        options (dict): Settings that override all configs. Defaults to none.
        own_options (dict): Settings that override the config of one contestant, by its name.
            Defaults to none.
        other_tests (dict): How the weights of one contestant are tested besides, by its name and
            the test's. Defaults to none.
        threads (int): Threads of each process. Defaults to 1.

    Raises:
        ValueError: If there is nothing to compare, or options or tests are of a contestant that is
            not there.
    """

    configs: Mapping[str, str]
    pixels: float
    seeds: tuple[int, ...] = (0, 1, 2)
    options: Mapping[str, Any] = field(default_factory=dict)
    own_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    other_tests: Mapping[str, Mapping[str, OtherTest]] = field(default_factory=dict)
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.configs or not self.seeds:
            raise ValueError(
                f'a comparison needs configs and seeds, got {dict(self.configs)} and {self.seeds}'
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f'every seed counts once, got {self.seeds}')
        if not (self.pixels > 0 and math.isfinite(self.pixels)):
            raise ValueError(f'pixels must be positive, got {self.pixels!r}')
        for what in ('own_options', 'other_tests'):
            unknown = sorted(set(getattr(self, what)) - set(self.configs))
            if unknown:
                raise ValueError(
                    f'{what} are of {", ".join(unknown)}, but the contestants are '
                    f'{", ".join(self.configs)}'
                )

    def only(self, names: Iterable[str], **changes: Any) -> Comparison:
        """The same with some of the contestants, and with other changes.

        Raises:
            ValueError: If one is not there.
        """
        names = list(names)
        unknown = sorted(set(names) - set(self.configs))
        if unknown:
            raise ValueError(
                f'there is no contestant {", ".join(unknown)}, only {", ".join(self.configs)}'
            )
        kept = {
            what: {name: part for name, part in getattr(self, what).items() if name in names}
            for what in ('configs', 'own_options', 'other_tests')
        }
        return replace(self, **{**kept, **changes})


@dataclass(frozen=True)
class Contestant:
    """One config of a comparison, with its runs.

    Args:
        name (str): Its name.
        config (str): Its config file.
        pixels_per_epoch (float): Pixels of an epoch, as planned.
        runs (tuple[TrainingRun, ...]): One for each seed.
        tests (dict): What each stage that is a test shows the detector, in words. Defaults to
            none.
        mines (bool): Whether it mines negative chips on its way. Defaults to False.
    """

    name: str
    config: str
    pixels_per_epoch: float
    runs: tuple[TrainingRun, ...]
    tests: Mapping[str, str] = field(default_factory=dict)
    mines: bool = False


def unequal_pixels(
    comparison: Comparison, contestants: Iterable[Contestant], tolerance: float = 0.1
) -> Iterator[str]:
    """What to say of contestants whose whole epochs have other pixels than the comparison.

    Args:
        comparison (Comparison): What is compared.
        contestants (Iterable[Contestant]): From :func:`plan_runs`. Of those that mine, epochs are
            chosen with mining and growth in mind, and left out here.
        tolerance (float): By how much they may differ, as a share. Defaults to 0.1.
    """
    for item in contestants:
        per_epoch = min(item.pixels_per_epoch, comparison.pixels)  # the only one may be a part
        off = item.runs[0].max_epochs * per_epoch / comparison.pixels - 1
        if abs(off) > tolerance and not item.mines:
            yield (
                f'{item.name} is trained on {abs(off):.0%} {"more" if off > 0 else "fewer"} pixels '
                f'than --pixels {comparison.pixels:g}, since epochs are whole: with '
                f'--pixels {5 * item.pixels_per_epoch:.3g} or more it is 10 % at most'
            )


def plan_runs(comparison: Comparison, root: Path, work_dir: Path) -> list[Contestant]:
    """Choose each contestant's number of epochs and its runs' folders.

    A folder's name ends with a digest of the run's settings: with other settings a run is another
    run, and starts anew. Where the project's folder is does not count.

    Args:
        comparison (Comparison): What is compared.
        root (Path): Folder that holds ``tools/`` and that the configs' paths start from.
        work_dir (Path): Folder of the runs.

    Raises:
        FileNotFoundError: If a config or its data is not there.
    """
    return [
        plan_contestant(
            comparison,
            name,
            lambda cfg, per_epoch, seed: epochs_with_mining(cfg, comparison.pixels, per_epoch),
            root,
            work_dir,
        )
        for name in comparison.configs
    ]


def plan_contestant(
    comparison: Comparison,
    name: str,
    epochs: Callable[[Config, float, int], int],
    root: Path,
    work_dir: Path,
) -> Contestant:
    """Plan the runs of one contestant, each with a number of epochs of its own.

    Args:
        comparison (Comparison): What is compared.
        name (str): Which of its configs.
        epochs (Callable): Chooses a run's number of epochs, from the config, the pixels of an epoch
            and the seed.
        root (Path): As of :func:`plan_runs`.
        work_dir (Path): As of :func:`plan_runs`.

    Raises:
        FileNotFoundError: If the config or its data is not there.
    """
    config = comparison.configs[name]
    options = {**comparison.options, **comparison.own_options.get(name, {})}
    cfg = load_config(root / config, options)
    tests = tests_of(cfg)
    try:
        per_epoch = pixels_per_epoch(cfg)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'the data of {config} is not there: {error}') from None
    runs = []
    for seed in comparison.seeds:
        settings = dict(
            config=config,
            max_epochs=epochs(cfg, per_epoch, seed),
            seed=seed,
            root=root,
            tta=TTA in tests,
            other_tests=comparison.other_tests.get(name, {}),
            options={**options, **part_of_an_epoch(cfg, comparison.pixels, per_epoch, seed)},
            threads=comparison.threads,
        )
        overridden = TrainingRun(work_dir=work_dir, **settings).all_options()
        folder = f'{name}_seed{seed}_{_digest(cfg, overridden, root)}'
        runs.append(TrainingRun(work_dir=work_dir / folder, **settings))
    mines = bool(negative_chip_hook(cfg))
    return Contestant(name, config, per_epoch, tuple(runs), tests, mines)


def tests_of(cfg: Config) -> dict[str, str]:
    """The stages that test a config's detector, and what each shows it.

    ``--tta`` of a detector that sees all levels without it is no stage of its own.
    """
    shown = 'one scale'
    if sees_levels(cfg.model):  # an AutoFocus with thresholds of 0 looks everywhere
        focused = sees_coarse_to_fine(cfg.model) and cfg.model.get('thresholds') != 0
        shown = 'coarse to fine' if focused else 'all levels'
    tests = {TEST: shown}
    if type_name(cfg.get('tta_model') or {}) not in ('', 'SNIPERTTAModel'):
        tests[TTA] = 'multi-scale --tta'
    return tests


def _digest(cfg: Config, options: Mapping[str, Any], root: Path) -> str:
    content = json.dumps([cfg.to_dict(), dict(options)], sort_keys=True, default=str)
    return hashlib.sha256(content.replace(f'{root}/', '').encode()).hexdigest()[:8]


def execute_all(
    contestants: Sequence[Contestant], jobs: int, console: Console | None = None
) -> None:
    """Do what is left of all runs, several at a time, and show the progress.

    A run that fails does not stop the others. If this process is interrupted, it ends those that
    it has started.

    Args:
        contestants (Sequence[Contestant]): From :func:`plan_runs`.
        jobs (int): How many runs at a time.
        console (Console, optional): Where to show the progress. Defaults to None, the terminal.

    Raises:
        RunError: If runs have failed, when all others are finished.
    """
    console = console or Console()
    # Seed by seed, so that the first rows of the table are there early.
    named = sorted(
        (
            (f'{c.name}, seed {run.seed}', i, run)
            for c in contestants
            for i, run in enumerate(c.runs)
        ),
        key=lambda item: item[1],
    )
    failures, processes = [], _Processes()
    columns = TextColumn('{task.description}'), BarColumn(), TaskProgressColumn()
    with (
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bars = {label: progress.add_task(label, total=1.0) for label, _, _ in named}

        def work(label: str, run: TrainingRun) -> None:
            def report(stage: str, done: float) -> None:
                overall = overall_progress(run.stages, stage, done)
                before = progress.tasks[bars[label]].completed
                progress.update(bars[label], completed=overall, description=f'{label}: {stage}')
                # A log file has no bars.
                if not console.is_terminal and int(10 * overall) > int(10 * before):
                    console.print(f'{label}: {overall:.0%} ({stage})')

            was_finished = run.finished
            execute(run, report, processes.add)
            progress.update(bars[label], description=label)
            told = 'was finished' if was_finished else 'finished'
            console.print(f'{label} {told}: {describe(run)}', highlight=False)

        futures = {pool.submit(work, label, run): label for label, _, run in named}
        try:
            for future in as_completed(futures):
                if error := future.exception():
                    failures.append(f'{futures[future]}: {error}')
                    console.print(f'{futures[future]} failed', style='red')
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
    if failures:
        raise RunError('\n\n'.join(failures))


class _Processes:
    """The processes that have been started, to end them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[subprocess.Popen] = []
        self._ended = False

    def add(self, process: subprocess.Popen) -> None:
        with self._lock:
            self._started.append(process)
            if self._ended:
                process.terminate()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for process in self._started:
                with suppress(ProcessLookupError):
                    process.terminate()


def overall_progress(stages: Sequence[str], stage: str, done: float) -> float:
    """How much of a run is done when ``done`` of one of its stages is."""
    weights = [_TRAIN_WEIGHT if s == TRAIN else _TEST_WEIGHT for s in stages]
    number = stages.index(stage)
    return (sum(weights[:number]) + weights[number] * done) / sum(weights)


def describe(run: TrainingRun) -> str:
    """A finished run in one line."""
    results = run.results()
    train, test = results[TRAIN], results[run.stages[-1]]
    small = '-' if test['APs'] is None else f'{test["APs"]:.3f}'
    return (
        f'{train["train_pixels"] / 1e6:.1f} Mpx in {train["train_seconds"] / 60:.1f} min, '
        f'AP {test["AP"]:.3f}, AP small {small}'
    )


def summarise(
    comparison: Comparison, contestants: Sequence[Contestant], description: str = ''
) -> dict[str, Any]:
    """Every finished run, and mean and sample standard deviation over the seeds.

    Args:
        comparison (Comparison): What was compared.
        contestants (Sequence[Contestant]): Its contestants.
        description (str): Goes into the result as it is. Defaults to ''.

    Returns:
        dict: For JSON. It names no paths but the configs'.
    """
    return {
        'description': description,
        'pixels': comparison.pixels,
        'seeds': list(comparison.seeds),
        'options': _told(comparison.options),
        'own_options': {name: _told(own) for name, own in comparison.own_options.items()},
        'threads': comparison.threads,
        'versions': {'mmsniper': __version__, **_installed()},
        'contestants': [_summary_of(contestant) for contestant in contestants],
    }


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with paths as seen from the project's folder."""
    here = f'{_ROOT}/'
    return {
        key: value.removeprefix(here) if isinstance(value, str) else value
        for key, value in options.items()
    }


def _summary_of(contestant: Contestant) -> dict[str, Any]:
    finished = [run for run in contestant.runs if run.finished]
    runs = [{'seed': run.seed, **run.results()} for run in finished]
    stages = contestant.runs[0].stages
    keys = {stage: _keys(stage, [run[stage] for run in runs]) for stage in stages}
    return {
        'name': contestant.name,
        'config': contestant.config,
        'tests': dict(contestant.tests),
        'epochs': contestant.runs[0].max_epochs,
        'planned_pixels_per_epoch': round(contestant.pixels_per_epoch),
        'runs': runs,
        **{
            statistic: {
                stage: {key: of(run[stage][key] for run in runs) for key in keys[stage]}
                for stage in stages
            }
            for statistic, of in (('mean', mean), ('std', sample_std))
        },
    }


def _keys(stage: str, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What there are means of; what only some runs can have, if these have it."""
    always, sometimes = (COSTS, MINING_COSTS) if stage == TRAIN else (METRICS, FALSE_POSITIVES)
    there = [key for key in sometimes if results and all(key in result for result in results)]
    return [*always, *there]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean; None if there is no value, or if one is None."""
    values = list(values)
    return statistics.fmean(values) if values and None not in values else None


def sample_std(values: Iterable[float | None]) -> float | None:
    """Standard deviation of a sample (n - 1); None of fewer than two values, or if one is None."""
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 and None not in values else None


def _installed() -> dict[str, str]:
    found = {}
    for name in SUPPORTED:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
