"""How fast chips are planned, and what a plan weighs.

Plans all levels of the paper's COCO pyramid in one process, for data sets of several sizes, and for
single scenes of thousands of boxes; and the negative chips of single images with 900 proposals.
Images are made like those of data/coco_tiny where it is found, else from a built-in distribution
like COCO's.

    python benchmarks/planning.py
    python benchmarks/planning.py --images 1000 10000 --scenes 0 --out planning.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy
from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from harness.results import machine
from mmsniper.chips import (
    AnnotationTable,
    ChipPlan,
    PositiveChipPlanner,
    ScalePyramid,
    plan_negative_chips,
    plan_positive_chips,
    plan_statistics,
)
from mmsniper.utils.command_line import at_least, command_parser, progress
from mmsniper.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/planning.json'
PYRAMID = ROOT / 'configs/_base_/pyramids/coco_paper.py'
COCO_TINY = [
    folder / 'coco_tiny/annotations' for folder in (ROOT / 'data', ROOT.parent / 'shared/data')
]
GOAL_MS, GOAL_BYTES = 0.5, 200e6
# Boxes, and side of the image in px.
SCENES = [(500, 4000), (2000, 4000), (5000, 4000), (5000, 20_000)]
# Width and height of images with proposals, and those of each level.
NEGATIVES = [(640, 480), (4000, 3000), (20_000, 20_000)]
PROPOSALS_PER_LEVEL = 300
GOAL_NEGATIVES_MS = 5.0  # for an image of COCO's size, the first of them


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--images',
        type=at_least(1),
        nargs='+',
        default=[1000, 10_000, 118_287, 1_000_000],
        help='sizes of the data sets',
    )
    parser.add_argument(
        '--repeats',
        type=at_least(1),
        default=5,
        help='runs of each, of which the median counts; one of those of over a minute',
    )
    parser.add_argument(
        '--grid-images',
        type=int,
        default=10_000,
        help='largest data set to plan by the grid strategy too',
    )
    parser.add_argument('--scenes', type=int, default=len(SCENES), help='number of dense scenes')
    parser.add_argument(
        '--negatives', type=int, default=100, help='images of each size to plan negative chips for'
    )
    parser.add_argument(
        '--built-in', action='store_true', help='images as without data/coco_tiny, on every machine'
    )
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file')
    return parser.parse_args(argv)


def seed_images(built_in: bool = False) -> tuple[AnnotationTable, str]:
    """Images to make others like, and where they are from: the data at hand, if they may be."""
    for folder in [] if built_in else COCO_TINY:
        files = sorted(folder.glob('instances_*2017.json'))
        if files:
            return AnnotationTable.joined([*map(AnnotationTable.from_coco, files)]), 'coco_tiny'
    return built_in_images(1000), 'built-in'


def built_in_images(count: int) -> AnnotationTable:
    """Images of 640x480 px whose boxes are distributed about as COCO's: 7.3 in the mean."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        size = np.array([640, 480] if rng.random() < 0.75 else [480, 640])
        boxes = rng.geometric(1 / 7.3)
        area, aspect = rng.lognormal(3.7, 1.2, boxes), rng.lognormal(0, 0.4, boxes)
        wh = np.clip(np.stack([area * aspect, area / aspect], axis=1), 2, size - 1)
        start = rng.uniform(0, size - wh)
        images.append((*size.tolist(), np.concatenate([start, start + wh], axis=1), None))
    return AnnotationTable.from_images(images)


def images_like(seeds: AnnotationTable, count: int) -> AnnotationTable:
    """That many images: one of the seeds each, with every box moved by up to 2 px."""
    rng = np.random.default_rng(count)
    chosen = rng.integers(0, len(seeds), count)
    counts = np.diff(seeds.offset)[chosen]
    offset = np.concatenate([[0], np.cumsum(counts)])
    box = np.arange(offset[-1]) + np.repeat(seeds.offset[chosen] - offset[:-1], counts)
    moved = seeds.boxes[box] + np.tile(rng.uniform(-2, 2, (len(box), 2)), 2)
    return AnnotationTable.from_arrays(
        seeds.width[chosen], seeds.height[chosen], offset, moved, seeds.ignore[box]
    )


