"""The first part of the demo: real images, and a detector that has learned already."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from harness.demo_pictures import draw_chips, draw_found
from mmsniper.apis import SNIPERInferencer

SAMPLE = 'demo/hituav_sample'
MIN_SCORE = 0.8  # a small detector, after a short training, is sure of too much
PICTURES = 5  # of chips


def show_real_images(root: Path, out_dir: Path, console: Console) -> dict[str, Any]:
    """Detect in the validation images of the sample, draw them and chips of the others, and tell.

    Args:
        root (Path): The project's folder.
        out_dir (Path): Folder of the pictures, ``detections`` and ``chips`` in it.
        console (Console): Where to tell.

    Returns:
        dict: Number of ``images`` and ``objects``, and COCO's ``AP`` and ``AP50`` on them.
    """
    sample = root / SAMPLE
    with redirect_stdout(io.StringIO()):  # mmengine and pycocotools talk
        detect = SNIPERInferencer(
            sample / 'detector.py', sample / 'weights.pth', 'pyramid', show_progress=False
        )
        dataset = DATASETS.build(detect.cfg.test_dataloader.dataset)
    images = [dataset.get_data_info(index) for index in range(len(dataset))]
    with console.status(f'detecting in {len(images)} real images'):
        results = detect([image['img_path'] for image in images])
        for image, found in zip(images, results['predictions']):
            draw_found(image, found, dataset.metainfo['classes'], out_dir / 'detections', MIN_SCORE)
    with console.status('drawing chips'):
        draw_chips(root, f'{SAMPLE}/detector.py', out_dir / 'chips', PICTURES)
    told = measure(sample / 'val.json', results)
    console.print(
        f'{told["images"]} real images (HIT-UAV, infrared, from drones; CC BY 4.0), with weights '
        f'that learned from others: AP {told["AP"]:.3f}, AP50 {told["AP50"]:.3f}. A dozen images '
        f'is no benchmark.\nTheir detections and chips: {os.path.relpath(out_dir)}',
        soft_wrap=True,
    )
    return told


def measure(ann_file: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """COCO's AP of what an inferencer has detected in all images of an annotation file."""
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(ann_file))
        evaluation = COCOeval(truth, truth.loadRes(results['detections']), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50 = evaluation.stats[:2].tolist()
    return dict(images=len(truth.imgs), objects=len(truth.anns), AP=ap, AP50=ap50)
