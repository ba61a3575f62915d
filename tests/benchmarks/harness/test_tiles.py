"""A training set of uniform tiles holds every object, beside the whole images."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('sahi')

from harness.tiles import cut_tiles


@pytest.fixture
def data(tmp_path):
    (tmp_path / 'images').mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / 'images/a.png'), rng.integers(0, 255, (100, 180, 3), np.uint8))
    truth = dict(
        images=[dict(id=7, file_name='a.png', width=180, height=100)],
        categories=[dict(id=3, name='disc')],
        annotations=[
            dict(id=5, image_id=7, category_id=3, bbox=[10, 20, 30, 40], area=1200, iscrowd=0),
            dict(id=9, image_id=7, category_id=3, bbox=[170, 5, 8, 8], area=64, iscrowd=0),
        ],
    )
    (tmp_path / 'train.json').write_text(json.dumps(truth))
    return tmp_path


def cut(data, side=100):
    out = data / 'out' / 'train.json'
    cut_tiles(data / 'train.json', data / 'images', out, side)
    return json.loads(out.read_text())


def test_tiles_and_whole_images_are_in_one_file(data):
    content = cut(data)
    *tiles, whole = content['images']
    assert len(tiles) == 2
    assert whole['file_name'] == str((data / 'images/a.png').resolve())
    original = cv2.imread(str(data / 'images/a.png'))
    for tile, x in zip(tiles, (0, 80)):
        pixels = cv2.imread(str(data / 'out' / tile['file_name']))
        assert np.array_equal(pixels, original[:100, x : x + 100])
    boxes = {image['id']: [] for image in content['images']}
    for one in content['annotations']:
        boxes[one['image_id']].append(one['bbox'])
    first, second = tiles
    assert boxes[first['id']] == [[10, 20, 30, 40]]
    assert boxes[second['id']] == [[90, 5, 8, 8]]
    assert boxes[whole['id']] == [[10, 20, 30, 40], [170, 5, 8, 8]]
    ids = [one['id'] for one in content['annotations']]
    assert sorted(set(ids)) == sorted(ids)


def test_what_is_there_is_not_made_again(data):
    cut(data)
    (first, *_) = sorted(Path(data / 'out').rglob('*.png'))
    changed = first.stat().st_mtime_ns
    cut(data)
    assert first.stat().st_mtime_ns == changed
    assert len(cut(data, side=90)['images']) == 7
