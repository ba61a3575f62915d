"""What reading windows of a large scene costs, and what decoding all of it costs.

Makes nearly empty scenes as tiled GeoTIFFs (deflate), with and without overviews, and runs, each in
a process of its own of which CPU seconds and the most resident memory are taken:

- 8 chips, of all levels in turn of a pyramid with the factors 2, 1, 0.5 and the whole image at
  512 px, by LoadLargeImageFromFile, which decodes the image, and by LoadImageWindows;
- infer.py with pictures, by AutoFocus with the toy config and random weights, at a threshold that
  nothing reaches: the coarsest level (0.2) is seen and no other. As it is, and as it decodes the
  scene where rasterio is missing;
- the same on a scene of 50,000x50,000 px by windows, which OpenCV does not decode.

Writes benchmarks/results/window_reading.json and .md. Linux only.

    OMP_NUM_THREADS=1 python benchmarks/window_reading.py
    python benchmarks/window_reading.py --side 6000 --large-side 9000 --out work_dirs/x.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.results import machine, markdown_table, write_results
from mmsniper.utils.command_line import at_least, command_parser, progress
from mmsniper.utils.files import replacing

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/window_reading.json'
FOLDER = ROOT / 'work_dirs/window_reading'
CONFIG = ROOT / 'configs/autofocus/faster_rcnn_r18_autofocus_toy.py'
TILE, BACKGROUND, CHIPS = 512, 90, 8

# As where rasterio is not installed.
DECODED = (
    "import runpy, sys; sys.path.insert(0, 'tools'); "
    'import mmsniper.datasets.windowed_files as files; files.find_spec = lambda name: None; '
    "runpy.run_path('tools/infer.py', run_name='__main__')"
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--side', type=at_least(2000), default=20_000, help='of the scene, px')
    parser.add_argument(
        '--large-side', type=at_least(2000), default=50_000, help='of the second scene, px'
    )
    parser.add_argument('--objects', type=at_least(1), default=500, help='objects in a scene')
    parser.add_argument('--folder', type=Path, default=FOLDER, help='where scenes are made')
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file')
    parser.add_argument('--chips-of', nargs=2, metavar=('FILE', 'LOADER'), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not sys.platform.startswith('linux'):
        parser.error('memory is told in kB by Linux only')
    return args


def boxes_of(side: int, objects: int) -> np.ndarray:
    """Those of the annotations of benchmarks/large_images.py."""
    from large_images import annotations

    return np.array([a['bbox'] for a in annotations(side, objects, '')['annotations']])


def make_scene(path: Path, side: int, objects: int, overviews: bool) -> Path:
    """A grey scene with coloured boxes, written by rows of tiles, if it is not there yet."""
    import rasterio
    from rasterio.windows import Window

    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = boxes_of(side, objects)
    low, high = boxes[:, :2].astype(int), (boxes[:, :2] + boxes[:, 2:]).astype(int)
    colours = np.random.default_rng(1).integers(0, 256, (len(boxes), 3))
    place = dict(crs='EPSG:32633', transform=rasterio.Affine(0.3, 0, 4e5, 0, -0.3, 5e6))
    layout = dict(tiled=True, blockxsize=TILE, blockysize=TILE, compress='deflate', zlevel=1)
    facts = dict(driver='GTiff', width=side, height=side, count=3, dtype='uint8', photometric='RGB')
    with replacing(path) as temporary:
        made = str(temporary.with_suffix('.tif'))
        with rasterio.open(made, 'w', **facts, **layout, **place, BIGTIFF='IF_SAFER') as file:
            for top in range(0, side, TILE):
                rows = np.full((3, min(TILE, side - top), side), BACKGROUND, np.uint8)
                for (x1, y1), (x2, y2), colour in zip(low, high, colours):
                    rows[:, max(y1 - top, 0) : max(y2 - top, 0), x1:x2] = colour[:, None, None]
                file.write(rows, window=Window(0, top, side, rows.shape[1]))
        if overviews:
            with rasterio.open(made, 'r+') as file:
                factors = [2**i for i in range(1, 20) if side >> i >= TILE // 2]
                file.build_overviews(factors, rasterio.enums.Resampling.average)
        os.replace(made, temporary)
    return path


def load_chips(path: Path, loader: str, side: int, objects: int) -> None:
    """Load chips in this process, and print what they cost."""
    from large_images import build_dataset, memory, of_every_level, plan
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    dataset = build_dataset(path, side, objects, loader)
    chips = of_every_level(plan(dataset)[0], CHIPS)
    dataset[chips[0]] if loader == 'LoadImageWindows' else None  # imports rasterio
    before, start = memory('VmRSS'), time.process_time()
    costs = []
    for chip in chips:
        begin = time.process_time()
        dataset[chip]
        costs.append(dict(level=chip.chip.level, seconds=round(time.process_time() - begin, 3)))
    total = round((time.process_time() - start) / len(chips), 3)
    print(json.dumps(dict(seconds_a_chip=total, bytes=memory('VmHWM') - before, chips=costs)))


def run(command: Sequence[str]) -> dict[str, Any]:
    """Run a command; returns what it has cost and its last line."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))} has ended with {process.returncode}')
    return dict(
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        peak_bytes=usage.ru_maxrss * 1024,
        last_line=lines[-1] if lines else '',
    )


