"""A small COCO file with images, and a config that trains, validates and tests on it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

NAMES = ('disc', 'ring', 'square')
SIZE = (64, 48)


def coco(names=NAMES, images=2):
    """What is in an annotation file: in each image one object of each class."""
    annotations = [
        dict(
            id=i * len(names) + k + 1,
            image_id=i + 1,
            category_id=k + 1,
            bbox=[4 + 10 * k, 4, 8, 8],
            area=64,
            iscrowd=0,
        )
        for i in range(images)
        for k in range(len(names))
    ]
    return dict(
        images=[
            dict(id=i + 1, file_name=f'{i}.png', width=SIZE[0], height=SIZE[1])
            for i in range(images)
        ],
        annotations=annotations,
        categories=[dict(id=k + 1, name=name) for k, name in enumerate(names)],
    )


def write(content, path: Path) -> Path:
    """Write an annotation file and those of its images that are not there yet."""
    path.write_text(json.dumps(content))
    for image in content['images']:
        if not (path.parent / image['file_name']).exists():
            cv2.imwrite(str(path.parent / image['file_name']), np.full((48, 64, 3), 99, np.uint8))
    return path


def config(folder, classes=NAMES, train='train.json', val='val.json', num_classes=3, **keys):
    """The config, of a detector that is not built."""

    def loader(ann_file, test_mode):
        dataset = dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file=ann_file,
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            pipeline=[dict(type='LoadImageFromFile')],
            test_mode=test_mode,
        )
        return dict(batch_size=1, num_workers=0, dataset=dataset)

    heads = dict(bbox_head=dict(type='Shared2FCBBoxHead', num_classes=num_classes))
    return Config(
        deepcopy(
            dict(
                default_scope='mmdet',
                model=dict(type='FasterRCNN', rpn_head=dict(num_classes=1), roi_head=heads),
                train_dataloader=loader(train, False),
                val_dataloader=loader(val, True),
                val_evaluator=dict(type='CocoMetric', ann_file=str(folder / val)),
                test_dataloader=loader(val, True),
                test_evaluator=dict(type='CocoMetric', ann_file=str(folder / val)),
                **keys,
            )
        )
    )
