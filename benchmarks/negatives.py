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

With another rule of what a negative chip is, only that side is trained, for as many pixels, and
compared with the two sides of the result above, which must be there:

    python benchmarks/negatives.py toy --rule release
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

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
from harness.pixel_budget import epochs_with_negatives, most_growth, train_loader
from harness.proposal_recall import proposal_recall
from harness.results import markdown_table, write_results
from harness.training_run import (
    COSTS,
    MINING_PIXELS,
    TRAIN,
    RunError,
    TrainingRun,
    exit_on_sigterm,
    predicted_curve,
)
from mmsniper.chips import NEGATIVE, AnnotationTable, ChipPlan, NegativeChipPool, ScalePyramid
from mmsniper.convert import load_config, read_config
from mmsniper.convert.training_chips import negative_chip_hook
from mmsniper.engine.negative_chip_hook import POOL_FILE
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error
from mmsniper.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
WITHOUT, WITH, DIFFERENCE = 'without', 'with', 'difference'
SIDES = WITHOUT, WITH
RULES = {'release': {'covered': 'touched', 'placed': 'anew'}, 'coarse_to_fine': {'share': 0.1}}
"""Rules other than the configs', as arguments of ``NegativeChipHook``: the authors' release's, and
mining coarse to fine."""

MIN_VISIBLE = 0.5
"""Share of an object that a chip shows if the object is learned there (``ScaleRangeFilter``)."""

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
    'with an object',
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
    'hituav': Preset(
        'HIT-UAV infrared images: SNIPER with and without negative chips',
        'The same Faster R-CNN R-18, trained from scratch on the chips of 1,099 infrared images '
        'from drones (HIT-UAV, 640x512 px, every second image) and tested on 298 of other days.',
        Comparison(_configs('hituav'), pixels=577e6),
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
    parser.add_argument(
        '--rule', choices=RULES, help="what counts as a negative chip, instead of the config's rule"
    )
    return parser.parse_args(argv)


# -------------------------------------------------------------------------------- equal iterations
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
        return max(1, round(iterations[seed] / len(train_loader(cfg))))

    return choose


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


def with_rule(comparison: Comparison, rule: str) -> Comparison:
    """The comparison of the side with negative chips, by one of ``RULES``."""
    option = {f'sniper.negative_chips.{key}': value for key, value in RULES[rule].items()}
    return replace(comparison, options={**comparison.options, **option})


def run_rule(
    comparison: Comparison, rule: str, work_dir: Path, jobs: int, console: Console
) -> Contestant:
    """Run the side with negative chips, by one of ``RULES``; arguments as of :func:`run_all`."""
    changed = with_rule(comparison, rule)
    with console.status('counting the pixels of an epoch'):
        planned = plan_contestant(changed, WITH, epochs_of_the_run_with(changed), ROOT, work_dir)
    mined = replace(planned, name=rule)
    _tell_epochs(mined, console)
    execute_all([mined], jobs, console)
    return mined


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
    curve = predicted_curve(run, run.stages[-1], annotations)
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
    return json.loads(file.read_text('utf-8'))


def annotation_file(comparison: Comparison) -> Path:
    """The annotations that both sides are tested with."""
    cfg = read_config(ROOT / comparison.configs[WITH], comparison.options)
    return ROOT / cfg.test_evaluator.ann_file


def summary_of(
    comparison: Comparison, contestants: Sequence[Contestant], description: str
) -> dict[str, Any]:
    """What is written to the JSON file of some contestants.

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
            if contestant.name != WITHOUT:
                item['pool'] = pool_of(run)
        _add_statistics(entry)
    return summary


def compared(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary with what tells its last two contestants apart."""
    last = summary['contestants'][-2:]
    names, (before, after) = [entry['name'] for entry in last], [entry['runs'] for entry in last]
    return {
        **summary,
        'difference': difference(before, after),
        'remarks': remarks(before, after, names),
    }


def earlier_sides(file: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The two sides of an earlier result, as far as they are of some seeds.

    Args:
        file (Path): The JSON file of the comparison of both sides.
        seeds (Sequence[int]): The seeds.

    Raises:
        RunError: If there is no such file, or a seed is not in it.
    """
    command = f'python benchmarks/negatives.py {file.stem.removeprefix("negatives_")}'
    if not file.exists():
        raise RunError(f'there is no {file} to compare the rule with: run {command} first')
    sides = json.loads(file.read_text('utf-8'))['contestants']
    for entry in sides:
        runs = {run['seed']: run for run in entry['runs']}
        missing = set(seeds) - set(runs)
        if missing:
            raise RunError(f'{file} has no runs of the seeds {_listed(missing)}: run {command}')
        entry['runs'] = [runs[seed] for seed in seeds]
        entry['epochs'] = [run[TRAIN]['epochs'] for run in entry['runs']]
        for name, statistic in (('mean', mean), ('std', sample_std)):
            entry[name] = {
                TRAIN: {key: statistic(run[TRAIN][key] for run in entry['runs']) for key in COSTS}
            }
        _add_statistics(entry)
    return sides


def pool_of(run: TrainingRun) -> dict[str, Any]:
    """What a run has mined."""
    found = NegativeChipPool.from_file(run.work_dir / POOL_FILE).statistics
    return {
        'chips': found.chips,
        'chips_per_level': list(found.chips_per_level),
        'images': found.images,
        'images_with_chips': found.images_with_chips,
        'with_object': negatives_of(run)['with_object'],
    }


def negatives_of(run: TrainingRun) -> dict[str, float]:
    """What the negative chips of a finished run's epochs show; kept beside its results.

    Returns:
        dict: ``chips`` in all epochs, and ``with_object``, the share that shows an object to learn.
    """
    file = run.work_dir / 'negatives.json'
    if not file.exists():
        cfg = load_config(ROOT / run.config, run.all_options())
        hook = _hook(cfg)
        with redirect_stdout(io.StringIO()):  # pycocotools talks
            sampler = Runner.build_dataloader(cfg.train_dataloader, seed=run.seed).sampler
        pool = NegativeChipPool.from_file(run.work_dir / POOL_FILE)
        sampler.set_negatives(pool, hook.get('chips_per_image', 2))
        plans = []
        for epoch in range(hook.get('warmup_epochs', 2), run.max_epochs):
            sampler.set_epoch(epoch)
            plans.append(sampler.plan.take(sampler.plan.kind == NEGATIVE))
        shown = shows_object(ChipPlan.joined(plans), sampler.planner.table, sampler.pyramid)
        result = {'chips': len(shown), 'with_object': float(shown.mean()) if len(shown) else None}
        write_text(file, json.dumps(result) + '\n')
    return json.loads(file.read_text('utf-8'))


def shows_object(
    plan: ChipPlan, table: AnnotationTable, pyramid: ScalePyramid
) -> NDArray[np.bool_]:
    """Which chips show half of an object that is valid at their level, shape (n,).

    Args:
        plan (ChipPlan): The chips, in any order.
        table (AnnotationTable): The objects.
        pyramid (ScalePyramid): The scale pyramid.
    """
    width, height = table.width[table.image], table.height[table.image]
    valid, _ = pyramid.valid_and_fits(table.boxes, width, height)
    valid &= ~table.ignore[:, None]
    shown = np.zeros(len(plan), bool)
    for i, (image, level, chip) in enumerate(zip(plan.image, plan.level, plan.box)):
        rows = slice(table.offset[image], table.offset[image + 1])
        box = table.boxes[rows][valid[rows, level]].astype(float)
        sides = np.minimum(box[:, 2:], chip[2:]) - np.maximum(box[:, :2], chip[:2])
        visible = np.maximum(sides, 0).prod(axis=1)
        shown[i] = (visible >= MIN_VISIBLE * (box[:, 2:] - box[:, :2]).prod(axis=1)).any()
    return shown


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


def remarks(
    plain: Sequence[Mapping[str, Any]],
    mined: Sequence[Mapping[str, Any]],
    names: Sequence[str] = (WITHOUT, WITH),
) -> list[str]:
    """What whoever reads the result must know: runs that are not quite comparable.

    Args:
        plain (Sequence[dict]): The runs without, or by the configs' rule, as in the summary.
        mined (Sequence[dict]): The runs with negative chips, of the same seeds.
        names (Sequence[str]): Of the two contestants. Defaults to those without and with.
    """
    before, after = (f'{name} negative chips' if name in SIDES else name for name in names)
    found = []
    for one, other in zip(plain, mined):
        ratio = other[TRAIN]['iterations'] / one[TRAIN]['iterations']
        if abs(ratio - 1) > TOLERANCE:
            found.append(
                f'Seed {one["seed"]}: the run {after} has {abs(ratio - 1):.1%} '
                f'{"more" if ratio > 1 else "fewer"} iterations than the run {before}; no whole '
                f'number of epochs comes nearer, other --pixels may.'
            )
        if not other['pool']['chips']:
            found.append(f'Seed {one["seed"]}: no negative chips were found.')
    return found


# ------------------------------------------------------------------------------------------ tables
def measure_rows(summary: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[str]]:
    """Rows of a table of measures: the contestants, and the difference of the last two.

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
    """Rows under ``COST_COLUMNS``: the contestants, and the ratio of the last two's iterations."""
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
                _listed(
                    f'{run["pool"]["with_object"]:.1%}'
                    for run in entry['runs']
                    if run.get('pool', {}).get('with_object') is not None
                )
                or '-',
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
    before, after = (entry['name'] for entry in summary['contestants'][-2:])
    lines = [
        f'# {title}',
        '',
        summary['description'],
        '',
        f'Seeds: {seeds}. The tables give means ± sample standard deviations; the difference is '
        f'that of {after} less {before}, seed by seed. All are tested at all levels. AR is '
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
        f'the machine did. With an object: share of the negative chips of all epochs that show at '
        f'least half of an object that is learned at their level.',
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
    names = [entry['name'] for entry in summary['contestants']]
    table = Table('negative chips', *names, DIFFERENCE, title=title)
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
    sides: list[dict[str, Any]] = []
    if args.rule:
        sides = earlier_sides(out.with_suffix('.json'), comparison.seeds)
        out = out.with_name(f'{out.name}_{args.rule}')
        changed = with_chips_per_image(comparison, args.chips_per_image)
        contestants = [run_rule(changed, args.rule, work_dir, args.jobs, console)]
    else:
        contestants = run_all(comparison, work_dir, args.jobs, console, args.chips_per_image)
    with console.status('measuring false positives, and the recall of proposals'):
        summary = summary_of(comparison, contestants, preset.description)
    summary = compared({**summary, 'contestants': [*sides, *summary['contestants']]})
    command = noted_command('benchmarks/negatives.py', argv)
    write_results(out, summary, page(summary, preset.title, command))
    print_summary(summary, preset.title, console)
    console.print(f'{out}.json, {out}.md')


if __name__ == '__main__':
    exit_on_sigterm()
    main()