def scene(boxes: int, side: int) -> AnnotationTable:
    """One square image with that many boxes of 8 to 60 px."""
    rng = np.random.default_rng(0)
    wh = np.exp(rng.uniform(np.log(8), np.log(60), (boxes, 2)))
    start = rng.uniform(0, side - wh)
    return AnnotationTable.from_images(
        [(side, side, np.concatenate([start, start + wh], axis=1), None)]
    )


def proposals_and_positives(
    width: int, height: int, pyramid: ScalePyramid, seed: int
) -> tuple[AnnotationTable, ChipPlan]:
    """An image's proposals, and its positive chips.

    As an RPN's, two thirds of the proposals are around few places, half of which are objects.
    """
    rng = np.random.default_rng(seed)
    image, places = np.array([width, height]), rng.uniform(0, 1, (15, 2))
    boxes = []
    for lo, hi in pyramid.ranges():
        lo, hi = max(lo, 8.0), min(hi, image.min() / 1.5)
        size = np.exp(rng.uniform(np.log(lo), np.log(hi), PROPOSALS_PER_LEVEL))
        aspect = np.exp(rng.uniform(-0.5, 0.5, PROPOSALS_PER_LEVEL))
        wh = np.stack([size * aspect, size / aspect], axis=1)
        centre = rng.choice(places, PROPOSALS_PER_LEVEL) * image
        centre += rng.normal(0, 0.4, centre.shape) * wh
        anywhere = rng.random(PROPOSALS_PER_LEVEL) < 1 / 3
        centre[anywhere] = rng.uniform(0, image, (anywhere.sum(), 2))
        centre = np.clip(centre, 0, image)
        boxes.append(np.concatenate([centre - wh / 2, centre + wh / 2], axis=1))
    side = np.exp(rng.uniform(np.log(12), np.log(240), (7, 1)))
    objects = places[:7] * image
    objects = np.concatenate([objects - side / 2, objects + side / 2], axis=1)
    positives = plan_positive_chips(
        AnnotationTable.from_images([(width, height, objects, None)]), pyramid
    )
    table = AnnotationTable.from_images([(width, height, np.concatenate(boxes), None)])
    return table, positives


def seconds(work: Callable[[], Any], repeats: int, bar: tqdm) -> tuple[float, float]:
    """Median time of some work, by the clock and of the processor.

    The two differ where other programs keep the machine busy.
    """
    clock, cpu = [], []
    while len(clock) < repeats and sum(clock) < 60:
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        cpu.append(time.process_time() - start_cpu)
        clock.append(time.perf_counter() - start)
        bar.update()
    bar.update(repeats - len(clock))
    return median(clock), median(cpu)


def nbytes(plan: ChipPlan) -> int:
    return sum(getattr(plan, name).nbytes for name in ('image', 'level', 'box', 'kind'))


def measure(
    table: AnnotationTable, pyramid: ScalePyramid, args: argparse.Namespace, bar: tqdm
) -> dict[str, Any]:
    """Plan one data set."""
    count = len(table)

    def ms_per_image(planner: PositiveChipPlanner | None, name: str) -> dict[str, float]:
        def work() -> None:
            (planner or PositiveChipPlanner(table, pyramid)).plan(1)

        clock, cpu = seconds(work, args.repeats, bar)
        return {name: clock / count * 1e3, f'{name}_cpu': cpu / count * 1e3}

    planner = PositiveChipPlanner(table, pyramid)
    plan = planner.plan(0)
    found = plan_statistics(table, pyramid, plan)
    result = dict(
        images=count,
        boxes=found.boxes,
        chips=found.chips,
        coverage=found.coverage,
        unproven=planner.unproven,
        plan_bytes=nbytes(plan),
        **ms_per_image(None, 'ms_per_image'),
        **ms_per_image(planner, 'ms_later_epochs'),
    )
    if count <= args.grid_images:
        result.update(ms_per_image(PositiveChipPlanner(table, pyramid, 'grid'), 'ms_grid'))
    return rounded(result)


def measure_scene(table: AnnotationTable, pyramid: ScalePyramid, bar: tqdm) -> dict[str, Any]:
    """Plan one dense scene."""
    planner = PositiveChipPlanner(table, pyramid)
    clock, cpu = seconds(lambda: planner.plan(0), 1, bar)
    found = plan_statistics(table, pyramid, planner.plan(0))
    return rounded(
        dict(
            boxes=found.boxes,
            image_side=int(table.width[0]),
            chips=found.chips,
            coverage=found.coverage,
            unproven_levels=planner.unproven,
            seconds=clock,
            seconds_cpu=cpu,
        )
    )


