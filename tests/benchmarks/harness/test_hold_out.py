"""A part of a training set is held out: every image is in one file, with its boxes."""

import json

import pytest

from harness.hold_out import hold_out

CONTENT = dict(
    info=dict(year=2026),
    categories=[dict(id=1, name='thing')],
    images=[dict(id=i, file_name=f'{i}.jpg', day=i % 3) for i in range(6)],
    annotations=[dict(id=i, image_id=i // 2, category_id=1) for i in range(12)],
)


@pytest.fixture
def annotations(tmp_path):
    file = tmp_path / 'train.json'
    file.write_text(json.dumps(CONTENT))
    return file


def test_every_image_is_in_one_file_with_its_boxes(annotations, tmp_path):
    files = hold_out(annotations, lambda image: image['day'] == 1, tmp_path / 'parts')
    assert [file.name for file in files] == ['fit.json', 'held_out.json']
    fit, held = (json.loads(file.read_text()) for file in files)
    assert [image['id'] for image in held['images']] == [1, 4]
    assert [image['id'] for image in fit['images']] == [0, 2, 3, 5]
    for part in (fit, held):
        assert part['categories'] == CONTENT['categories']
        assert part['info'] == CONTENT['info']
        kept = {image['id'] for image in part['images']}
        assert part['annotations'] == [b for b in CONTENT['annotations'] if b['image_id'] in kept]


@pytest.mark.parametrize(('held', 'name'), [(False, r'held_out\.json'), (True, r'fit\.json')])
def test_a_part_without_images_is_refused(annotations, tmp_path, held, name):
    with pytest.raises(ValueError, match=f'no image would be in {name}'):
        hold_out(annotations, lambda image: held, tmp_path)
