"""Detections as COCO results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config, ConfigDict
from numpy.typing import NDArray

from mmsniper.datasets.wrappers import read_datasets


@dataclass(frozen=True)
class Classes:
    """What the labels of a detector mean.

    Attributes:
        names: Names of the classes.
        ids: Category ids in COCO results.
        palette: Colours, or the name of a palette.
        source: Where the ids are from, in words.
    """

    names: Sequence[str]
    ids: Sequence[int]
    palette: Any
    source: str

    @classmethod
    def of(cls, cfg: Config, checkpoint: Mapping[str, Any], palette: str = 'none') -> Classes:
        """Ask the checkpoint, the config's data set and its annotation file."""
        metainfo, ann_file = _dataset(cfg)
        meta = checkpoint.get('meta') or {}
        saved = meta.get('dataset_meta') or {}
        metainfo = {**metainfo, **{key.lower(): value for key, value in saved.items()}}
        names = list(metainfo.get('classes') or ())
        if palette == 'none':
            palette = metainfo.get('palette') or 'random'
        # In the order of the annotation file, as CocoDataset numbers its labels.
        listed = [(c['name'], c['id']) for c in _categories(ann_file) if c['name'] in names]
        if names and len(listed) == len(names):
            names, ids = zip(*listed)
            return cls(names, ids, palette, f'those of {ann_file}')
        return cls(names, range(1, len(names) + 1), palette, 'label + 1')

    def name(self, label: int) -> str:
        return self.names[label] if label < len(self.names) else f'class {label}'

    def category(self, label: int) -> int:
        return self.ids[label] if label < len(self.ids) else label + 1

    def coco(self) -> dict[str, list[Any]]:
        """COCO's annotation format with the categories, without images and annotations."""
        categories = [dict(id=key, name=name) for key, name in zip(self.ids, self.names)]
        return dict(images=[], annotations=[], categories=categories)


def _dataset(cfg: Config) -> tuple[Mapping[str, Any], str | None]:
    """Metainfo and annotation file of the config's (first) test data set, unread."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        return {}, None
    config = ConfigDict(deepcopy(next(read_datasets(loader.dataset))), lazy_init=True, pipeline=[])
    dataset = DATASETS.build(config)
    return dataset.metainfo, getattr(dataset, 'ann_file', None)


def _categories(ann_file: str | None) -> list[Mapping[str, Any]]:
    if not ann_file or Path(ann_file).suffix != '.json' or not Path(ann_file).is_file():
        return []
    content = json.loads(Path(ann_file).read_text('utf-8'))
    return content.get('categories', []) if isinstance(content, dict) else []


def content_of(sample: DetDataSample, classes: Classes) -> dict[str, Any]:
    """What is kept of an image, as numbers: 1/1000 of a pixel is exact enough.

    Args:
        sample (DetDataSample): What the model predicts.
        classes (Classes): The classes.

    Returns:
        dict: ``width`` and ``height`` of the image; ``detections``, each with ``category_id``,
        ``bbox`` (x, y, width, height in original pixels) and ``score``, with masks also
        ``segmentation``, a COCO RLE; of AutoFocus ``focus_chips``, for each level, fine to coarse,
        and ``focus_pixels``.
    """
    found = sample.pred_instances.cpu().numpy()
    rles = coco_rles(found.get('masks'))
    low, high = np.split(found.bboxes.astype(float), 2, axis=1)
    boxes = np.concatenate([low, high - low], axis=1).round(3).tolist()
    detections = [
        dict(category_id=classes.category(label), bbox=box, score=round(score, 6))
        for label, box, score in zip(found.labels.tolist(), boxes, found.scores.tolist())
    ]
    for detection, rle in zip(detections, rles):
        detection['segmentation'] = dict(rle, counts=rle['counts'].decode())
    height, width = sample.ori_shape[:2]
    content = dict(width=width, height=height, detections=detections)
    if 'focus_chips' in sample:
        content['focus_chips'] = [level.round(3).tolist() for level in sample.focus_chips]
        content['focus_pixels'] = int(sample.focus_pixels)
    return content


def coco_rles(masks: NDArray[np.bool_] | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Masks (n, h, w), or RLEs already, as COCO's RLEs; none of None."""
    return encode_mask_results(masks) if isinstance(masks, np.ndarray) else list(masks or ())


def coco_results(
    number: int, name: str, content: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An image and its detections in COCO's formats.

    Args:
        number (int): Id of the image.
        name (str): Its file name.
        content (dict): What :func:`content_of` returns.

    Returns:
        tuple[dict, list[dict]]: The image, and its results.
    """
    image = dict(id=number, file_name=name, **content)
    found = image.pop('detections')
    return image, [dict(image_id=number, **detection) for detection in found]
