"""Small data sets on disk, and a pyramid whose chips are easy to work out by hand."""

import json

import cv2
import numpy as np
import pytest
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmdet.utils import register_all_modules

import mmsniper.datasets  # noqa: F401 (registers)


@pytest.fixture(autouse=True)
def _mmdet_scope():
    register_all_modules(init_default_scope=True)
    np.random.seed(0)


@pytest.fixture
def pyramid():
    """Chips show 32, 64 and 128 original pixels, fine to coarse."""
    return dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 16)),
            dict(resize=dict(factor=1.0), valid_range=(12, 40)),
            dict(resize=dict(factor=0.5), valid_range=(32, None)),
        ],
    )


@pytest.fixture
def make_coco(tmp_path):
    """Write a COCO data set and return the config of its CocoDataset.

    Each image is a dict: ``size`` (width, height), ``boxes`` (xyxy), and, where wanted, ``crowd``
    (flags), ``categories`` (ids from 1), ``segmentations`` and ``img`` (an array to save).
    """

    def make(images, name='set', **kwargs):
        folder = tmp_path / name
        folder.mkdir()
        coco = dict(images=[], annotations=[], categories=[])
        coco['categories'] = [dict(id=1, name='a'), dict(id=2, name='b')]
        for i, image in enumerate(images):
            width, height = image['size']
            img = image.get('img')
            if img is None:
                img = np.full((height, width, 3), 10 * i, np.uint8)
            cv2.imwrite(str(folder / f'{i}.png'), img)
            coco['images'].append(dict(id=i, file_name=f'{i}.png', width=width, height=height))
            for k, (x1, y1, x2, y2) in enumerate(image['boxes']):
                coco['annotations'].append(
                    dict(
                        id=len(coco['annotations']) + 1,
                        image_id=i,
                        category_id=image.get('categories', [1] * 99)[k],
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        area=(x2 - x1) * (y2 - y1),
                        iscrowd=int(image.get('crowd', [0] * 99)[k]),
                        segmentation=image.get('segmentations', [None] * 99)[k],
                    )
                )
        (folder / 'ann.json').write_text(json.dumps(coco))
        return dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file='ann.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=('a', 'b')),
            **kwargs,
        )

    return make


@pytest.fixture
def five_images(make_coco):
    """Five images of two sizes with 1 to 4 boxes each, far apart; class b is rare."""
    spots = [(10, 10), (150, 20), (20, 150), (150, 150)]
    images = []
    for i in range(5):
        sides = (8 + i, 14, 20 + i, 50)
        boxes = [[x, y, x + s, y + s] for (x, y), s in zip(spots[: i % 4 + 1], sides)]
        size = (240, 220) if i % 2 else (220, 240)
        images.append(dict(size=size, boxes=boxes, categories=[2 if i == 3 else 1] * 4))

    def make(**kwargs):
        return make_coco(images, **kwargs)

    return make


@pytest.fixture
def chip_pipeline(pyramid):
    return [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ChipSampler', pyramid=pyramid),
        dict(type='ScaleRangeFilter', pyramid=pyramid),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'chip'),
        ),
    ]


@pytest.fixture
def chips_of(chip_pipeline):
    """Config of a ChipDataset around another data set."""

    def make(dataset, **kwargs):
        return dict(type='ChipDataset', dataset=dataset, pipeline=chip_pipeline, **kwargs)

    return make


@pytest.fixture
def make_sampler(pyramid):
    """ChipAwareSampler for a data set or its config."""

    def make(dataset, **kwargs):
        dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        kwargs = dict(pyramid=pyramid, seed=0) | kwargs
        return DATA_SAMPLERS.build(dict(type='ChipAwareSampler', dataset=dataset, **kwargs))

    return make
