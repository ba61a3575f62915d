"""The pictures of the demo: chips, and detections beside what they should have been."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv

from mmsniper.visualization import draw_detections, save_figure


def draw_chips(root: Path, config: str, out_dir: Path, count: int) -> None:
    """Draw training images with their chips, by the tool that does so for any config.

    Args:
        root (Path): The project's folder.
        config (str): The config, from there.
        out_dir (Path): Folder of the pictures.
        count (int): Number of images.
    """
    tool = root / 'tools' / 'analysis_tools' / 'browse_chips.py'
    options = ['--out-dir', str(out_dir), '--num', str(count), '--negatives', 'none']
    subprocess.run(
        [sys.executable, str(tool), config, *options],
        cwd=root,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def draw_found(
    image: Mapping[str, Any],
    found: Mapping[str, Any],
    classes: Sequence[str],
    out_dir: Path,
    min_score: float = 0.3,
) -> None:
    """Draw what was detected in an image.

    Args:
        image (dict): What the data set knows of it, ``img_path`` and ``instances``.
        found (dict): ``bboxes``, xyxy in original px, ``labels`` and ``scores``.
        classes (Sequence[str]): Name of each label.
        out_dir (Path): Folder of the picture, which has the name of the image.
        min_score (float): Minimum score of what is drawn. Defaults to 0.3.
    """
    path = Path(image['img_path'])
    figure = draw_detections(
        mmcv.imread(str(path)),
        [item['bbox'] for item in image['instances']],
        [item['bbox_label'] for item in image['instances']],
        found['bboxes'],
        found['labels'],
        found['scores'],
        classes,
        score_thr=min_score,
        title=f'SNIPER on {path.name}',
    )
    save_figure(figure, out_dir / f'{path.stem}.png')
