"""Images like those of COCO, made on the spot, and batches of them through a pipeline."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.runner import Runner

from mmsniper.chips import AnnotationTable
from mmsniper.utils.command_line import progress


def write_coco_like(folder: Path, num_images: int, seed: int = 0) -> None:
    """Make images and annotations whose sizes and numbers are distributed as COCO's.

    Seven boxes an image; 41% of them are smaller than 32 px and 24% larger than 96 px.

    Args:
        folder (Path): Where ``images/`` and ``annotations.json`` go.
        num_images (int): Number of images, of 640x480 px, upright or lying.
        seed (int): Seed.
    """
    rng = np.random.default_rng(seed)
    (folder / 'images').mkdir()
    images, annotations = [], []
    for i in progress(range(num_images), 'making images'):
        width, height = (640, 480) if rng.random() < 0.75 else (480, 640)
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        for box in coco_like_boxes(rng, width, height):
            x, y, w, h = box
            color = rng.integers(0, 256, 3).tolist()
            corners = [(int(x), int(y)), (int(x + w), int(y + h))]
            cv2.rectangle(image, *corners, color, thickness=-1)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': i,
                    'category_id': int(rng.integers(1, 81)),
                    'bbox': box,
                    'area': w * h,
                    'iscrowd': 0,
                }
            )
        cv2.imwrite(str(folder / 'images' / f'{i}.jpg'), image)
        images.append({'id': i, 'file_name': f'{i}.jpg', 'width': width, 'height': height})
    names = DATASETS.get('CocoDataset').METAINFO['classes']
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(names)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(content), 'utf-8')


def coco_like_boxes(rng: np.random.Generator, width: int, height: int) -> list[list[float]]:
    """Boxes (x, y, w, h) of one image, in original pixels, inside the image."""
    count = int(rng.geometric(1 / 7.3))
    size, aspect = rng.lognormal(3.73, 1.18, count), rng.lognormal(0, 0.4, count)
    w = np.clip(size * aspect, 2, width - 1)
    h = np.clip(size / aspect, 2, height - 1)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.stack([x, y, w, h], axis=1).tolist()


def read_coco_like(dataloader: Any, data: Path, workers: int) -> None:
    """Have a data loader's config read what :func:`write_coco_like` wrote; changed in place."""
    dataloader.update(num_workers=workers, persistent_workers=False)
    dataset = dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.update(data_root=str(data), ann_file='annotations.json', data_prefix={'img': 'images/'})


def load_batches(cfg: Config, count: int) -> tuple[list[dict], float, int]:
    """Batches through the config's own pipeline.

    Returns:
        tuple[list[dict], float, int]: Up to ``count`` full batches; the samples per second that the
        loader delivered after its first batch; the number of samples in an epoch.
    """
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    size, epoch = cfg.train_dataloader.batch_size, len(loader.sampler)
    batches: list[dict] = []
    start = 0.0
    for batch in progress(loader, 'loading', min(count, len(loader)), unit=' batches'):
        if not batches:
            start = time.perf_counter()
        if len(batch['inputs']) == size:
            # A copy leaves the shared memory that loader processes deliver in.
            batches.append(copy.deepcopy(batch))
        if len(batches) == count:
            break
    delivered = max(len(batches) - 1, 1) * size
    return batches, delivered / (time.perf_counter() - start), epoch


def write_annotations(file: Path, table: AnnotationTable, classes: Sequence[str]) -> None:
    """Write the boxes of a table as a COCO file, image by image, of classes drawn at random.

    Args:
        file (Path): The file.
        table (AnnotationTable): Image sizes and boxes. Ignored boxes are crowds.
        classes (Sequence[str]): Names of the classes.
    """
    rng = np.random.default_rng(0)
    names = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    with open(file, 'w', encoding='utf-8') as out:
        out.write(f'{{"categories": {json.dumps(names)}, "images": [')
        sizes = zip(table.width.tolist(), table.height.tolist())
        for i, (width, height) in enumerate(sizes):
            entry = dict(id=i, file_name=f'patch{i % 50}/{i:08d}.jpg', width=width, height=height)
            out.write((', ' if i else '') + json.dumps(entry))
        out.write('], "annotations": [')
        category = rng.integers(1, len(classes) + 1, len(table.boxes)).tolist()
        columns = (table.image.tolist(), table.boxes.tolist(), table.ignore.tolist())
        for k, (image, (x1, y1, x2, y2), crowd) in enumerate(zip(*columns)):
            box = [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
            entry = dict(id=k + 1, image_id=image, category_id=category[k], bbox=box)
            entry |= dict(area=round(box[2] * box[3], 2), iscrowd=int(crowd))
            out.write((', ' if k else '') + json.dumps(entry))
        out.write(']}')
