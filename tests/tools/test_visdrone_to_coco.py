"""VisDrone's annotations become COCO's: what counts, what is forgiven, and what is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image

from mmsniper.chips import ScalePyramid
from mmsniper.datasets import read_annotations

ROOT = Path(__file__).resolve().parents[2]
FIRST = '10,20,30,40,1,4,0,0\n50,5,8,9,1,1,1,2,\n100,100,60,50,0,0,0,0\n'
# An object that is not evaluated, one of no class, an empty one, and a car.
SECOND = '1,2,20,20,0,6,0,0\n90,10,30,20,0,11,0,0\n5,5,0,7,1,4,0,0\n\n200,100,40,30,1,4,0,0\n'


@pytest.fixture
def tool(load_tool):
    return load_tool('dataset_tools/visdrone_to_coco')


@pytest.fixture
def data_root(tmp_path):
    """Two images for training and one for validation."""
    for split, texts in (('train', {'b_0002': SECOND, 'a_0001': FIRST}), ('val', {'c_1': FIRST})):
        folder = tmp_path / f'VisDrone2019-DET-{split}'
        for name in ('images', 'annotations'):
            (folder / name).mkdir(parents=True)
        for i, (name, text) in enumerate(sorted(texts.items())):
            image = Image.new('RGB', (320 + i, 240))
            image.save(folder / 'images' / f'{name}.jpg')
            (folder / 'annotations' / f'{name}.txt').write_text(text)
    return tmp_path


@pytest.fixture
def convert(tool, data_root):
    """Convert, and read what has been written for a split."""

    def run(split='train'):
        tool.main([str(data_root)])
        return json.loads((data_root / 'annotations' / f'{split}.json').read_text())

    return run


def of_image(coco, image_id, **wanted):
    return [
        a
        for a in coco['annotations']
        if a['image_id'] == image_id and all(a[key] == value for key, value in wanted.items())
    ]


def test_images_have_the_sizes_of_their_headers_in_the_order_of_their_names(convert):
    coco = convert()
    assert coco['images'] == [
        dict(id=1, file_name='a_0001.jpg', width=320, height=240),
        dict(id=2, file_name='b_0002.jpg', width=321, height=240),
    ]
    assert [c['id'] for c in coco['categories']] == list(range(1, 11))
    assert coco['categories'][7]['name'] == 'awning-tricycle'
    assert len(convert('val')['images']) == 1


def test_objects_keep_their_class_box_and_occlusion(convert):
    objects = of_image(convert(), 1, iscrowd=0)
    assert [(a['category_id'], a['bbox'], a['area']) for a in objects] == [
        (4, [10, 20, 30, 40], 1200),
        (1, [50, 5, 8, 9], 72),
    ]
    assert (objects[1]['truncation'], objects[1]['occlusion']) == (1, 2)


def test_ids_are_unique_and_start_at_one(convert):
    """In pycocotools' evaluation an annotation with the id 0 is never matched."""
    ids = [a['id'] for a in convert()['annotations']]
    assert ids == list(range(1, len(ids) + 1))


def test_regions_and_objects_of_no_class_are_crowd_of_every_class(convert):
    coco = convert()
    for image_id, box in ((1, [100, 100, 60, 50]), (2, [90, 10, 30, 20])):
        crowd = of_image(coco, image_id, iscrowd=1, bbox=box)
        assert [a['category_id'] for a in crowd] == list(range(1, 11))


def test_objects_with_score_0_are_crowd_of_their_class(convert):
    (truck,) = of_image(convert(), 2, bbox=[1, 2, 20, 20])
    assert (truck['category_id'], truck['iscrowd']) == (6, 1)


