"""One training and its tests, run as a user would: ``tools/train.py``, ``tools/test.py``.

Each stage is a process of its own. A stage's result is a JSON file in the run's folder that appears
when the stage is finished, so a run that is executed again does only what is left, and an
interrupted training continues from its last checkpoint.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.false_positives import DetectionCurve, detection_curve
from mmsniper.utils.files import write_json

TRAIN, TEST, TTA = 'train', 'test', 'tta'
METRICS = {
    'AP': 'mAP',
    'AP50': 'mAP_50',
    'AP75': 'mAP_75',
    'APs': 'mAP_s',
    'APm': 'mAP_m',
    'APl': 'mAP_l',
    'AR': 'AR@100',
}
"""Our names of COCO's metrics, and those of ``CocoMetric``."""

SEGM_METRICS = {f'mask {name}': f'coco/segm_{theirs}' for name, theirs in METRICS.items()}
"""Our names of the same metrics of masks, and those that ``CocoMetric`` logs."""

COSTS = ('train_pixels', 'train_seconds', 'train_cpu_seconds')
"""What ``PixelCounterHook`` and ``TrainingTimeHook`` keep in every checkpoint."""

MINING_PIXELS, MINING_CPU_SECONDS = MINING_COSTS = ('mining_pixels', 'mining_cpu_seconds')
"""Pixels that the RPN was run on to mine negative chips, in checkpoints of runs that mine, and the
processor time of it."""

FALSE_POSITIVES = {f'FP@{recall:g}': recall for recall in (0.5, 0.9)}
"""False positives per image where so many objects are found, of tests that leave predictions."""

DEVICE, CPU = 'device', 'CPU'
"""What a training ran on: a GPU's name, or this."""

_GPU_LINE = re.compile(r'^ *GPU [\d,]+: (.+)$', re.MULTILINE)  # mmengine's
_TRAIN_LINE = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]')
_TEST_LINE = re.compile(r'Epoch\(test\)\s+\[\s*(\d+)/(\d+)\]')

Report = Callable[[str, float], None]
"""Called with a stage and how much of it is done, from 0 to 1."""


class RunError(RuntimeError):
    """A stage of a run ended with an error."""


@dataclass(frozen=True)
class OtherTest:
    """Another test of the weights.

    Args:
        config (str, optional): Config file, as seen from the run's ``root``. Defaults to None, that
            of the training.
        options (dict): Settings that override it besides the run's. Defaults to none.
        tool (str): The script, as seen from ``root``; it understands what ``tools/test.py`` is told
            here. Defaults to ``'tools/test.py'``.
        arguments (tuple[str, ...]): Further arguments. Defaults to none.
    """

    config: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tool: str = 'tools/test.py'
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRun:
    """What to train and how to test it.

    Args:
        config (str): Config file, as seen from ``root``.
        max_epochs (int): Number of epochs.
        seed (int): Random seed.
        work_dir (Path): Folder of everything that the run writes.
        root (Path): Folder that holds ``tools/`` and that the config's data paths start from.
        tta (bool): Test with ``--tta`` besides. Defaults to False.
        other_tests (dict): How the weights are tested besides, each by the name of its stage.
            Defaults to none.
        options (dict): Settings that override the config. Defaults to none.
        threads (int): Threads of each process. Defaults to 1.
    """

    config: str
    max_epochs: int
    seed: int
    work_dir: Path
    root: Path
    tta: bool = False
    other_tests: Mapping[str, OtherTest] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages, in their order."""
        return (TRAIN, TEST, *([TTA] if self.tta else []), *self.other_tests)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.work_dir / f'epoch_{self.max_epochs}.pth'

    def predictions(self, stage: str) -> Path:
        """The pickled predictions that a test writes."""
        return self.work_dir / f'{stage}_predictions.pkl'

    def result_file(self, stage: str) -> Path:
        """The JSON file that a finished stage leaves."""
        return self.work_dir / f'{stage}.json'

    def results(self) -> dict[str, dict[str, Any]]:
        """Results of the finished stages, by stage."""
        return {
            stage: json.loads(self.result_file(stage).read_text('utf-8'))
            for stage in self.stages
            if self.result_file(stage).exists()
        }

    @property
    def finished(self) -> bool:
        """Whether every stage has left its result."""
        return all(self.result_file(stage).exists() for stage in self.stages)

    def command(self, stage: str) -> list[str]:
        """The command line of a stage."""
        options = self.all_options()
        if stage == TRAIN:
            tool = 'tools/train.py'
            arguments = [self.config, '--resume', '--work-dir', self.work_dir]
        else:
            test = self.other_tests.get(stage, OtherTest())
            tool, options = test.tool, {**options, **test.options}
            arguments = [
                test.config or self.config,
                self.checkpoint,
                # A log folder of its own for each test tells their results apart.
                '--work-dir',
                self.work_dir / stage,
                '--out',
                self.predictions(stage),
                *(['--tta'] if stage == TTA else test.arguments),
            ]
        told = [f'{key}={_literal(value)}' for key, value in options.items()]
        python = [sys.executable, '-u', str(self.root / tool)]
        return [*python, *map(str, arguments), '--cfg-options', *told]

    def all_options(self) -> dict[str, Any]:
        """Settings that override the config: the run's own and ``options``."""
        loaders = {
            f'{part}_dataloader.{key}': value
            for part in ('train', 'val', 'test')
            for key, value in (('num_workers', 0), ('persistent_workers', False))
        }
        return {
            'train_cfg.max_epochs': self.max_epochs,
            # The tests come afterwards, by themselves.
            'train_cfg.val_begin': self.max_epochs + 1,
            'randomness.seed': self.seed,
            'test_evaluator.metric_items': list(METRICS.values()),
            **loaders,
            **self.options,
        }


