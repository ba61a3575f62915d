"""SNIPER in a few minutes: toy data, training, a test, pictures and a table.

Makes the toy data set; trains SNIPER and the same detector on whole images at a single scale, with
the same number of training pixels; tests both; draws chips and detections. Interrupted, it goes on
where it was when it is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmsniper.testing import make_toy_dataset
from mmsniper.testing.comparison import (
    COLUMNS,
    Comparison,
    execute_all,
    plan_runs,
    summarise,
    table_rows,
    write_text,
)
from mmsniper.testing.training_run import RunError, TrainingRun
from mmsniper.visualization import draw_detections, save_figure

ROOT = Path(__file__).resolve().parents[1]
SNIPER = 'configs/sniper/faster_rcnn_r18_sniper_toy.py'
SINGLE_SCALE = 'configs/baselines/faster_rcnn_r18_single_scale_toy.py'
PICTURES = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--pixels', type=float, default=150e6,
        help='training pixels of each of the two detectors [%(default).0f]',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='random seed [%(default)s]')
    parser.add_argument(
        '--jobs', type=int, default=min(2, _cores()),
        help='trainings at a time, one thread each [%(default)s]',
    )  # fmt: skip
    parser.add_argument(
        '--out-dir', default=str(ROOT / 'work_dirs' / 'demo'), help='folder of the results'
    )
    return parser.parse_args(argv)


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def draw_chips(out_dir: Path) -> None:
    """Draw training images with their chips, by the tool that does so for any config."""
    tool = ROOT / 'tools' / 'analysis_tools' / 'browse_chips.py'
    subprocess.run(
        [sys.executable, str(tool), SNIPER, '--out-dir', str(out_dir), '--num', str(PICTURES)],
        cwd=ROOT, check=True,
    )  # fmt: skip


def choose_images(dataset: Any, count: int) -> list[int]:
    """Indices of the images with the most objects, in their order."""
    counts = [len(dataset.get_data_info(i)['instances']) for i in range(len(dataset))]
    return sorted(sorted(range(len(counts)), key=lambda i: -counts[i])[:count])


def draw_predictions(run: TrainingRun, out_dir: Path, console: Console) -> None:
    """Draw what the last test of a run found on a few test images."""
    with open(run.predictions(run.stages[-1]), 'rb') as file:
        by_id = {sample['img_id']: sample['pred_instances'] for sample in pickle.load(file)}
    cfg = Config.fromfile(ROOT / run.config)
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    names = dataset.metainfo['classes']
    images = choose_images(dataset, PICTURES)
    for index in track(images, 'pictures of detections', console=console):
        info = dataset.get_data_info(index)
        found, objects = by_id[info['img_id']], info['instances']
        figure = draw_detections(
            mmcv.imread(info['img_path']),
            [item['bbox'] for item in objects],
            [item['bbox_label'] for item in objects],
            found['bboxes'].numpy(), found['labels'].numpy(), found['scores'].numpy(), names,
            title=f'SNIPER on {Path(info["img_path"]).name}',
        )  # fmt: skip
        save_figure(figure, out_dir / f'{Path(info["img_path"]).stem}.png')


def show_table(summary: dict, console: Console) -> None:
    """Print the table of a summary, turned so that it fits into 80 columns."""
    rows = table_rows(summary)
    table = Table('', *(f'{row[0]}\n{row[1]} test' for row in rows))
    for name, *cells in list(zip(COLUMNS, *rows))[2:]:
        table.add_row(name, *cells)
    console.print(table)


def run_demo(args: argparse.Namespace, console: Console) -> None:
    """Do what the demo is there for."""
    out_dir = Path(args.out_dir).resolve()
    os.chdir(ROOT)  # the configs' paths start here
    toy_data = Config.fromfile(SNIPER).data_root
    make_toy_dataset(
        toy_data, progress=lambda images, total: track(
            images, 'toy images', total, console=console)
    )  # fmt: skip
    comparison = Comparison(
        {'SNIPER': SNIPER, 'single-scale': SINGLE_SCALE}, args.pixels, seeds=(args.seed,)
    )
    with console.status('counting the pixels of an epoch'):
        contestants = plan_runs(comparison, ROOT, out_dir / 'runs')
    execute_all(contestants, args.jobs, console)
    draw_chips(out_dir / 'chips')
    draw_predictions(contestants[0].runs[0], out_dir / 'detections', console)
    summary = summarise(comparison, contestants, 'Toy scenes, one seed.')
    write_text(out_dir / 'summary.json', json.dumps(summary, indent=2) + '\n')
    show_table(summary, console)
    console.print(
        f'Chips of training images: {out_dir}/chips\nDetections: {out_dir}/detections\n'
        f'All numbers: {out_dir}/summary.json',
        highlight=False,
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    start = time.perf_counter()
    try:
        run_demo(args, console)
    except KeyboardInterrupt:
        sys.exit('interrupted; run it again to go on')
    except (ValueError, FileExistsError, RunError, subprocess.CalledProcessError) as error:
        sys.exit(f'error: {error}')
    console.print(f'The demo took {(time.perf_counter() - start) / 60:.1f} minutes.')


if __name__ == '__main__':
    main()