def test_it_says_what_it_wrote_and_left_out(convert, capsys, data_root):
    convert()
    said = capsys.readouterr()
    assert (
        f'{data_root}/annotations/train.json: 2 images, 3 objects, 3 ignored regions and '
        f'objects, 1 empty boxes left out'
    ) in said.out
    assert '2/2' in said.err


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('1,2,3,4,1,4,0', 'expected 8 numbers'),
        ('1,2,3,4,1,4,0,0,0', 'expected 8 numbers'),
        ('1,2,3,4,1,car,0,0', 'expected whole numbers'),
        ('1,2,3,4,1,12,0,0', 'category must be 0 (ignored region), 1..10, or 11 (others), got 12'),
        ('1,2,3,4,1,-1,0,0', 'category must be'),
        ('1,2,-3,4,1,4,0,0', 'must not be negative, got -3x4'),
    ],
)
def test_a_wrong_line_is_told_with_file_and_number_and_nothing_is_written(data_root, line, message):
    path = data_root / 'VisDrone2019-DET-train/annotations/b_0002.txt'
    path.write_text(f'10,20,30,40,1,4,0,0\n{line}\n')
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    result = subprocess.run(
        [sys.executable, 'tools/dataset_tools/visdrone_to_coco.py', str(data_root)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f'error: {path}, line 2: ' in result.stderr
    assert message in result.stderr
    assert 'Traceback' not in result.stderr
    assert not (data_root / 'annotations').exists()


def error_of(tool, data_root):
    with pytest.raises(SystemExit) as caught:
        tool.main([str(data_root)])
    return str(caught.value)


def test_what_is_missing_is_told(tool, data_root, tmp_path_factory):
    train = data_root / 'VisDrone2019-DET-train'
    (train / 'annotations/b_0002.txt').rename(train / 'annotations/d.txt')
    assert 'images without an annotation file: 1, the first is b_0002' in error_of(tool, data_root)
    (train / 'images/b_0002.jpg').unlink()
    assert 'annotation files without an image: 1, the first is d' in error_of(tool, data_root)
    (train / 'annotations/d.txt').rename(train / 'annotations/a_0001.txt')
    (train / 'images/a_0001.jpg').write_bytes(b'')
    assert f'{train}/images/a_0001.jpg is not an image' in error_of(tool, data_root)
    (train / 'images/a_0001.jpg').unlink()
    assert f'no .jpg in {train}/images' in error_of(tool, data_root)
    assert 'none of VisDrone2019-DET-train' in error_of(tool, tmp_path_factory.mktemp('empty'))


# --- the config -----------------------------------------------------------------------------------


@pytest.fixture
def cfg(convert, data_root):
    convert()
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/visdrone.py')
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        dataset.data_root = str(data_root)
    cfg.val_evaluator.ann_file = str(data_root / 'annotations/val.json')
    return cfg


def test_the_data_set_has_objects_and_ignored_boxes(cfg):
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    table = read_annotations(dataset)
    assert table.width.tolist() == [320, 321]
    assert np.bincount(table.image[~table.ignore]).tolist() == [2, 1]
    assert np.bincount(table.image[table.ignore]).tolist() == [10, 11]
    sample = dataset[0]['data_samples']
    assert sorted(sample.gt_instances.labels.tolist()) == [0, 3]
    assert dataset.metainfo['classes'] == cfg.val_dataloader.dataset.metainfo.classes
    DATASETS.build(cfg.val_dataloader.dataset)


def test_classes_are_those_of_the_tool(cfg, tool):
    assert tuple(cfg.val_dataloader.dataset.metainfo.classes) == tool.CLASSES


def evaluate(cfg, boxes, labels, scores):
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dict(classes=cfg.val_dataloader.dataset.metainfo.classes)
    pred = dict(
        bboxes=torch.tensor(boxes, dtype=torch.float),
        labels=torch.tensor(labels),
        scores=torch.tensor(scores),
    )
    metric.process({}, [dict(img_id=1, ori_shape=(240, 320), pred_instances=pred)])
    return metric.evaluate(1)


RIGHT = [[10, 20, 40, 60], [50, 5, 58, 14]], [3, 0], [0.5, 0.5]


def test_detections_in_ignored_regions_are_no_false_positives_whatever_their_class(cfg):
    in_region = [[100, 100, 130, 125], [130, 125, 160, 150], [110, 110, 120, 120]]
    boxes, labels, scores = RIGHT
    found = evaluate(cfg, in_region + boxes, [3, 0, 3, *labels], [0.9, 0.9, 0.9, *scores])
    assert found['coco/bbox_mAP'] == 1.0
    elsewhere = [[200, 100, 230, 125], [200, 125, 230, 150]]
    found = evaluate(cfg, elsewhere + boxes, [3, 0, *labels], [0.9, 0.9, *scores])
    assert found['coco/bbox_mAP'] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(('before', 'ap'), [(450, True), (550, False)])
def test_500_detections_of_an_image_and_class_are_evaluated(cfg, before, ap):
    """Not 100: those that come first are all in the ignored region."""
    boxes, labels, scores = RIGHT
    boxes = [[100, 100, 130, 125]] * before + boxes
    found = evaluate(cfg, boxes, [3] * before + labels, [0.9] * before + scores)
    assert found['coco/bbox_mAP'] == (1.0 if ap else 0.5)


def test_objects_of_10_px_are_shown_at_20_px():
    pyramid = ScalePyramid.from_config(
        Config.fromfile(ROOT / 'configs/_base_/pyramids/visdrone.py').pyramid
    )
    for size in ((960, 540), (1400, 1050), (2000, 1500)):
        valid, fits = pyramid.valid_and_fits(
            np.array([[0, 0, s, s] for s in (10, 30, 60, 200, 450)], float), *size
        )
        assert (valid & fits).any(axis=1).all()
        assert pyramid.scales(*size)[0] * 10 == 20
