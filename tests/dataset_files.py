"""Data sets with large vocabularies, or many people, in the files that their owners give out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import mmengine
import numpy as np


class Scene(NamedTuple):
    """An image and its objects.

    Attributes:
        name: Of its file, without the ending.
        pixels: uint8, shape (height, width, 3).
        boxes: (x1, y1, x2, y2), px.
        labels: Class of each box.
        special: Whether it is a crowd, a group, or to be ignored.
    """

    name: str
    pixels: np.ndarray
    boxes: Sequence[Sequence[int]]
    labels: Sequence[int]
    special: Sequence[bool]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        height, width = self.pixels.shape[:2]
        return width, height


def write_dataset(data: Mapping[str, Any], scenes: Sequence[Scene], classes: Sequence[str]) -> None:
    """Write the images and annotations where the config of a data set looks for them.

    Args:
        data (dict): The config: ``type``, ``data_root``, ``ann_file``, ``data_prefix``, and further
            files where its type has some.
        scenes (Sequence[Scene]): What is in the images.
        classes (Sequence[str]): Names of the classes.
    """
    root = Path(data['data_root'])
    (root / data['ann_file']).parent.mkdir(parents=True, exist_ok=True)
    WRITERS[data['type']](data, root, scenes, classes)


def _write_images(folder: Path, scenes: Iterable[Scene]) -> None:
    for scene in scenes:
        mmcv.imwrite(scene.pixels, str(folder / f'{scene.name}.jpg'))


def _coco(scenes: Sequence[Scene], classes: Sequence[str], folder: str = '') -> dict[str, Any]:
    annotations = []
    for i, scene in enumerate(scenes):
        for (x1, y1, x2, y2), label, crowd in zip(scene.boxes, scene.labels, scene.special):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i + 1,
                    category_id=label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(crowd),
                    segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]],
                )
            )
    images = [
        dict(id=i + 1, file_name=f'{folder}{s.name}.jpg', width=s.size[0], height=s.size[1])
        for i, s in enumerate(scenes)
    ]
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    return dict(images=images, annotations=annotations, categories=categories)


def _lvis(data: Mapping[str, Any], root: Path, scenes: Sequence, classes: Sequence[str]) -> None:
    """Without ``file_name`` and crowds, and annotated for some classes only."""
    coco = _coco(scenes, classes)
    for image in coco['images']:
        image['coco_url'] = f'http://images.cocodataset.org/train2017/{image.pop("file_name")}'
        image.update(neg_category_ids=[len(classes)], not_exhaustive_category_ids=[1])
    for annotation in coco['annotations']:
        del annotation['iscrowd']
    for i, category in enumerate(coco['categories']):
        category.update(frequency='rcf'[i % 3], image_count=1, instance_count=1)
    (root / data['ann_file']).write_text(json.dumps(coco))
    _write_images(root / data['data_prefix']['img'] / 'train2017', scenes)


def _v3det(data: Mapping[str, Any], root: Path, scenes: Sequence, classes: Sequence[str]) -> None:
    file = data.get('label_file', 'annotations/category_name_13204_v3det_2023_v1.txt')
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text('\n'.join(classes))
    coco = _coco(scenes, classes, 'images/n01/')
    (root / data['ann_file']).write_text(json.dumps(coco))
    _write_images(root / data['data_prefix']['img'] / 'images/n01', scenes)


def _objects365(data: Mapping[str, Any], root: Path, scenes: Sequence, classes: Sequence) -> None:
    """Version 1's categories have any order, version 2's names more folders than there are."""
    second, folder = 'V2' in data['type'], root / data['data_prefix']['img']
    coco = _coco(scenes, classes, 'images/v1/patch8/' if second else '')
    if not second:
        coco['categories'].reverse()
    (root / data['ann_file']).write_text(json.dumps(coco))
    _write_images(folder / 'patch8' if second else folder, scenes)


def _open_images(data: Mapping[str, Any], root: Path, scenes: Sequence, classes: Sequence) -> None:
    """Boxes as shares of the image, whose size is in a pickle; images without boxes are in none."""
    scenes = [scene for scene in scenes if len(scene.boxes)]
    _write_images(root / data['data_prefix']['img'], scenes)
    codes = [f'/m/{i:04d}' for i in range(len(classes))]
    _write_csv(root / data['label_file'], zip(codes, classes))
    children = [dict(LabelName=code) for code in codes[1:]]
    hierarchy = dict(LabelName='/m/0bl9f', Subcategory=[dict(LabelName=codes[0])])
    hierarchy['Subcategory'][0]['Subcategory'] = children
    (root / data['hierarchy_file']).write_text(json.dumps(hierarchy))
    columns = [
        *('ImageID', 'Source', 'LabelName', 'Confidence', 'XMin', 'XMax', 'YMin', 'YMax'),
        *('IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside'),
    ]
    rows = [columns]
    metas = []
    for scene in scenes:
        width, height = scene.size
        for (x1, y1, x2, y2), label, group in zip(scene.boxes, scene.labels, scene.special):
            place = x1 / width, x2 / width, y1 / height, y2 / height
            rows.append([scene.name, 'xclick', codes[label], 1, *place, 0, 0, int(group), 0, 0])
        metas.append(dict(filename=f'{scene.name}.jpg', ori_shape=(height, width, 3)))
    _write_csv(root / data['ann_file'], rows)
    mmengine.dump(metas, root / data['meta_file'])
    if data.get('image_level_ann_file'):
        levels = [['ImageID', 'Source', 'LabelName', 'Confidence']]
        levels += [[scene.name, 'verification', codes[0], 1] for scene in scenes]
        _write_csv(root / data['image_level_ann_file'], levels)


def _crowd_human(data: Mapping[str, Any], root: Path, scenes: Sequence, classes: Sequence) -> None:
    """A line of JSON for each image, without its size, which the data set finds out."""
    _write_images(root / data['data_prefix']['img'], scenes)
    lines = []
    for scene in scenes:
        boxes = []
        for (x1, y1, x2, y2), special in zip(scene.boxes, scene.special):
            box = [x1, y1, x2 - x1, y2 - y1]
            tag, extra = ('mask', dict(ignore=1)) if special else ('person', dict(box_id=0))
            boxes.append(dict(tag=tag, hbox=box, vbox=box, fbox=box, head_attr={}, extra=extra))
        lines.append(json.dumps(dict(ID=scene.name, gtboxes=boxes)))
    (root / data['ann_file']).write_text('\n'.join(lines))


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        csv.writer(file).writerows(rows)


WRITERS: dict[str, Callable[[Mapping[str, Any], Path, Sequence, Sequence[str]], None]] = {
    'LVISV1Dataset': _lvis,
    'V3DetDataset': _v3det,
    'Objects365V1Dataset': _objects365,
    'Objects365V2Dataset': _objects365,
    'OpenImagesDataset': _open_images,
    'CrowdHumanDataset': _crowd_human,
}