def execute(
    run: TrainingRun,
    report: Report = lambda stage, done: None,
    started: Callable[[subprocess.Popen], None] = lambda process: None,
) -> None:
    """Do the stages of a run that have no result yet.

    Args:
        run (TrainingRun): The run.
        report (Callable): Told of the progress. Defaults to nothing.
        started (Callable): Told of each process that is started, for one who may have to end it.
            Defaults to nothing.

    Raises:
        RunError: If a stage ends with an error, or another process is at work on this run.
    """
    run.work_dir.mkdir(parents=True, exist_ok=True)
    with _locked(run.work_dir) as lock:
        for stage in run.stages:
            if not run.result_file(stage).exists():
                _run_stage(run, stage, report, started, lock)
                result = train_result(run) if stage == TRAIN else test_result(run, stage)
                write_json(run.result_file(stage), result)
            report(stage, 1.0)


def train_result(run: TrainingRun) -> dict[str, Any]:
    """What the training has cost, as its last checkpoint tells.

    Returns:
        dict: ``epochs``, ``COSTS``, the ``device``, and what else the checkpoint knows of:
        ``iterations`` and ``MINING_COSTS``.
    """
    from mmengine.runner import CheckpointLoader

    from mmsniper.utils.compat import allow_checkpoint_globals

    allow_checkpoint_globals()
    content = CheckpointLoader.load_checkpoint(str(run.checkpoint), 'cpu')
    info = content['message_hub']['runtime_info']
    missing = [key for key in COSTS if key not in info]
    if missing:
        raise RunError(
            f'{run.checkpoint} says nothing of {missing}: {run.config} needs custom_hooks='
            f"[dict(type='PixelCounterHook'), dict(type='TrainingTimeHook')]"
        )
    iterations = content.get('meta', {}).get('iter')
    return {
        'epochs': run.max_epochs,
        **({} if iterations is None else {'iterations': iterations}),
        **{key: info[key] for key in (*COSTS, *MINING_COSTS) if key in info},
        DEVICE: device_of(run),
    }


def device_of(run: TrainingRun) -> str:
    """What a training ran on, as its log tells, if there is one: a GPU's name, or ``CPU``."""
    log = run.work_dir / f'{TRAIN}.log'
    found = _GPU_LINE.search(log.read_text('utf-8', 'replace') if log.exists() else '')
    return found[1].strip() if found else CPU


