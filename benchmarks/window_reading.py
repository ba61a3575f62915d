"""What reading windows of a large scene costs, and what decoding all of it costs.

Makes nearly empty scenes as tiled GeoTIFFs (deflate), with and without overviews, and runs, each in
a process of its own of which CPU seconds and the most resident memory are taken:

- a chip of each level of a pyramid with the factors 2, 1, 0.5 and the whole image at 512 px, by
  LoadLargeImageFromFile, which decodes the image, and by LoadImageWindows;
- infer.py with pictures, by AutoFocus with the toy detector and random weights, at a threshold that
  nothing reaches: the coarsest level (0.1) is seen and no other. As it is, and as it decodes the
  scene where rasterio is missing;
- the same on a scene of 50,000x50,000 px, which OpenCV does not decode.

Writes benchmarks/results/window_reading.json and .md, run by run. Linux only.

    OMP_NUM_THREADS=1 python benchmarks/window_reading.py
    python benchmarks/window_reading.py --side 6000 --large-side 9000 --out work_dirs/x.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from large_images import annotations, build_dataset, of_every_level, plan
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from harness.costs import memory
from harness.results import machine, markdown_table, write_results
from mmsniper.convert import load_config
from mmsniper.datasets import windowed_files
from mmsniper.utils.command_line import at_least, command_parser, progress
from mmsniper.utils.files import replacing, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/window_reading.json'
FOLDER = ROOT / 'work_dirs/window_reading'
sys.path.append(str(ROOT / 'tools'))
CONFIG = ROOT / 'configs/autofocus/faster_rcnn_r18_autofocus_toy.py'
TILE, CHIPS, COARSEST = 512, 4, 0.1


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--side', type=at_least(2000), default=20_000, help='of the scene, px')
    parser.add_argument(
        '--large-side', type=at_least(2000), default=50_000, help='of the second scene, px'
    )
    parser.add_argument('--objects', type=at_least(1), default=500, help='objects in a scene')
    parser.add_argument('--folder', type=Path, default=FOLDER, help='where scenes are made')
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file')
    args = parser.parse_args(argv)
    if not sys.platform.startswith('linux'):
        parser.error('memory is told in kB by Linux only')
    return args


def boxes_of(side: int, objects: int) -> np.ndarray:
    """Those of the annotations of benchmarks/large_images.py."""
    return np.array([a['bbox'] for a in annotations(side, objects, '')['annotations']])


def make_scene(path: Path, side: int, objects: int, overviews: bool) -> dict[str, Any]:
    """Boxes of one colour each in a black scene, of which empty tiles take no room."""
    import rasterio

    if path.exists():
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = boxes_of(side, objects)
    low, high = boxes[:, :2].astype(int), (boxes[:, :2] + boxes[:, 2:]).astype(int)
    colours = np.random.default_rng(1).integers(1, 256, (len(boxes), 3), np.uint8)
    place = dict(crs='EPSG:32633', transform=rasterio.Affine(0.3, 0, 4e5, 0, -0.3, 5e6))
    layout = dict(tiled=True, blockxsize=TILE, blockysize=TILE, compress='deflate', zlevel=1)
    facts = dict(driver='GTiff', width=side, height=side, count=3, dtype='uint8', photometric='RGB')
    with replacing(path) as temporary:
        made = str(temporary.with_suffix('.tif'))
        sparse = dict(BIGTIFF='IF_SAFER', SPARSE_OK=overviews)  # OpenCV reads no empty tiles
        with rasterio.open(made, 'w', **facts, **layout, **place, **sparse) as file:
            for (x1, y1), (x2, y2), colour in zip(low, high, colours):
                part = np.broadcast_to(colour[:, None, None], (3, y2 - y1, x2 - x1))
                file.write(part, window=((y1, y2), (x1, x2)))
        if overviews:
            factors = [2**i for i in range(1, 20) if side >> i >= TILE // 2]
            with rasterio.Env(SPARSE_OK_OVERVIEW=True), rasterio.open(made, 'r+') as file:
                file.build_overviews(factors, rasterio.enums.Resampling.average)
        os.replace(made, temporary)
    return {}


def forked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a function in a process of its own, with all that has been imported.

    Returns:
        dict: What it returns, and ``cpu_seconds`` and ``peak_bytes`` of the process.
    """
    receiving, sending = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(receiving)
            with open(sending, 'w', encoding='utf-8') as pipe:
                json.dump(work(), pipe)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(sending)
    with open(receiving, encoding='utf-8') as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError('a process has failed, see above')
    costs = dict(cpu_seconds=usage.ru_utime + usage.ru_stime, peak_bytes=usage.ru_maxrss * 1024)
    return dict(costs, **json.loads(text))


