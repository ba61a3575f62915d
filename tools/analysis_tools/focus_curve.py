"""Test an AutoFocus at several thresholds: what accuracy costs which pixels, to choose one.

    python tools/analysis_tools/focus_curve.py CONFIG CHECKPOINT --out-dir work_dirs/focus_curve

Writes focus_curve.json, after each test, and focus_curve.png. Choose on other images than those
that a result is reported on: the best threshold differs from training to training.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Read when torch is loaded, see tools/_launch.py.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mmsniper.convert import load_config
from mmsniper.convert.inference import sees_coarse_to_fine
from mmsniper.datasets.wrappers import type_name
from mmsniper.models.autofocus import step_thresholds
from mmsniper.utils.command_line import (
    add_config_arguments,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.utils.compat import allow_checkpoint_globals
from mmsniper.utils.files import write_json
from mmsniper.visualization import draw_focus_curve, save_figure

THRESHOLDS = ('0', '0.02', '0.05', '0.1', '0.2', '0.3', '0.5', '0.7')
Row = dict[str, Any]


class SeenHook(Hook):
    """Counts what an AutoFocus has seen, and the time that it took.

    Args:
        advance (Callable[[int], None]): Called with the number of images after each batch.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def before_test_epoch(self, runner: Runner) -> None:
        self.images, self.pixels, self.seconds = 0, 0, 0.0
        self.chips: list[int] = []

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.start = time.perf_counter()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: SampleList | None = None,
    ) -> None:
        self.seconds += time.perf_counter() - self.start
        for sample in outputs:
            self.images += 1
            self.pixels += sample.focus_pixels
            counts = [len(chips) for chips in sample.focus_chips]
            self.chips = [a + b for a, b in zip(self.chips or [0] * len(counts), counts)]
        self.advance(len(outputs))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config of an AutoFocus')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument(
        '--thresholds',
        nargs='+',
        default=THRESHOLDS,
        metavar='T',
        help='thresholds to test, each one number or, as 0.02,0.2, one for each step from coarse '
        'to fine',
    )
    parser.add_argument(
        '--metric', help='metric to choose by [the first of the evaluator that ends in mAP]'
    )
    parser.add_argument(
        '--drop',
        type=float,
        default=0.005,
        help='how much of the metric the chosen threshold may lose',
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/focus_curve'), help='folder of the results'
    )
    args = parser.parse_args(argv)
    try:
        given = [tuple(map(float, t.split(','))) for t in args.thresholds]
    except ValueError as error:
        parser.error(f'--thresholds: {error}')
    args.thresholds = [t if len(t) > 1 else t[0] for t in given]
    return args


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run the command; returns a row of each threshold."""
    # Evaluators print pages; the console keeps the stdout that they lose in test().
    args, console = parse_args(argv), Console(file=sys.stdout)
    allow_checkpoint_globals()
    with exit_on_error():
        runner = build_runner(args)
        steps = len(runner.model.thresholds)
        settings = [step_thresholds(t, steps) for t in args.thresholds]
    rows: list[Row] = []
    with progress(total=len(settings) * len(runner.test_dataloader.dataset)) as bar:
        for thresholds in settings:
            rows.append(test(runner, thresholds, bar))
            write_json(args.out_dir / 'focus_curve.json', rows)
    with exit_on_error():
        metric = chosen_metric(rows[0]['metrics'], args.metric)
    show(rows, metric, console)
    console.print(advice(rows, metric, args.drop), highlight=False)
    figure = draw_focus_curve(
        [row['pixels'] / row['images'] for row in rows],
        [row['metrics'][metric] for row in rows],
        [written(row['thresholds']) for row in rows],
        metric,
    )
    save_figure(figure, args.out_dir / 'focus_curve.png')
    console.print(f'{args.out_dir}/focus_curve.json, .png', highlight=False, soft_wrap=True)
    return rows


def build_runner(args: argparse.Namespace) -> Runner:
    """The config's Runner, which says little.

    Raises:
        ValueError: If the config is not of an AutoFocus.
    """
    cfg: Config = load_config(args.config, args.cfg_options)
    if not sees_coarse_to_fine(cfg.model):
        raise ValueError(
            f'{args.config} has a model of type {type_name(cfg.model)}, not AutoFocus (see '
            f'docs/autofocus.md)'
        )
    cfg.load_from, cfg.resume, cfg.log_level = args.checkpoint, False, 'WARNING'
    cfg.work_dir = str(args.out_dir)
    return Runner.from_cfg(cfg)


def test(runner: Runner, thresholds: tuple[float, ...], bar: tqdm) -> Row:
    """Test at one setting."""
    bar.set_description(f't = {written(thresholds)}', refresh=False)
    hook = SeenHook(bar.update)
    runner.register_hook(hook, priority='VERY_LOW')
    runner.model.thresholds = thresholds
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = runner.test()
    runner.hooks.remove(hook)
    return dict(
        thresholds=thresholds,
        metrics={key: float(value) for key, value in metrics.items()},
        images=hook.images,
        pixels=hook.pixels,
        chips=hook.chips,
        seconds=hook.seconds,
    )


def chosen_metric(metrics: Mapping[str, float], name: str | None) -> str:
    """The metric to choose by.

    Raises:
        ValueError: If there is none of that name.
    """
    if not metrics:
        raise ValueError(
            'the evaluator has no metric, as it has none of detections that are none: do the '
            'weights belong to this config, and are they numbers?'
        )
    name = name or next((key for key in metrics if key.endswith('mAP')), next(iter(metrics), None))
    if name not in metrics:
        raise ValueError(f'there is no metric {name!r}; --metric can be {", ".join(metrics)}')
    return name


def show(rows: Sequence[Row], metric: str, console: Console) -> None:
    """Print a row of each setting; levels are coarse to fine, as they are seen."""
    table = Table()
    for column in ('thresholds', metric, 'Mpx per image', 'chips per image', 's per image'):
        table.add_column(column, justify='right')
    for row in rows:
        chips = ' / '.join(f'{count / row["images"]:.1f}' for count in reversed(row['chips']))
        table.add_row(
            written(row['thresholds']),
            f'{row["metrics"][metric]:.3f}',
            f'{row["pixels"] / row["images"] / 1e6:.3f}',
            chips,
            f'{row["seconds"] / row["images"]:.3f}',
        )
    console.print(table)


def advice(rows: Sequence[Row], metric: str, drop: float) -> str:
    """The cheapest setting that is near the full pyramid, or else near the best."""
    full = next((row for row in rows if not any(row['thresholds'])), None)
    of = full or max(rows, key=lambda row: row['metrics'][metric])
    near = [row for row in rows if row['metrics'][metric] >= of['metrics'][metric] - drop]
    best = min(near, key=lambda row: row['pixels'])
    name = 'the full pyramid' if full else f'the best, {written(of["thresholds"])}'
    return (
        f'Cheapest within {drop:g} of {name}: thresholds {written(best["thresholds"])}, '
        f'{metric} {best["metrics"][metric]:.3f} instead of {of["metrics"][metric]:.3f}, '
        f'{of["pixels"] / best["pixels"]:.2f} times fewer pixels'
    )


def written(thresholds: Sequence[float]) -> str:
    """Thresholds as the command line takes them."""
    some = thresholds[:1] if len(set(thresholds)) == 1 else thresholds
    return ','.join(f'{t:g}' for t in some)


if __name__ == '__main__':
    main()
