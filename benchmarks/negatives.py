"""What negative chips give: trainings with against without them, of equally many iterations.

All chips have the same size and all batches as many of them, so equal iterations are equal pixels.
How much an epoch grows by negative chips is known when a run has mined them. Therefore the runs
with negative chips come first, and each run without gets the number of epochs that comes nearest to
the iterations of the one with its seed.

Writes every run, means and standard deviations to benchmarks/results/negatives_NAME.json and tables
to benchmarks/results/negatives_NAME.md. Interrupted, it goes on where it was when it is started
again.

    python benchmarks/negatives.py toy --jobs 4
    python benchmarks/negatives.py bccd --jobs 4
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from harness.comparison import (
    Comparison,
    Contestant,
    execute_all,
    mean,
    plan_contestant,
    sample_std,
    summarise,
)
from harness.comparison_options import Preset, add_comparison_options, noted_command, with_options
from harness.demo import make_toy_data
from harness.false_positives import detection_curve
from harness.proposal_recall import proposal_recall
from harness.results import markdown_table, write_results
from harness.training_run import COSTS, MINING_PIXELS, TRAIN, RunError, TrainingRun, exit_on_sigterm
from mmsniper.chips import NegativeChipPool
from mmsniper.convert import load_config, read_config
from mmsniper.convert.training_chips import negative_chip_hook
from mmsniper.engine.negative_chip_hook import POOL_FILE
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error
from mmsniper.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
WITHOUT, WITH, DIFFERENCE = 'without', 'with', 'difference'
RECALLS = (0.5, 0.7, 0.8, 0.9)
SCORE = 0.5
PROPOSALS = 300
"""Proposals of an image whose recall is told."""

TOLERANCE = 0.02
"""Share by which the iterations of a pair of runs may differ without being pointed out."""

COLUMNS = {
    'AP': 'AP',
    'AP50': 'AP50',
    'AP small': 'APs',
    'AR': 'AR',
    'proposal AR': 'proposal_AR',
    **{f'FP at recall {recall:g}': f'fp_recall_{recall:g}' for recall in RECALLS},
    f'FP over score {SCORE:g}': f'fp_score_{SCORE:g}',
    f'recall over score {SCORE:g}': f'recall_score_{SCORE:g}',
}
"""Headings of the measures, and their keys in the JSON file."""

LOOKALIKE_COLUMNS = {
    **{f'at recall {recall:g}': f'lookalikes_recall_{recall:g}' for recall in RECALLS},
    f'over score {SCORE:g}': f'lookalikes_score_{SCORE:g}',
}
"""The same of false positives on look-alikes, for data that record them."""

COST_COLUMNS = (
    'negative chips',
    'epochs',
    'iterations',
    'training Mpx',
    'minutes',
    'CPU minutes',
    'chips in the pool',
    'mined Mpx',
)


def _configs(data: str) -> dict[str, str]:
    return {
        WITHOUT: f'configs/sniper/faster_rcnn_r18_sniper_{data}.py',
        WITH: f'configs/sniper/faster_rcnn_r18_sniper_negatives_{data}.py',
    }


# The pixels are chosen so that, with a negative chip of every image in each epoch, a whole number
# of epochs without has almost as many iterations as one with: 17 and 14 (toy), 8 and 7 (BCCD).
PRESETS = {
    'toy': Preset(
        'Toy scenes: SNIPER with and without negative chips',
        'The same small Faster R-CNN, trained from scratch on the chips of the 240 training scenes '
        'of the toy data set and tested on its 60 validation scenes. The scenes have unlabelled '
        'look-alikes, which keep away from small objects and so from the positive chips of the '
        'finest level.',
        Comparison(_configs('toy'), pixels=413e6),
        prepare=make_toy_data,
    ),
    'bccd': Preset(
        'BCCD blood cells: SNIPER with and without negative chips',
        'The same Faster R-CNN R-18, trained from scratch on the chips of the 205 training images '
        'of BCCD (640x480 px) and tested on its 87 validation images.',
        Comparison(_configs('bccd'), pixels=294e6),
    ),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('name', choices=PRESETS, help='which data set')
    add_comparison_options(parser, 'work_dirs/negatives/NAME', ROOT / 'benchmarks' / 'results')
    parser.add_argument(
        '--chips-per-image',
        type=at_least(1),
        metavar='N',
        help="negative chips that an epoch takes of an image [the config's]; N becomes part of "
        'the names of the files',
    )
    return parser.parse_args(argv)


# -------------------------------------------------------------------------------- equal iterations
def epochs_with_negatives(pixels: float, per_epoch: float, growth: float, warmup: int) -> int:
    """The number of epochs that comes nearest to a number of pixels, if epochs grow on the way.

    Args:
        pixels (float): The training's pixels.
        per_epoch (float): Pixels of an epoch before mining.
        growth (float): Pixels by which an epoch is larger after mining.
        warmup (int): Epochs before mining.

    Raises:
        ValueError: If the pixels are used up before there is anything mined to train on.
    """
    epochs = warmup + round((pixels - warmup * per_epoch) / (per_epoch + growth))
    if epochs <= warmup:
        least = (warmup + 1) * per_epoch + growth
        raise ValueError(
            f'{pixels / 1e6:g} million training pixels last for {pixels / per_epoch:.1f} epochs, '
            f'and negative chips are mined after {warmup}: take at least --pixels {least:.2g}'
        )
    return epochs


def most_growth(cfg: Config) -> float:
    """Pixels by which an epoch of a config grows at most when negative chips are mined."""
    images = len(_train_loader(cfg).dataset)
    chip_size = cfg.train_dataloader.sampler.pyramid.chip_size
    return images * _hook(cfg).get('chips_per_image', 2) * chip_size**2


def epochs_of_the_run_with(comparison: Comparison) -> Callable[[Config, float, int], int]:
    """Choose the epochs of the runs with negative chips, for ``plan_contestant``."""

    def choose(cfg: Config, per_epoch: float, seed: int) -> int:
        warmup = _hook(cfg).get('warmup_epochs', 2)
        return epochs_with_negatives(comparison.pixels, per_epoch, most_growth(cfg), warmup)

    return choose


def epochs_of_the_run_without(iterations: Mapping[int, int]) -> Callable[[Config, float, int], int]:
    """Choose the epochs of the runs without negative chips, for ``plan_contestant``.

    Args:
        iterations (Mapping[int, int]): Of the run with negative chips, by its seed.
    """

    def choose(cfg: Config, per_epoch: float, seed: int) -> int:
        return max(1, round(iterations[seed] / len(_train_loader(cfg))))

    return choose


def _train_loader(cfg: Config) -> DataLoader:
    with redirect_stdout(io.StringIO()):  # pycocotools talks
        return Runner.build_dataloader(cfg.train_dataloader, seed=0)


def _hook(cfg: Config) -> Mapping[str, Any]:
    hook = negative_chip_hook(cfg)
    if not hook:
        raise ValueError(
            f'{cfg.filename} mines no negative chips: it needs custom_hooks=[..., dict(type='
            f"'NegativeChipHook')]"
        )
    return hook


def with_chips_per_image(comparison: Comparison, number: int | None) -> Comparison:
    """The comparison of the side with negative chips, with that many of an image in an epoch.

    Args:
        comparison (Comparison): What is compared.
        number (int | None): How many, or None, what the config says.
    """
    if number is None:
        return comparison
    option = {'sniper.negative_chips.chips_per_image': number}
    return replace(comparison, options={**comparison.options, **option})


def run_all(
    comparison: Comparison,
    work_dir: Path,
    jobs: int,
    console: Console,
    chips_per_image: int | None = None,
) -> list[Contestant]:
    """Run both sides.

    Args:
        comparison (Comparison): Its configs are named ``without`` and ``with``.
        work_dir (Path): Folder of the runs.
        jobs (int): How many runs at a time.
        console (Console): Where to tell of it.
        chips_per_image (int | None): Negative chips that an epoch takes of an image, if not what
            the config says.

    Returns:
        list[Contestant]: The runs without and those with negative chips.
    """
    with console.status('counting the pixels of an epoch'):
        mined = plan_contestant(
            with_chips_per_image(comparison, chips_per_image),
            WITH,
            epochs_of_the_run_with(comparison),
            ROOT,
            work_dir,
        )
    _tell_epochs(mined, console)
    execute_all([mined], jobs, console)
    iterations = {run.seed: _iterations(run) for run in mined.runs}
    plain = plan_contestant(
        comparison, WITHOUT, epochs_of_the_run_without(iterations), ROOT, work_dir
    )
    _tell_epochs(plain, console)
    execute_all([plain], jobs, console)
    return [plain, mined]


def _tell_epochs(contestant: Contestant, console: Console) -> None:
    epochs = _listed(run.max_epochs for run in contestant.runs)
    console.print(f'{contestant.name} negative chips: {epochs} epochs')


def _iterations(run: TrainingRun) -> int:
    train = run.results()[TRAIN]
    if 'iterations' not in train:
        raise RunError(
            f'{run.result_file(TRAIN)} tells no number of iterations: remove it, and start again'
        )
    return train['iterations']


# ---------------------------------------------------------------------------------------- measures
def measures(run: TrainingRun, annotations: Path) -> dict[str, float | None]:
    """Numbers about the last test of a finished run, by the keys of the tables' columns.

    None stands for what there is not: a recall that is never reached, sizes without objects.

    Args:
        run (TrainingRun): The run.
        annotations (Path): What it was tested with.
    """
    metrics = run.results()[run.stages[-1]]
    with open(run.predictions(run.stages[-1]), 'rb') as file:
        curve = detection_curve(pickle.load(file), annotations)
    points = {f'recall_{recall:g}': curve.at_recall(recall) for recall in RECALLS}
    points[f'score_{SCORE:g}'] = curve.above(SCORE)
    values = {
        **{key: metrics[key] for key in ('AP', 'AP50', 'APs', 'AR')},
        **{f'fp_{name}': point.false_positives for name, point in points.items()},
        f'recall_score_{SCORE:g}': curve.above(SCORE).recall,
        'proposal_AR': proposals_of(run)[f'AR@{PROPOSALS}'],
    }
    if curve.on_lookalikes is not None:
        values |= {f'lookalikes_{name}': point.on_lookalikes for name, point in points.items()}
    return {
        key: None if value is None or math.isnan(value) else value for key, value in values.items()
    }


def proposals_of(run: TrainingRun) -> dict[str, float]:
    """Recall of the proposals of a finished run's RPN; measured once and kept beside its results.

    It is what the paper means by AR: negative chips are to cost no objects.
    """
    file = run.work_dir / 'proposals.json'
    if not file.exists():
        cfg = load_config(ROOT / run.config, run.options)
        write_text(file, json.dumps(proposal_recall(cfg, run.checkpoint)) + '\n')
    return json.loads(file.read_text())


def annotation_file(comparison: Comparison) -> Path:
    """The annotations that both sides are tested with."""
    cfg = read_config(ROOT / comparison.configs[WITH], comparison.options)
    return ROOT / cfg.test_evaluator.ann_file


def summary_of(
    comparison: Comparison, contestants: Sequence[Contestant], description: str
) -> dict[str, Any]:
    """All that is written to the JSON file.

    Args:
        comparison (Comparison): What was compared.
        contestants (Sequence[Contestant]): From :func:`run_all`, all finished.
        description (str): Goes into the result as it is.
    """
    summary = summarise(comparison, contestants, description)
    annotations = annotation_file(comparison)
    for entry, contestant in zip(summary['contestants'], contestants):
        entry['epochs'] = [run.max_epochs for run in contestant.runs]
        for item, run in zip(entry['runs'], contestant.runs):
            item['measures'] = measures(run, annotations)
            if contestant.name == WITH:
                item['pool'] = pool_of(run)
        _add_statistics(entry)
    summary['difference'] = difference(*(entry['runs'] for entry in summary['contestants']))
    summary['remarks'] = remarks(*(entry['runs'] for entry in summary['contestants']))
    return summary


def pool_of(run: TrainingRun) -> dict[str, Any]:
    """What a run has mined."""
    found = NegativeChipPool.from_file(run.work_dir / POOL_FILE).statistics
    return {
        'chips': found.chips,
        'chips_per_level': list(found.chips_per_level),
        'images': found.images,
        'images_with_chips': found.images_with_chips,
    }


def difference(
    plain: Sequence[Mapping[str, Any]], mined: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Measures with less those without negative chips, seed by seed.

    Args:
        plain (Sequence[dict]): The runs without, as in the summary.
        mined (Sequence[dict]): The runs with negative chips, of the same seeds.
    """
    runs = []
    for one, other in zip(plain, mined):
        before, after = one['measures'], other['measures']
        runs.append(
            {
                'seed': one['seed'],
                'iteration_ratio': other[TRAIN]['iterations'] / one[TRAIN]['iterations'],
                'measures': {
                    key: None if None in (before[key], after[key]) else after[key] - before[key]
                    for key in before
                },
            }
        )
    return _add_statistics({'runs': runs, 'mean': {}, 'std': {}})


