"""MMDetection's own PASCAL VOC 07+12 data, planned and cut as they are."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hub import get_config

from mmsniper.chips import ScalePyramid
from mmsniper.datasets import read_annotations

ROOT = Path(__file__).resolve().parents[2]
# Class, difficult, box as VOC writes it: xmin, ymin, xmax, ymax from 1.
IMAGES = {
    'VOC2007': {
        '000001': ((500, 375), [('dog', 0, (49, 241, 195, 371)), ('person', 1, (9, 13, 352, 300))]),
        '000002': ((375, 500), [('car', 0, (101, 101, 120, 130))]),
    },
    'VOC2012': {
        '2008_000001': ((500, 333), [('boat', 0, (1, 1, 500, 333)), ('bird', 0, (30, 40, 50, 60))]),
        '2008_000002': ((500, 400), [('cat', 1, (30, 40, 250, 260))]),
    },
}
OBJECT = '<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>'


def write_year(root, images):
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    for name, ((width, height), objects) in images.items():
        cv2.imwrite(str(root / f'JPEGImages/{name}.jpg'), np.zeros((height, width, 3), np.uint8))
        text = ''.join(
            OBJECT.format(
                kind,
                difficult,
                ''.join(
                    f'<{key}>{v}</{key}>' for key, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box)
                ),
            )
            for kind, difficult, box in objects
        )
        size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
        (root / f'Annotations/{name}.xml').write_text(f'<annotation>{size}{text}</annotation>')
    (root / 'ImageSets/Main/trainval.txt').write_text('\n'.join(images))


@pytest.fixture
def pyramid():
    """Of the sampler and the pipelines, too."""
    return Config.fromfile(ROOT / 'configs/_base_/pyramids/resolution.py').pyramid


@pytest.fixture
def dataset(tmp_path, chips_of):
    """voc0712.py with each of its two data sets in a ChipDataset, three times over."""
    root = tmp_path / 'VOCdevkit'
    for year, images in IMAGES.items():
        write_year(root / year, images)
    cfg = get_config('mmdet::_base_/datasets/voc0712.py')
    config = cfg.train_dataloader.dataset
    years = config.dataset.datasets
    for year in years:
        year.data_root, year.pipeline = f'{root}/', []
        # Objects under 32 px would be ignored: see below.
        year.filter_cfg.pop('bbox_min_size')
    config.dataset.datasets = [chips_of(year) for year in years]
    return DATASETS.build(config)


def test_the_table_has_sizes_boxes_and_difficult_objects_of_both_years(dataset):
    table = read_annotations(dataset)
    assert table.width.tolist() == [500, 375, 500, 500] * 3
    assert table.height.tolist() == [375, 500, 333, 400] * 3
    # From 0, as MMDetection reads them.
    np.testing.assert_array_equal(
        table.boxes[:6],
        [
            [48, 240, 194, 370],
            [8, 12, 351, 299],
            [100, 100, 119, 129],
            [0, 0, 499, 332],
            [29, 39, 49, 59],
            [29, 39, 249, 259],
        ],
    )
    assert table.ignore[:6].tolist() == [False, True, False, False, False, True]


def test_the_sampler_knows_the_files_of_both_years_and_plans_chips(dataset, make_sampler):
    sampler = make_sampler(dataset)
    assert [str(Path(p).relative_to(Path(p).parents[2])) for p in sampler.img_paths()[:3]] == [
        'VOC2007/JPEGImages/000001.jpg',
        'VOC2007/JPEGImages/000002.jpg',
        'VOC2012/JPEGImages/2008_000001.jpg',
    ]
    images, counts = np.unique(sampler.plan.image, return_counts=True)
    # An image with nothing but a difficult object has no positive chip.
    assert images.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    # The dog, of 138 px, is valid at two levels, as the boat and the bird of the third image are at
    # one each.
    assert counts.tolist() == [2, 1, 2] * 3


def test_chips_come_from_the_image_of_their_year(dataset, make_sampler):
    seen = {}
    for index in make_sampler(dataset):
        sample = dataset[index]['data_samples']
        path = Path(sample.img_path)
        seen.setdefault(path.parts[-3], set()).add(path.name)
        (width, height), _ = IMAGES[path.parts[-3]][path.stem]
        assert sample.ori_shape == (height, width)
        assert len(sample.gt_instances) >= 1
        # Difficult objects are regions to leave alone.
        assert (sample.ignored_instances.labels >= -1).all()
        if path.stem == '000001':
            assert -1 in sample.ignored_instances.labels.tolist()
    assert seen == {'VOC2007': {'000001.jpg', '000002.jpg'}, 'VOC2012': {'2008_000001.jpg'}}


def test_the_stock_filter_would_ignore_small_objects():
    """The reason to leave bbox_min_size out (mmsniper.convert does)."""
    cfg = get_config('mmdet::_base_/datasets/voc0712.py')
    assert [d.filter_cfg.bbox_min_size for d in cfg.train_dataloader.dataset.dataset.datasets] == [
        32,
        32,
    ]


def test_every_object_of_20_to_400_px_has_a_level_and_a_chip(pyramid):
    pyramid = ScalePyramid.from_config(pyramid)
    for width, height in ((500, 375), (375, 500), (500, 500), (500, 112)):
        sides = [s for s in range(20, 401, 5) if s <= min(width, height)]
        boxes = np.array([[0, 0, s, s] for s in [*sides, min(width, height)]], float)
        valid, fits = pyramid.valid_and_fits(boxes, width, height)
        assert (valid & fits).any(axis=1).all()
