"""The demo: real images, then SNIPER against a single scale on toy scenes, with a table."""

from __future__ import annotations

import io
import os
import pickle
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

from harness.comparison import Comparison, execute_all, plan_runs, summarise
from harness.comparison_tables import COLUMNS, table_rows
from harness.demo_pictures import draw_chips, draw_found
from harness.real_images import show_real_images
from harness.training_run import TrainingRun
from mmsniper.convert import load_config
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset
from mmsniper.utils.command_line import progress
from mmsniper.utils.files import write_json

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
    """Show real images; make toy data, train, test, draw and tell.

    What an earlier call has done is not done again, but for the real images, which take seconds.

    Args:
        demo (Demo): What to do.
        console (Console): Where to tell.

    Returns:
        dict: What is written to ``summary.json``, see :func:`summarise`.

    Raises:
        RunError: If a training or a test fails.
    """
    os.chdir(demo.root)  # the configs' paths start here
    MMLogger.get_instance('demo', log_level='ERROR')  # the console says what is to be known
    show_real_images(demo.root, demo.out_dir / 'real', console)
    make_toy_data()
    comparison = Comparison(
        {'SNIPER': SNIPER, 'single-scale': SINGLE_SCALE}, demo.pixels, seeds=(demo.seed,)
    )
    with console.status('counting the pixels of an epoch'):
        contestants = plan_runs(comparison, demo.root, demo.out_dir / 'runs')
    execute_all(contestants, demo.jobs, console)
    draw_chips(demo.root, SNIPER, demo.out_dir / 'chips', PICTURES)
    draw_predictions(contestants[0].runs[0], demo.out_dir / 'detections')
    summary = summarise(comparison, contestants, 'Toy scenes, one seed.')
    write_json(demo.out_dir / 'summary.json', summary)
    console.print(demo_table(summary))
    return summary


def make_toy_data(config: str = SNIPER, rotated: bool = False) -> None:
    """Make the toy data set where a config looks for it, or what is missing of it."""
    make_toy_dataset(
        Config.fromfile(config).data_root,
        ToyDatasetSpec(rotated=rotated),
        progress=lambda images, total: progress(images, 'toy images', total),
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
        found = {name: values.numpy() for name, values in by_id[info['img_id']].items()}
        draw_found(info, found, dataset.metainfo['classes'], out_dir)


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
