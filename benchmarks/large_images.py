"""How much memory a data loader's worker needs to cut chips out of a large image, and how long.

Makes one image with objects, and lets workers load batches of 8 chips, of all levels in turn of a
pyramid with the factors 2, 1, 0.5 and the whole image at 512 px. What counts is the most
resident memory that a worker has had (VmHWM of Linux) beyond what it started with, over the size of
the decoded image:

- LoadImageFromFile, the stock transform, in one worker;
- LoadLargeImageFromFile, in as many workers as asked for, for each of the formats;
- MapImage, below, for an array in an .npy file, of which only the chips' pages are read.

Writes benchmarks/results/large_images.json and .md. Linux only.

    OMP_NUM_THREADS=1 python benchmarks/large_images.py
    python benchmarks/large_images.py --side 6000 --formats jpg --workers 1 --out work_dirs/x.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

import mmsniper.datasets
import mmsniper.datasets.transforms.load_large_image  # noqa: F401 (registers)
from harness.costs import memory
from harness.results import machine, write_results
from mmsniper.datasets import ChipIndex
from mmsniper.utils.command_line import at_least, command_parser, progress
from mmsniper.utils.files import replacing, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/large_images.json'
FOLDER = ROOT / 'work_dirs/large_images'
GOAL = 1.5
STRIP = 500  # rows that are made at a time
PYRAMID = dict(
    chip_size=512,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 48)),
        dict(resize=dict(factor=1.0), valid_range=(32, 96)),
        dict(resize=dict(factor=0.5), valid_range=(64, 400)),
        dict(resize=dict(long_side=512), valid_range=(300, None)),
    ],
)


@TRANSFORMS.register_module()
class MapImage(BaseTransform):
    """Map an array (height, width, 3), BGR, uint8, of an .npy file instead of loading it."""

    def transform(self, results: dict) -> dict:
        results['img'] = np.load(results['img_path'], mmap_mode='r')
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--side', type=at_least(2000), default=20_000, help='width and height of the image, px'
    )
    parser.add_argument(
        '--formats',
        nargs='+',
        default=['jpg', 'png', 'npy'],
        help='npy, and suffixes of what OpenCV writes',
    )
    parser.add_argument(
        '--workers', type=at_least(1), nargs='+', default=[1, 2], help='numbers of workers'
    )
    parser.add_argument('--batch', type=at_least(1), default=8, help='chips that each worker loads')
    parser.add_argument('--objects', type=at_least(1), default=2000, help='objects in the image')
    parser.add_argument(
        '--folder', type=Path, default=FOLDER, help='where images are made, and found again'
    )
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file')
    args = parser.parse_args(argv)
    if not sys.platform.startswith('linux'):
        parser.error('the most memory that a process has had is read from /proc, as Linux has it')
    return args


def make_array(path: Path, side: int) -> None:
    """A smooth picture with noise, made and written in strips."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 230, (side // 100 + 1, side // 100 + 1, 3), dtype=np.uint8)
    with replacing(path) as temporary:
        img = np.lib.format.open_memmap(temporary, 'w+', np.uint8, (side, side, 3))
        for y in range(0, side, STRIP):
            rows = img[y : y + STRIP]
            part = coarse[y // 100 : y // 100 + STRIP // 100 + 1]
            smooth = cv2.resize(part, (side, len(rows)), interpolation=cv2.INTER_CUBIC)
            noise = rng.integers(0, 9, rows.shape, dtype=np.uint8)
            rows[:] = cv2.add(smooth, noise)
        img.flush()


def make_image(folder: Path, side: int, suffix: str) -> Path:
    """The image in one format, if it is not there yet."""
    array, path = folder / f'{side}.npy', folder / f'{side}.{suffix}'
    if not array.exists():
        make_array(array, side)
    if not path.exists():
        # Mapped: the pixels are read as OpenCV writes them.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == 'png' else []
        with replacing(path) as temporary:
            encoded = temporary.with_name(f'{temporary.name}.{suffix}')
            if not cv2.imwrite(str(encoded), np.load(array, mmap_mode='r'), options):
                raise OSError(f'OpenCV cannot write {path}')
            os.replace(encoded, temporary)
    return path


def annotations(side: int, objects: int, name: str) -> dict[str, Any]:
    """Objects of 8 to 800 px anywhere, in COCO's format."""
    rng = np.random.default_rng(0)
    wh = np.exp(rng.uniform(np.log(8), np.log(800), (objects, 1))) * rng.uniform(
        0.7, 1.4, (objects, 2)
    )
    boxes = np.concatenate([rng.uniform(0, side - wh), wh], axis=1)
    return dict(
        images=[dict(id=1, file_name=name, width=side, height=side)],
        categories=[dict(id=1, name='object')],
        annotations=[
            dict(
                id=i,
                image_id=1,
                category_id=1,
                bbox=box.tolist(),
                area=float(box[2:].prod()),
                iscrowd=0,
            )
            for i, box in enumerate(boxes, start=1)
        ],
    )


def build_dataset(image: Path, side: int, objects: int, loader: str) -> Any:
    """The ChipDataset of the image."""
    ann_file = image.with_name(f'{image.name}.json')
    write_text(ann_file, json.dumps(annotations(side, objects, image.name)))
    pipeline = [
        dict(type=loader),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ChipSampler', pyramid=PYRAMID),
        dict(type='ScaleRangeFilter', pyramid=PYRAMID),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        data_root=str(image.parent),
        ann_file=ann_file.name,
        data_prefix=dict(img=''),
        metainfo=dict(classes=('object',)),
    )
    return DATASETS.build(dict(type='ChipDataset', dataset=dataset, pipeline=pipeline))


def plan(dataset: Any) -> tuple[list[ChipIndex], float]:
    """The chips of an epoch, and the seconds that planning them took."""
    start = time.perf_counter()
    sampler = DATA_SAMPLERS.build(
        dict(type='ChipAwareSampler', dataset=dataset, pyramid=PYRAMID, seed=0)
    )
    return list(sampler), time.perf_counter() - start


def of_every_level(chips: Sequence[ChipIndex], count: int) -> list[ChipIndex]:
    """So many chips, of all levels in turn."""
    levels = [[c for c in chips if c.chip.level == i] for i in range(len(PYRAMID['levels']))]
    levels = [level for level in levels if level]
    return [
        levels[i % len(levels)][i // len(levels) % len(levels[i % len(levels)])]
        for i in range(count)
    ]


def note_start(start: dict[str, float], worker: int) -> None:
    """What a worker has before it loads an image."""
    start.update(
        memory=memory('VmRSS'),
        peak=memory('VmHWM'),
        time=time.perf_counter(),
        cpu=time.process_time(),
    )


def collate(start: dict[str, float], samples: Sequence[dict]) -> dict[str, Any]:
    """A batch, with what the worker has needed for it."""
    batch = pseudo_collate(samples)
    seconds = time.perf_counter() - start['time']
    start['time'] += seconds
    cpu = time.process_time() - start['cpu']
    start['cpu'] += cpu
    return dict(
        batch,
        bytes=memory('VmHWM') - start['memory'],
        seconds=seconds,
        cpu_seconds=cpu,
        # Else what came before the images would count.
        valid=memory('VmHWM') > start['peak'],
    )


def measure(image: Path, args: argparse.Namespace, loader: str, workers: int) -> dict[str, Any]:
    """Load one batch in each worker."""
    dataset = build_dataset(image, args.side, args.objects, loader)
    chips, planning = plan(dataset)
    chosen = of_every_level(chips, args.batch * workers)
    start: dict[str, float] = {}
    batches = list(
        DataLoader(
            dataset,
            batch_size=args.batch,
            sampler=chosen,
            num_workers=workers,
            collate_fn=partial(collate, start),
            worker_init_fn=partial(note_start, start),
        )
    )
    if not all(batch['valid'] for batch in batches):
        raise RuntimeError('a worker began with more memory than it needed: free some before')
    decoded = args.side**2 * 3
    return dict(
        loader=loader,
        format=image.suffix[1:],
        workers=workers,
        file_bytes=image.stat().st_size,
        peak_bytes=max(batch['bytes'] for batch in batches),
        peak=round(max(batch['bytes'] for batch in batches) / decoded, 3),
        seconds_per_chip=round(mean(batch['seconds'] for batch in batches) / args.batch, 2),
        cpu_seconds_per_chip=round(mean(batch['cpu_seconds'] for batch in batches) / args.batch, 4),
        chips=len(chips),
        planning_seconds=round(planning, 3),
    )


def work(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    """What is measured: loader, format, number of workers."""
    files = [suffix for suffix in args.formats if suffix != 'npy']
    runs = [('LoadImageFromFile', suffix, 1) for suffix in files]
    runs += [('LoadLargeImageFromFile', suffix, n) for suffix in files for n in args.workers]
    return runs + [('MapImage', 'npy', n) for n in args.workers if 'npy' in args.formats]


def as_table(result: dict[str, Any]) -> str:
    """The result as a page."""
    side, run, facts = result['side'], result['runs'][0], result['machine']
    lines = [
        '# Chips of a large image',
        '',
        f'`{result["command"]}`',
        '',
        f'{side:,}x{side:,} px, {result["decoded_bytes"] / 1e9:.2f} GB decoded, '
        f'{result["objects"]:,} objects, {run["chips"]:,} chips (annotations read and chips '
        f'planned in {run["planning_seconds"]:.2f} s). Each worker loads {result["batch"]} chips, '
        f'of all levels in turn. OpenCV {facts["opencv"]}, on {facts["machine"]} '
        f'(load {facts["load_before"]} of {facts["cpus"]} cores).',
        '',
        "| transform | file | file, GB | workers | a worker's memory / decoded image | in GB "
        '| s per chip |',
        '|---|---|---|---|---|---|---|',
    ]
    for run in result['runs']:
        lines.append(
            f'| `{run["loader"]}` | {run["format"]} | {run["file_bytes"] / 1e9:.2f} | '
            f'{run["workers"]} | {run["peak"]:.2f} | {run["peak_bytes"] / 1e9:.2f} | '
            f'{run["seconds_per_chip"]:.2f} |'
        )
    return '\n'.join(lines) + (
        f'\n\nThe goal is less than {GOAL} times the decoded image. The memory of the worker that '
        f'needs most counts. Of an array that is mapped, what counts is pages of the file, which '
        f'the system takes back when memory runs short.\n'
    )


def command(args: argparse.Namespace) -> str:
    """How to run this again."""
    return (
        f'python benchmarks/large_images.py --side {args.side} --formats '
        f'{" ".join(args.formats)} --workers {" ".join(map(str, args.workers))} '
        f'--batch {args.batch} --objects {args.objects}'
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    facts = machine(opencv=cv2.__version__, numpy=np.__version__)
    register_all_modules(init_default_scope=True)
    args.folder.mkdir(parents=True, exist_ok=True)
    images = {
        suffix: make_image(args.folder, args.side, suffix)
        for suffix in progress(args.formats, 'making images')
    }
    runs = [
        measure(images[suffix], args, loader, workers)
        for loader, suffix, workers in progress(work(args), 'loading chips', unit=' runs')
    ]
    result = dict(
        command=command(args),
        side=args.side,
        decoded_bytes=args.side**2 * 3,
        objects=args.objects,
        batch=args.batch,
        machine=facts,
        runs=runs,
        goal=GOAL,
    )
    table = as_table(result)
    write_results(args.out, result, table)
    sys.stdout.write(table)
    return result


if __name__ == '__main__':
    main()