def measure_negatives(
    size: tuple[int, int], pyramid: ScalePyramid, args: argparse.Namespace, bar: tqdm
) -> dict[str, Any]:
    """Plan the negative chips of images of one size, each on its own."""
    times, chips = [], 0
    for seed in range(args.negatives):
        work = partial(plan_negative_chips, *proposals_and_positives(*size, pyramid, seed), pyramid)
        found = work().statistics
        chips += found.chips
        times.append(seconds(work, args.repeats, bar))
    clock, cpu = np.array(times).T * 1e3
    return rounded(
        dict(
            width=size[0],
            height=size[1],
            proposals=found.proposals,
            images=args.negatives,
            chips_per_image=chips / args.negatives,
            ms_median=float(np.median(clock)),
            ms_max=float(clock.max()),
            ms_median_cpu=float(np.median(cpu)),
            ms_max_cpu=float(cpu.max()),
        )
    )


def rounded(result: dict[str, Any]) -> dict[str, Any]:
    """Numbers with four digits that mean something."""
    return {
        key: float(f'{value:.4g}') if isinstance(value, float) else value
        for key, value in result.items()
    }


def summary(runs: list[dict[str, Any]], negatives: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The claims, from the runs."""
    largest = max(runs, key=lambda run: run['images'])
    images = np.log([run['images'] for run in runs])
    times = np.log([run['ms_per_image_cpu'] * run['images'] for run in runs])
    # Of time ~ images^exponent; 1 is linear.
    exponent = np.polyfit(images, times, 1)[0] if len(runs) > 1 else float('nan')
    million = largest['plan_bytes'] / largest['images'] * 1e6
    return rounded(
        dict(
            worst_ms_per_image=max(run['ms_per_image'] for run in runs),
            worst_ms_per_image_cpu=max(run['ms_per_image_cpu'] for run in runs),
            goal_ms_per_image=GOAL_MS,
            exponent_of_time_in_images=float(exponent),
            plan_bytes_of_a_million_images=million,
            goal_bytes=GOAL_BYTES,
            **(
                dict(
                    negatives_ms_max=negatives[0]['ms_max'],
                    negatives_ms_max_cpu=negatives[0]['ms_max_cpu'],
                    goal_negatives_ms=GOAL_NEGATIVES_MS,
                )
                if negatives
                else {}
            ),
        )
    )


def show(result: dict[str, Any], console: Console) -> None:
    """Print the numbers as tables, one column for each data set, scene or image size."""
    for name, title in (
        ('runs', 'Data sets'),
        ('scenes', 'Dense scenes'),
        ('negatives', 'Negative chips of an image'),
    ):
        runs = result[name]
        table = Table(title=title, show_header=False)
        for key in dict.fromkeys(key for run in runs for key in run):
            table.add_row(key, *(f'{run[key]:,}' if key in run else '' for run in runs))
        if runs:
            console.print(table)
    console.print(result['summary'])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    facts = machine(numpy=np.__version__, scipy=scipy.__version__)
    pyramid = ScalePyramid.from_config(Config.fromfile(PYRAMID).pyramid)
    seeds, source = seed_images(args.built_in)
    PositiveChipPlanner(seeds, pyramid).plan(0)  # what is loaded on first use
    sizes, scenes = sorted(set(args.images)), SCENES[: args.scenes]
    grids = sum(size <= args.grid_images for size in sizes)
    images = NEGATIVES if args.negatives else []
    total = (2 * len(sizes) + grids) * args.repeats + len(scenes)
    total += len(images) * args.negatives * args.repeats
    with progress(what='planning', total=total, unit=' runs') as bar:
        runs = [measure(images_like(seeds, size), pyramid, args, bar) for size in sizes]
        dense = [measure_scene(scene(*s), pyramid, bar) for s in scenes]
        negatives = [measure_negatives(size, pyramid, args, bar) for size in images]
    result = dict(
        images_like=source,
        pyramid=PYRAMID.stem,
        machine=facts,
        runs=runs,
        scenes=dense,
        negatives=negatives,
        summary=summary(runs, negatives),
    )
    show(result, Console())
    write_json(args.out, result)
    return result


if __name__ == '__main__':
    main()