def _add_statistics(entry: dict[str, Any]) -> dict[str, Any]:
    values = [run['measures'] for run in entry['runs']]
    for name, statistic in (('mean', mean), ('std', sample_std)):
        entry[name]['measures'] = {key: statistic(v[key] for v in values) for key in values[0]}
    return entry


def remarks(plain: Sequence[Mapping[str, Any]], mined: Sequence[Mapping[str, Any]]) -> list[str]:
    """What whoever reads the result must know: runs that are not quite comparable.

    Args:
        plain (Sequence[dict]): The runs without, as in the summary.
        mined (Sequence[dict]): The runs with negative chips, of the same seeds.
    """
    found = []
    for one, other in zip(plain, mined):
        ratio = other[TRAIN]['iterations'] / one[TRAIN]['iterations']
        if abs(ratio - 1) > TOLERANCE:
            found.append(
                f'Seed {one["seed"]}: the run with negative chips has {abs(ratio - 1):.1%} '
                f'{"more" if ratio > 1 else "fewer"} iterations than the run without; no whole '
                f'number of epochs comes nearer, other --pixels may.'
            )
        if not other['pool']['chips']:
            found.append(f'Seed {one["seed"]}: no negative chips were found.')
    return found


# ------------------------------------------------------------------------------------------ tables
def measure_rows(summary: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[str]]:
    """Rows of a table of measures: without, with, difference.

    Args:
        summary (dict): From :func:`summary_of`.
        columns (Mapping[str, str]): Headings and keys.
    """
    sides = [(entry['name'], entry, '') for entry in summary['contestants']]
    return [
        [
            name,
            *(
                _cell(entry['mean']['measures'][key], entry['std']['measures'][key], sign)
                for key in columns.values()
            ),
        ]
        for name, entry, sign in [*sides, (DIFFERENCE, summary['difference'], '+')]
    ]