def make_weights(folder: Path) -> Path:
    """Random weights of the toy config."""
    import torch
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    from mmsniper.convert import load_config

    path = folder / 'weights.pth'
    if not path.exists():
        register_all_modules()
        torch.manual_seed(0)
        model = MODELS.build(load_config(CONFIG).model)
        torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


def infer(scene: Path, folder: Path, decoded: bool) -> dict[str, Any]:
    """Run infer.py on a scene."""
    out = folder / f'{scene.stem}_{"decoded" if decoded else "windows"}'
    tool = ['-c', DECODED] if decoded else ['tools/infer.py']
    options = ['--mode', 'autofocus', '--thresholds', '1.01', '--device', 'cpu']
    no_ids = ['--cfg-options', 'test_dataloader.dataset.ann_file=nowhere.json']
    inputs = [str(scene), str(CONFIG), str(make_weights(folder)), '--out-dir', str(out)]
    found = run([sys.executable, *tool, *inputs, *options, *no_ids])
    [image] = json.loads((out / 'images.json').read_text())['images']
    return dict(
        what='infer.py, coarsest level',
        scene=scene.name,
        loader='decoded' if decoded else 'windows',
        cpu_seconds=found['cpu_seconds'],
        peak_bytes=found['peak_bytes'],
        seen_pixels=image['focus_pixels'],
    )


def chips(scene: Path, loader: str, args: argparse.Namespace) -> dict[str, Any]:
    """Load chips of a scene in a process of their own."""
    options = ['--side', str(args.side), '--objects', str(args.objects)]
    found = run([sys.executable, __file__, *options, '--chips-of', str(scene), loader])
    cost = json.loads(found['last_line'])
    return dict(
        what='a chip',
        scene=scene.name,
        loader=loader,
        cpu_seconds=cost['seconds_a_chip'],
        peak_bytes=cost['bytes'],
        chips=cost['chips'],
    )


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
        f'GeoTIFFs (deflate). Those with `overviews` in the name have some. Of chips, CPU seconds '
        f'of each and memory beyond what the process had before; of `infer.py`, the whole process, '
        f'of which Python and PyTorch are the greater part. On {facts["machine"]}, load '
        f'{facts["load_before"]} of {facts["cpus"]} cores; rasterio {facts["rasterio"]}.',
        '',
        *markdown_table(['what', 'scene', 'by', 'CPU seconds', 'memory, GB'], rows),
    ]
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    if args.chips_of:
        path, loader = args.chips_of
        load_chips(Path(path), loader, args.side, args.objects)
        return None
    import rasterio

    facts = machine(rasterio=rasterio.__version__, numpy=np.__version__)
    folder, objects = args.folder.absolute(), args.objects
    scene, large = folder / f'{args.side}.tif', folder / f'{args.large_side}_overviews.tif'
    coarse = folder / f'{args.side}_overviews.tif'
    jobs = [
        lambda: chips(make_scene(scene, args.side, objects, False), 'LoadLargeImageFromFile', args),
        lambda: chips(scene, 'LoadImageWindows', args),
        lambda: chips(make_scene(coarse, args.side, objects, True), 'LoadImageWindows', args),
        lambda: infer(scene, folder, True),
        lambda: infer(scene, folder, False),
        lambda: infer(coarse, folder, False),
        lambda: infer(make_scene(large, args.large_side, objects, True), folder, False),
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
