"""The demo: SNIPER against a single scale on the toy scenes, with pictures and a table."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

from harness.comparison import Comparison, execute_all, plan_runs, summarise
from harness.comparison_tables import COLUMNS, table_rows
from harness.training_run import TrainingRun
from mmsniper.convert import load_config
from mmsniper.testing import make_toy_dataset
from mmsniper.utils.command_line import progress
from mmsniper.utils.files import write_json
from mmsniper.visualization import draw_detections, save_figure

SNIPER = 'configs/sniper/faster_rcnn_r18_sniper_toy.py'
SINGLE_SCALE = 'configs/baselines/faster_rcnn_r18_single_scale_toy.py'
PIXELS = 146e6
PICTURES = 5


@dataclass(frozen=True)
class Demo:
    """What the demo is to do.

    Args:
        root (Path): The project's folder.
        out_dir (Path): Folder of everything that it makes but the toy data.
        pixels (float): Training pixels of each of the two detectors. Defaults to 146 million.
        seed (int): Random seed. Defaults to 0.
        jobs (int): Trainings at a time, one thread each. Defaults to 2.
    """

    root: Path
    out_dir: Path
    pixels: float = PIXELS
    seed: int = 0
    jobs: int = 2


def run_demo(demo: Demo, console: Console) -> dict[str, Any]:
    """Make the data, train, test, draw and tell; what an earlier call has done is not done again.

    Args:
        demo (Demo): What to do.
        console (Console): Where to tell.

    Returns:
        dict: What is written to ``summary.json``, see :func:`summarise`.

    Raises:
        RunError: If a training or a test fails.
    """
    os.chdir(demo.root)  # the configs' paths start here
    make_toy_data()
    comparison = Comparison(
        {'SNIPER': SNIPER, 'single-scale': SINGLE_SCALE}, demo.pixels, seeds=(demo.seed,)
    )
    with console.status('counting the pixels of an epoch'):
        contestants = plan_runs(comparison, demo.root, demo.out_dir / 'runs')
    execute_all(contestants, demo.jobs, console)
    draw_chips(demo.root, demo.out_dir / 'chips')
    draw_predictions(contestants[0].runs[0], demo.out_dir / 'detections')
    summary = summarise(comparison, contestants, 'Toy scenes, one seed.')
    write_json(demo.out_dir / 'summary.json', summary)
    console.print(demo_table(summary))
    return summary


def make_toy_data() -> None:
    """Make the toy data set where the configs look for it, or what is missing of it."""
    make_toy_dataset(
        Config.fromfile(SNIPER).data_root,
        progress=lambda images, total: progress(images, 'toy images', total),
    )


def draw_chips(root: Path, out_dir: Path) -> None:
    """Draw training images with their chips, by the tool that does so for any config."""
    tool = root / 'tools' / 'analysis_tools' / 'browse_chips.py'
    subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore:pkg_resources is deprecated',
            str(tool),
            SNIPER,
            '--out-dir',
            str(out_dir),
            '--num',
            str(PICTURES),
        ],
        cwd=root,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def draw_predictions(run: TrainingRun, out_dir: Path) -> None:
    """Draw what the last test of a run found on the test images with the most objects."""
    with open(run.predictions(run.stages[-1]), 'rb') as file:
        by_id = {sample['img_id']: sample['pred_instances'] for sample in pickle.load(file)}
    cfg = load_config(run.root / run.config)
    init_default_scope(cfg.default_scope)
    with redirect_stdout(io.StringIO()):  # pycocotools talks
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    for index in progress(busiest(dataset, PICTURES), 'pictures of detections'):
        info = dataset.get_data_info(index)
        found, objects = by_id[info['img_id']], info['instances']
        path = Path(info['img_path'])
        figure = draw_detections(
            mmcv.imread(str(path)),
            [item['bbox'] for item in objects],
            [item['bbox_label'] for item in objects],
            found['bboxes'].numpy(),
            found['labels'].numpy(),
            found['scores'].numpy(),
            dataset.metainfo['classes'],
            title=f'SNIPER on {path.name}',
        )
        save_figure(figure, out_dir / f'{path.stem}.png')


def busiest(dataset: Any, count: int) -> list[int]:
    """Indices of the images with the most objects, in the order of the data set."""
    counts = [len(dataset.get_data_info(i)['instances']) for i in range(len(dataset))]
    return sorted(sorted(range(len(counts)), key=lambda i: -counts[i])[:count])


def demo_table(summary: dict[str, Any]) -> Table:
    """The table of a summary, a column for each test, so that it fits into 80 characters."""
    rows = table_rows(summary)
    table = Table('', *(f'{name}\n{test}' for name, test, *_ in rows))
    for name, *cells in list(zip(COLUMNS, *rows))[2:]:
        table.add_row(name, *cells)
    return table