def _cell(value: float | None, spread: float | None, sign: str) -> str:
    if value is None:
        return '-'
    return f'{value:{sign}.3f}' + ('' if spread is None else f' ± {spread:.3f}')


def cost_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Rows under ``COST_COLUMNS``: without, with, and the ratio of the iterations."""
    rows = []
    for entry in summary['contestants']:
        train = [run[TRAIN] for run in entry['runs']]
        pixels, seconds, cpu = (entry['mean'][TRAIN][key] for key in COSTS)
        mining = mean(item.get(MINING_PIXELS) for item in train)
        rows.append(
            [
                entry['name'],
                _listed(entry['epochs']),
                _listed(t['iterations'] for t in train),
                f'{pixels / 1e6:.1f}',
                f'{seconds / 60:.1f}',
                f'{cpu / 60:.1f}',
                _listed(run['pool']['chips'] for run in entry['runs'] if 'pool' in run) or '-',
                '-' if mining is None else f'{mining / 1e6:.1f}',
            ]
        )
    ratios = _listed(f'{run["iteration_ratio"]:.3f}' for run in summary['difference']['runs'])
    return [*rows, ['ratio', '', ratios, *[''] * (len(COST_COLUMNS) - 3)]]


def _listed(values: Iterable[Any]) -> str:
    return ', '.join(map(str, values))


def has_lookalikes(summary: Mapping[str, Any]) -> bool:
    """Whether the data record look-alikes."""
    return set(LOOKALIKE_COLUMNS.values()) <= summary['difference']['mean']['measures'].keys()


def page(summary: Mapping[str, Any], title: str, command: str) -> str:
    """The Markdown page of a summary.

    Args:
        summary (dict): From :func:`summary_of`.
        title (str): Its heading.
        command (str): The command line that makes it.
    """
    seeds = _listed(summary['seeds'])
    lines = [
        f'# {title}',
        '',
        summary['description'],
        '',
        f'Seeds: {seeds}. The tables give means ± sample standard deviations; the difference is '
        f'that of with less without, seed by seed. Both are tested at all levels. AR is '
        f"COCO's, at 100 detections; proposal AR is that of the RPN's best {PROPOSALS} "
        f'proposals of all levels, classes ignored.',
        '',
        'FP: false positives per image, at IoU 0.5. The detections of all images and classes share '
        'one score threshold, the highest at which the given share of all objects is found, or '
        f'that of score {SCORE:g}.',
        '',
        f'Made by `{command}`.',
        '',
        *markdown_table(['negative chips', *COLUMNS], measure_rows(summary, COLUMNS)),
    ]
    if has_lookalikes(summary):
        lines += [
            'Of the false positives per image, those that lie on a look-alike:',
            '',
            *markdown_table(
                ['negative chips', *LOOKALIKE_COLUMNS], measure_rows(summary, LOOKALIKE_COLUMNS)
            ),
        ]
    lines += [
        f'What the trainings cost, with {summary["threads"]} thread(s) a process. Epochs, '
        f'iterations and pools are those of the seeds in turn. Pixels are counted before padding; '
        f'minutes are of the training iterations, and how fast the clock ran depends on what else '
        f'the machine did.',
        '',
        *markdown_table(COST_COLUMNS, cost_rows(summary)),
    ]
    for remark in summary['remarks']:
        lines += [f'**{remark}**', '']
    return '\n'.join(lines)


def print_summary(summary: Mapping[str, Any], title: str, console: Console) -> None:
    """Show a summary in a terminal, a line for each measure."""
    columns = dict(COLUMNS)
    if has_lookalikes(summary):
        columns |= {f'look-alikes {head}': key for head, key in LOOKALIKE_COLUMNS.items()}
    table = Table('negative chips', WITHOUT, WITH, DIFFERENCE, title=title)
    rows = measure_rows(summary, columns)
    for name, *cells in list(zip(['', *columns], *rows))[1:]:
        table.add_row(name, *cells)
    console.print(table)
    for remark in summary['remarks']:
        console.print(remark, style='yellow')


@exit_on_error(RunError)
def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    console = Console()
    preset = PRESETS[args.name]
    work_dir = (args.work_dir or ROOT / 'work_dirs' / 'negatives' / args.name).resolve()
    suffix = f'_{args.chips_per_image}_per_image' if args.chips_per_image else ''
    out = args.out_dir.resolve() / f'negatives_{args.name}{suffix}'
    os.chdir(ROOT)  # the configs' paths start here
    comparison = with_options(preset.comparison, args)
    preset.prepare()
    contestants = run_all(comparison, work_dir, args.jobs, console, args.chips_per_image)
    with console.status('measuring false positives, and the recall of proposals'):
        summary = summary_of(comparison, contestants, preset.description)
    command = noted_command('benchmarks/negatives.py', argv)
    write_results(out, summary, page(summary, preset.title, command))
    print_summary(summary, preset.title, console)
    console.print(f'{out}.json, {out}.md')


if __name__ == '__main__':
    exit_on_sigterm()
    main()
