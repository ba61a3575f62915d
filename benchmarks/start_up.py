"""What the start of a training costs each of its processes: CPU seconds and memory.

Annotations with the number of boxes of Objects365 (14.4 an image) are written, read and planned by
several processes of one machine, as in a training; images are not opened. Memory is private memory,
above that of the imports: what is mapped from a file is in memory once for all processes. Numbers
for 1.74 million images are extrapolated, on the line through the two largest data sets.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --images 2000 --processes 1 2 --out start_up.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from planning import PYRAMID, images_like, rounded, seed_images

from harness.coco_like import write_annotations
from harness.results import machine, markdown_table, write_results
from mmsniper.chips import AnnotationTable
from mmsniper.utils.command_line import at_least, command_parser, progress

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/start_up.json'
CLASSES = tuple(f'class {k}' for k in range(365))
BOXES_PER_IMAGE = 14.4
OBJECTS365 = 1_740_000  # images
GOAL_SECONDS, GOAL_MEGABYTES = 60.0, 300.0
STEPS = 'read', 'plan', 'epoch'
"""The data set is read; the sampler is built; the first chips of an epoch are drawn."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--images',
        type=at_least(1),
        nargs='+',
        default=[25_000, 100_000],
        help='sizes of the data sets',
    )
    parser.add_argument(
        '--processes', type=at_least(1), nargs='+', default=[1, 4], help='numbers of processes'
    )
    parser.add_argument(
        '--built-in', action='store_true', help='images as without data/coco_tiny, on every machine'
    )
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file; a page goes beside it')
    return parser.parse_args(argv)


def with_more_boxes(seeds: AnnotationTable, mean: float) -> AnnotationTable:
    """The same kind of images, chosen so that they have so many boxes in the mean."""
    counts = np.diff(seeds.offset)
    lo, hi = -1.0, 1.0
    for _ in range(60):  # images of n boxes have the weight exp(tilt n)
        tilt = (lo + hi) / 2
        weight = np.exp(tilt * (counts - counts.max() * (tilt > 0)))
        lo, hi = (tilt, hi) if weight @ counts < mean * weight.sum() else (lo, tilt)
    chosen = np.random.default_rng(0).choice(len(seeds), 5000, p=weight / weight.sum())
    images = ((seeds.width[i], seeds.height[i], seeds.boxes_of(i), None) for i in chosen)
    return AnnotationTable.from_images(images)


def loader_config(folder: Path) -> dict[str, Any]:
    pyramid = Config.fromfile(PYRAMID).pyramid
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ChipSampler', pyramid=pyramid),
        dict(type='ScaleRangeFilter', pyramid=pyramid),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
    )
    return dict(
        batch_size=20,
        num_workers=0,
        sampler=dict(type='ChipAwareSampler', pyramid=pyramid),
        dataset=dict(type='ChipDataset', dataset=dataset, pipeline=pipeline),
    )


def private_megabytes() -> float:
    """Memory of this process that is in no file, as Linux counts it."""
    _, resident, of_files, *_ = map(int, Path('/proc/self/statm').read_text('utf-8').split())
    return (resident - of_files) * mmap.PAGESIZE / 1e6