def test_result(run: TrainingRun, stage: str) -> dict[str, float | None]:
    """COCO's metrics as the last test wrote them.

    Returns:
        dict: ``METRICS`` of boxes and, where the test has them, ``SEGM_METRICS`` and
        ``FALSE_POSITIVES``; None for sizes of which there is no object, and for a recall that is
        not reached.
    """
    files = [
        path for path in (run.work_dir / stage).glob('*/*.json') if path.stem == path.parent.name
    ]
    if not files:
        raise RunError(f'the test of {run.work_dir} left no metrics in {run.work_dir / stage}')
    content = json.loads(max(files).read_text('utf-8'))
    # Of rotated boxes they are MMRotate's, by the same names.
    prefix = 'r_coco' if 'r_coco/bbox_mAP' in content else 'coco'
    # Without a single detection CocoMetric gives no metrics at all.
    metrics = {name: content.get(f'{prefix}/bbox_{m}', 0.0) for name, m in METRICS.items()}
    metrics |= {name: content[key] for name, key in SEGM_METRICS.items() if key in content}
    metrics = {name: None if value < 0 else value for name, value in metrics.items()}
    return metrics | false_positives(run, stage)


def predicted_curve(run: TrainingRun, stage: str, annotations: Path) -> DetectionCurve:
    """Recall and false positives of a test's predictions.

    Args:
        run (TrainingRun): The run.
        stage (str): Its test.
        annotations (Path): What it was tested with.
    """
    with open(run.predictions(stage), 'rb') as file:
        return detection_curve(pickle.load(file), annotations)


def false_positives(run: TrainingRun, stage: str) -> dict[str, float | None]:
    """``FALSE_POSITIVES`` of a test's predictions; empty if it left none, or boxes are rotated."""
    if not run.predictions(stage).exists():
        return {}
    from mmsniper.convert import read_config

    cfg = read_config(run.root / run.config, run.options)
    if 'ann_file' not in cfg.test_evaluator:  # RotatedCocoMetric takes the boxes of the data set
        return {}
    curve = predicted_curve(run, stage, run.root / cfg.test_evaluator.ann_file)
    points = {name: curve.at_recall(recall) for name, recall in FALSE_POSITIVES.items()}
    return {
        name: None if math.isnan(point.recall) else point.false_positives
        for name, point in points.items()
    }


test_result.__test__ = False  # not one of pytest's


def progress_of(line: str, stage: str, max_epochs: int) -> float | None:
    """How much of a stage is done by a line of its log, from 0 to 1; None if it does not say."""
    match = (_TRAIN_LINE if stage == TRAIN else _TEST_LINE).search(line)
    if not match:
        return None
    numbers = [int(group) for group in match.groups()]
    if stage == TRAIN:
        epoch, step, steps = numbers
        return (epoch - 1 + step / steps) / max_epochs
    step, steps = numbers
    return step / steps


def _run_stage(
    run: TrainingRun,
    stage: str,
    report: Report,
    started: Callable[[subprocess.Popen], None],
    lock: IO,
) -> None:
    log_path = run.work_dir / f'{stage}.log'
    threads = str(run.threads)
    env = {**os.environ, 'OMP_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads}
    report(stage, 0.0)
    with (
        open(log_path, 'a', encoding='utf-8') as log,
        subprocess.Popen(
            run.command(stage),
            cwd=run.root,
            env=env,
            text=True,
            errors='replace',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
            preexec_fn=_end_with_parent,
        ) as process,
    ):
        started(process)
        for line in process.stdout:
            log.write(line)
            log.flush()
            done = progress_of(line, stage, run.max_epochs)
            if done is not None:
                report(stage, done)
    if process.returncode:
        tail = '\n'.join(log_path.read_text('utf-8', 'replace').splitlines()[-15:])
        raise RunError(
            f'{stage} of {run.config}, seed {run.seed}, ended with code {process.returncode}. The '
            f'end of {log_path}:\n{tail}'
        )


def exit_on_sigterm() -> None:
    """Let SIGTERM end a script as an error does, so that it ends the processes it has started.

    Not for a ``main()`` that somebody else calls: the process is theirs.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent ends, even if that is killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _locked(work_dir: Path) -> Any:
    """Hold the folder's lock. The stages inherit it, in case they outlive a killed parent."""
    with open(work_dir / 'lock', 'wb') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f'another process is at work on {work_dir}; wait for it, or end it'
            ) from None
        yield lock


def _literal(value: Any) -> str:
    """A value as ``--cfg-options`` reads it."""
    if isinstance(value, (list, tuple)):
        return f'[{",".join(map(_literal, value))}]'
    return str(value)