def chips(path: Path, loader: str, side: int, objects: int) -> dict[str, Any]:
    """Load a chip of each level."""

    def work() -> dict[str, Any]:
        dataset = build_dataset(path, side, objects, loader)
        chosen = of_every_level(plan(dataset)[0], CHIPS)
        before, seconds = memory('VmRSS'), []
        for chip in chosen:
            start = time.process_time()
            dataset[chip]
            seconds.append(round(time.process_time() - start, 3))
        levels = [chip.chip.level for chip in chosen]
        return dict(more_bytes=memory('VmHWM') - before, levels=levels, seconds=seconds)

    cost = forked(work)
    return dict(
        what='a chip',
        scene=path.name,
        loader=loader,
        cpu_seconds=round(mean(cost['seconds']), 3),
        peak_bytes=cost['more_bytes'],
        of_levels=dict(zip(map(str, cost['levels']), cost['seconds'])),
    )


def infer(scene: Path, folder: Path, decoded: bool) -> dict[str, Any]:
    """Run infer.py on a scene, as if rasterio were not installed or as it is."""
    out = folder / f'{scene.stem}_{"decoded" if decoded else "windows"}'

    def work() -> dict[str, Any]:
        if decoded:
            windowed_files.find_spec = lambda name: None
        tool = importlib.import_module('infer')
        options = ['--mode', 'autofocus', '--thresholds', '1.01', '--device', 'cpu']
        no_ids = ['--cfg-options', 'test_dataloader.dataset.ann_file=nowhere.json']
        inputs = [scene, folder / 'config.py', folder / 'weights.pth', '--out-dir', out]
        tool.main([*map(str, inputs), *options, *no_ids])
        return {}

    cost = forked(work)
    [image] = json.loads((out / 'images.json').read_text('utf-8'))['images']
    return dict(
        what='infer.py',
        scene=scene.name,
        loader='decoded' if decoded else 'windows',
        cpu_seconds=round(cost['cpu_seconds'], 2),
        peak_bytes=cost['peak_bytes'],
        seen_pixels=image['focus_pixels'],
    )


def make_model(folder: Path) -> dict[str, Any]:
    """The toy config with another coarsest level, and random weights of it."""
    levels = [
        dict(resize=dict(factor=factor), valid_range=valid_range)
        for factor, valid_range in zip((1.0, 0.4, COARSEST), ((0, 48), (32, 128), (96, None)))
    ]
    text = f'_base_ = {str(CONFIG)!r}\npyramid = dict(chip_size=160, levels={levels})\n'
    write_text(folder / 'config.py', text)
    torch.manual_seed(0)
    state = MODELS.build(load_config(folder / 'config.py').model).state_dict()
    torch.save(dict(state_dict=state, meta={}), folder / 'weights.pth')
    return {}


def as_table(result: dict[str, Any]) -> str:
    """The result as a page."""
    facts = result['machine']
    rows = [
        (
            run['what'],
            run['scene'],
            f'`{run["loader"]}`',
            f'{run["cpu_seconds"]:.2f}',
            f'{run["peak_bytes"] / 1e9:.2f}',
        )
        for run in result['runs']
    ]
    lines = [
        '# Windows of large scenes',
        '',
        f'`{result["command"]}`',
        '',
        f'Nearly empty scenes of {result["side"]:,} and {result["large_side"]:,} px a side, tiled '
        f'GeoTIFFs (deflate). Those with `overviews` in the name have some. Of a chip, the '
        f'mean over {CHIPS} levels, and the most memory beyond what the process had; of `infer.py` '
        f'CPU seconds after importing, and all memory of the process. On {facts["machine"]}, load '
        f'{facts["load_before"]} of {facts["cpus"]} cores; rasterio {facts["rasterio"]}.',
        '',
        *markdown_table(['what', 'scene', 'by', 'CPU seconds', 'memory, GB'], rows),
    ]
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    facts = machine(rasterio=version('rasterio'), numpy=np.__version__)
    register_all_modules(init_default_scope=True)
    folder, side, objects = args.folder.absolute(), args.side, args.objects
    scene, coarse = folder / f'{side}.tif', folder / f'{side}_overviews.tif'
    large = folder / f'{args.large_side}_overviews.tif'
    for path, length in ((scene, side), (coarse, side), (large, args.large_side)):
        # In a process of its own: what GDAL has opened survives no fork.
        forked(partial(make_scene, path, length, objects, path != scene))
    forked(partial(make_model, folder))
    jobs = [
        partial(infer, large, folder, False),
        partial(chips, scene, 'LoadLargeImageFromFile', side, objects),
        partial(chips, scene, 'LoadImageWindows', side, objects),
        partial(chips, coarse, 'LoadImageWindows', side, objects),
        partial(infer, scene, folder, True),
        partial(infer, scene, folder, False),
        partial(infer, coarse, folder, False),
    ]
    result = dict(
        command=f'python benchmarks/window_reading.py --side {args.side} --large-side '
        f'{args.large_side} --objects {objects}',
        side=args.side,
        large_side=args.large_side,
        objects=objects,
        machine=facts,
        runs=[],
    )
    for job in progress(jobs, 'measuring', unit=' runs'):
        result['runs'].append(job())
        write_results(args.out, result, as_table(result))
    sys.stdout.write(as_table(result))
    return result


if __name__ == '__main__':
    main()