class Peak(threading.Thread):
    """Looks at the private memory 20 times a second, and keeps the largest value."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.megabytes = max(self.megabytes, private_megabytes())


def process(rank: int, processes: int, folder: str) -> None:
    """One process of a training that starts; what it has cost is written to a file."""
    register_all_modules(init_default_scope=True)
    if processes > 1:
        store = f'file://{folder}/store_of_{processes}'
        dist.init_process_group('gloo', init_method=store, rank=rank, world_size=processes)
    config = loader_config(Path(folder))
    before, peak = private_megabytes(), Peak()
    peak.start()
    cpu: dict[str, float] = {}
    memory: dict[str, float] = {}
    start = time.process_time()

    def done(step: str) -> None:
        nonlocal start
        cpu[step] = time.process_time() - start
        memory[step] = private_megabytes() - before
        start = time.process_time()

    from mmdet.registry import DATASETS

    stock = dict(config['dataset']['dataset'])
    dataset = DATASETS.build(config.pop('dataset'))
    done('read')
    sampler = Runner.build_dataloader({**config, 'dataset': dataset}, seed=0).sampler
    done('plan')
    sampler.set_epoch(1)
    chips = iter(sampler)
    for _ in range(1000):
        next(chips, None)
    done('epoch')
    peak.over.set()
    peak.join()
    if processes == 1:  # MMDetection's own data set, to compare reading with
        with contextlib.redirect_stdout(None):
            DATASETS.build(stock)
        done('read_by_stock')
    table = sampler.planner.table
    result = dict(
        images=len(table),
        boxes=len(table.boxes),
        chips=len(sampler) * processes,
        cpu_seconds=cpu,
        megabytes=memory,
        megabytes_peak=max(peak.megabytes - before, *memory.values()),
    )
    Path(f'{folder}/{processes}_{rank}.json').write_text(json.dumps(result), 'utf-8')
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def measure(folder: Path, processes: int) -> dict[str, Any]:
    """Start a training of so many processes."""
    mp.spawn(process, args=(processes, str(folder)), nprocs=processes)
    ranks = [
        json.loads((folder / f'{processes}_{rank}.json').read_text('utf-8'))
        for rank in range(processes)
    ]
    first, others = ranks[0], ranks[1:]

    def worst(key: str, step: str | None) -> float:
        return max((rank[key] if step is None else rank[key][step]) for rank in others)

    result = {name: first[name] for name in ('images', 'boxes', 'chips')} | {'processes': processes}
    for step in STEPS:
        result[f'first_cpu_seconds_{step}'] = first['cpu_seconds'][step]
        result[f'first_megabytes_{step}'] = first['megabytes'][step]
    result['first_megabytes_peak'] = first['megabytes_peak']
    if not others:
        result['first_cpu_seconds_read_by_stock'] = first['cpu_seconds']['read_by_stock']
    if others:
        for step in STEPS:
            result[f'others_cpu_seconds_{step}'] = worst('cpu_seconds', step)
            result[f'others_megabytes_{step}'] = worst('megabytes', step)
        result['others_megabytes_peak'] = worst('megabytes_peak', None)
    return rounded(result)


def extrapolated(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a start would be with the images of Objects365: on the line through two runs.

    The runs are of as many processes each, the last ones those of most images. One run alone goes
    through zero. Memory of the others is left out: not in proportion, since the C library keeps
    what it frees of arrays under 32 MB, and gives back larger ones.
    """
    few, many = [dict.fromkeys(runs[0], 0), *runs][-2:]
    factor = (OBJECTS365 - few['images']) / (many['images'] - few['images'])
    line = {
        key: few[key] + (many[key] - few[key]) * factor
        for key in many
        if not key.startswith('others_megabytes')
    }
    return {key: float(f'{value:.3g}') for key, value in line.items()} | {
        'images': OBJECTS365,
        'processes': many['processes'],
    }


def page(result: dict[str, Any]) -> str:
    """The numbers as tables."""
    lines = ['# The start of a training', '', *(__doc__ or '').splitlines()[2:6], '']
    columns = [f'{run["images"]:,} images, {run["processes"]} processes' for run in result['runs']]
    columns += [f'1.74 million, {run["processes"]} processes' for run in result['objects365']]
    runs = [*result['runs'], *result['objects365']]
    keys = dict.fromkeys(key for run in runs for key in run)
    rows = [[key, *(f'{run[key]:,}' if key in run else '' for run in runs)] for key in keys]
    goals = f'Goals: {GOAL_SECONDS:g} CPU seconds in the first process, {GOAL_MEGABYTES:g} MB in'
    return '\n'.join([*lines, *markdown_table(['', *columns], rows), f'{goals} the others.', ''])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    facts = machine(numpy=np.__version__, host=socket.gethostname())
    seeds, source = seed_images(args.built_in)
    seeds = with_more_boxes(seeds, BOXES_PER_IMAGE)
    runs = []
    for images in progress(sorted(set(args.images)), 'starting trainings', unit=' sizes'):
        with tempfile.TemporaryDirectory() as folder:
            write_annotations(Path(folder, 'annotations.json'), images_like(seeds, images), CLASSES)
            runs += [measure(Path(folder), processes) for processes in sorted(set(args.processes))]
    result = dict(
        images_like=source,
        pyramid=PYRAMID.stem,
        machine=facts,
        runs=runs,
        objects365=[
            extrapolated([run for run in runs if run['processes'] == processes])
            for processes in sorted(set(args.processes))
        ],
        goals=dict(first_cpu_seconds=GOAL_SECONDS, others_megabytes=GOAL_MEGABYTES),
    )
    write_results(args.out, result, page(result))
    return result


if __name__ == '__main__':
    with suppress(KeyboardInterrupt):
        print(json.dumps(main()['objects365'], indent=2))
