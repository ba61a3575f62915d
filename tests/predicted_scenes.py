"""A small COCO data set, detections in it of every kind, and the files that the tools read."""

import json
import pickle

import cv2
import numpy as np
import torch

WIDTH, HEIGHT = 200, 150
# Class, box (xyxy), and whether it is a crowd; the third image has an object at the edge.
OBJECTS = {
    1: [
        ('person', [10, 10, 30, 30], 0),
        ('dog', [60, 10, 80, 30], 0),
        ('person', [100, 0, 190, 60], 1),
    ],
    2: [],
    3: [('dog', [0, 50, 20, 70], 0)],
}
# Class, box, score; in the order of the scores, each with what it is.
DETECTIONS = {
    1: [
        ('person', [110, 10, 120, 20], 0.95),  # in the crowd: neither right nor wrong
        ('person', [10, 10, 30, 30], 0.9),  # right
        ('person', [10, 10, 30, 29], 0.8),  # found twice
        ('person', [60, 10, 80, 30], 0.7),  # another class
        ('person', [10, 22, 30, 42], 0.6),  # badly placed, IoU 160 / 640
        ('person', [60, 24, 80, 44], 0.5),  # near another class, IoU 120 / 680
        ('dog', [150, 20, 160, 30], 0.4),  # background: the crowd is of persons
    ],
    2: [('person', [50, 50, 70, 70], 0.85)],  # background
    3: [],
}
KINDS = {
    0.85: 'background',
    0.8: 'found twice',
    0.7: 'another class',
    0.6: 'badly placed',
    0.5: 'near another class',
    0.4: 'background',
}
CLASSES = ('cat', 'person', 'dog')
ATTRIBUTES = {
    1: dict(time='day', height_m=60, note=['a']),
    2: dict(time='night', height_m=110),
    3: dict(time='night', height_m=60),
}
CONFIG = """
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type={type!r}, data_root={root!r}, ann_file='a.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('dog', 'person')), test_mode=True,
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]))
"""


def write_data(folder, objects=OBJECTS, attributes=ATTRIBUTES, kind='CocoDataset', dtype=np.uint8):
    """Write images, their COCO file and a config; returns the config's path.

    Of the file's three classes the config has two, in another order: labels follow the file.
    """
    rng = np.random.default_rng(0)
    for i in objects:
        cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 250, (HEIGHT, WIDTH)).astype(dtype))
    rows = [(i, *row) for i, of_image in objects.items() for row in of_image]
    content = dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT, **attributes.get(i, {}))
            for i in objects
        ],
        annotations=[
            dict(
                id=k,
                image_id=i,
                category_id=CLASSES.index(name) + 5,
                bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]],
                area=(box[2] - box[0]) * (box[3] - box[1]),
                iscrowd=crowd,
            )
            for k, (i, name, box, crowd) in enumerate(rows)
        ],
        categories=[dict(id=k, name=name) for k, name in enumerate(CLASSES, start=5)],
    )
    (folder / 'a.json').write_text(json.dumps(content))
    (folder / 'config.py').write_text(CONFIG.format(root=str(folder), type=kind))
    return str(folder / 'config.py')


def write_predictions(path, detections=DETECTIONS):
    """Write detections as ``tools/test.py --out`` does; returns the path."""
    samples = [
        dict(
            img_id=i,
            ori_shape=(HEIGHT, WIDTH),
            pred_instances=dict(
                bboxes=torch.tensor([box for _, box, _ in found]).float().reshape(-1, 4),
                labels=torch.tensor([CLASSES.index(name) - 1 for name, _, _ in found]).long(),
                scores=torch.tensor([score for _, _, score in found]),
            ),
        )
        for i, found in detections.items()
    ]
    path.write_bytes(pickle.dumps(samples))
    return str(path)
