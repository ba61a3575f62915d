"""Broken files and odd annotations: handled correctly, or told with file, value and fix."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from PIL import Image

from mmsniper.chips import POSITIVE
from mmsniper.datasets import Chip, ChipIndex, samplers

FINE = Chip(0, (8.0, 8.0, 40.0, 40.0), POSITIVE)


def photo(height=80, width=100):
    """Smooth noise, which compresses to a JPEG of some kB."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1)


@pytest.fixture
def make_dataset(make_coco, chips_of):
    """A data set of one image, 100x80 with one box if not told otherwise."""

    def make(**image):
        return DATASETS.build(chips_of(make_coco([dict(size=(100, 80), boxes=[BOX]) | image])))

    return make


BOX = [10, 10, 20, 20]


def file_of(dataset):
    return Path(dataset.get_data_info(0)['img_path'])


def message_of(dataset):
    """The error for a chip of the data set's only image, which has to name both."""
    with pytest.raises(RuntimeError) as caught:
        dataset[ChipIndex(0, FINE)]
    message = str(caught.value)
    assert f'positive chip [8.0, 8.0, 40.0, 40.0] of level 0 of {file_of(dataset)} ' in message
    return message


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('progressive', [0, 1])
@pytest.mark.parametrize('kept', [0.05, 0.5, 0.95])
def test_a_truncated_jpeg_is_told_by_name(make_dataset, kept, progressive):
    if tuple(int(v) for v in cv2.__version__.split('.')[:2]) < (4, 11):
        pytest.skip(f'OpenCV {cv2.__version__} reads the beginning and makes up the rest, silently')
    dataset = make_dataset()
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    content = cv2.imencode('.jpg', photo(), options)[1].tobytes()
    file_of(dataset).write_bytes(content)
    assert dataset[0] is not None
    file_of(dataset).write_bytes(content[: int(len(content) * kept)])
    assert 'It is a JPEG that is cut short' in message_of(dataset)


@pytest.mark.parametrize(
    ('content', 'what'), [(b'', 'It is empty'), (b'<html>not found</html>', 'It is a web page')]
)
@pytest.mark.parametrize('loading', ['LoadImageFromFile', 'LoadLargeImageFromFile'])
def test_a_file_that_is_no_image_is_told_by_name(
    make_dataset, chip_pipeline, loading, content, what
):
    chip_pipeline[0]['type'] = loading
    dataset = make_dataset()
    file_of(dataset).write_bytes(content)
    message = message_of(dataset)
    assert message.count(what) == 1
    assert 'take it out of the annotation file' in message


@pytest.mark.parametrize('loading', ['LoadImageFromFile', 'LoadLargeImageFromFile'])
def test_a_missing_file_is_told_by_name(make_dataset, chip_pipeline, loading):
    chip_pipeline[0]['type'] = loading
    dataset = make_dataset()
    file_of(dataset).unlink()
    message = message_of(dataset)
    assert 'FileNotFoundError' in message
    assert f'there is no {file_of(dataset).name} in it' in message
    assert 'Do data_root and data_prefix point at the images?' in message


def test_a_file_of_another_folder_is_told_where_it_is(make_dataset):
    dataset = make_dataset()
    here = file_of(dataset)
    moved = dict(dataset.get_data_info(0), img_path=f'C:\\theirs\\{here.name}')
    dataset.get_data_info = lambda _: dict(moved)
    with pytest.raises(RuntimeError) as caught:
        dataset[0]
    assert f'There is {here}: it is written with backslashes' in str(caught.value)
    assert 'the path is that of another folder' in str(caught.value)


@pytest.mark.parametrize(
    ('named', 'written', 'why'),
    [
        ('sub dir/a b.png', 'sub dir/a b.png', None),
        ('ünï/图像.png', 'ünï/图像.png', None),
        ("quote'd [1]#&.png", "quote'd [1]#&.png", None),
        ('back\\slash.png', 'back/slash.png', 'it is written with backslashes, as in Windows'),
        ('a%20b.png', 'a b.png', 'it is percent-encoded, as in an address'),
    ],
)
def test_names_that_exporters_write(make_coco, chips_of, named, written, why):
    config = make_coco([dict(size=(100, 80), boxes=[BOX])])
    folder = Path(config['data_root'])
    content = json.loads((folder / 'ann.json').read_text())
    content['images'][0]['file_name'] = named
    (folder / 'ann.json').write_text(json.dumps(content))
    (folder / written).parent.mkdir(exist_ok=True)
    (folder / '0.png').rename(folder / written)
    dataset = DATASETS.build(chips_of(config))
    if why is None:
        assert dataset[0]['data_samples'].ori_shape == (80, 100)
    else:
        assert f'There is {folder / written}: {why}. Correct it in' in message_of(dataset)


def test_a_fault_that_is_not_of_the_file_gets_no_hint_at_the_file(make_dataset, chip_pipeline):
    chip_pipeline.insert(0, dict(type='RandomFlip', prob=1.0))
    message = message_of(make_dataset())
    assert message.endswith("KeyError: 'img'")


def test_another_file_that_is_missing_is_not_taken_for_the_image(make_dataset, monkeypatch):
    dataset = make_dataset()

    def transform(results):
        raise FileNotFoundError(2, 'No such file or directory', f'{file_of(dataset)}.npy')

    dataset.pipeline.transforms.insert(1, transform)
    assert f'there is no {file_of(dataset).name}.npy in it' in message_of(dataset)


@pytest.mark.parametrize('size', [(100, 60), (80, 100)])
def test_an_image_of_another_size_than_its_annotations_say_is_told(make_dataset, size):
    message = message_of(make_dataset(img=photo(*size[::-1])))
    assert f'is {size[0]}x{size[1]} px, but its annotations say 100x80' in message
    assert 'Correct width and height in the annotation file' in message
    assert 'LoadImageFromFile' not in message  # without EXIF data that is no way out


def test_an_image_turned_by_exif_is_told_and_how_to_load_it(make_dataset, chip_pipeline):
    dataset = make_dataset()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    Image.fromarray(photo()).save(file_of(dataset), 'JPEG', exif=exif)
    message = message_of(dataset)
    assert 'is 80x100 px (turned by its EXIF data), but its annotations say' in message
    assert "LoadImageFromFile(color_type='color_ignore_orientation')" in message

    unturned = dict(chip_pipeline[0], color_type='color_ignore_orientation')
    dataset = DATASETS.build(
        dict(type='ChipDataset', dataset=dataset.dataset, pipeline=[unturned, *chip_pipeline[1:]])
    )
    assert dataset[ChipIndex(0, FINE)]['data_samples'].ori_shape == (80, 100)

    Image.fromarray(photo(100, 80)).save(file_of(dataset), 'JPEG', exif=exif)
    message = message_of(dataset)
    assert 'is 80x100 px (without the turn in its EXIF data), but' in message
    assert "LoadImageFromFile(color_type='color')" in message


GREY = photo()[..., 0]
FORMATS = dict(
    grey=GREY,
    rgba=np.dstack([photo(), 255 - GREY]),
    grey_16_bit=GREY.astype(np.uint16) * 256,
    colour_16_bit=photo().astype(np.uint16) * 256,
)


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
@pytest.mark.parametrize('name', FORMATS)
def test_pixel_formats(make_coco, chip_pipeline, name, color_type):
    img = FORMATS[name]
    config = make_coco([dict(size=(100, 80), boxes=[BOX], img=img)])
    # Before torch 2.3 no tensor holds unsigned numbers of 16 bits.
    as_float = img.dtype == np.uint16 and not hasattr(torch, 'uint16')
    load = dict(chip_pipeline[0], color_type=color_type, to_float32=as_float)
    dataset = DATASETS.build(
        dict(type='ChipDataset', dataset=config, pipeline=[load, *chip_pipeline[1:]])
    )
    window = Chip(1, (8.0, 4.0, 72.0, 68.0), POSITIVE)  # at scale 1
    chip = dataset[ChipIndex(0, window)]['inputs'].permute(1, 2, 0).numpy()
    if color_type == 'color':
        img = np.atleast_3d(img[..., :3] if img.ndim == 3 else np.dstack([img] * 3))
        img = (img // 256 if img.dtype == np.uint16 else img).astype(np.uint8)
    np.testing.assert_array_equal(chip, np.atleast_3d(img[4:68, 8:72]))


@pytest.mark.parametrize(
    ('size', 'boxes', 'per_level'),
    [
        ((1, 1), [[0, 0, 1, 1]], [1, 0, 0]),
        ((10000, 200), [[5, 5, 17, 15], [9960, 160, 9990, 190], [0, 0, 60, 60]], [1, 1, 1]),
        ((200, 10000), [[5, 5, 15, 17], [160, 9960, 190, 9990], [0, 0, 60, 60]], [1, 1, 1]),
    ],
)
def test_extreme_shapes_have_the_chips_that_they_should(
    make_dataset, make_sampler, size, boxes, per_level
):
    dataset = make_dataset(size=size, boxes=boxes)
    sampler = make_sampler(dataset)
    assert sampler.plan.count_per_level(3).tolist() == per_level
    for index in sampler:
        sample = dataset[index]
        assert max(sample['inputs'].shape[1:]) <= 64
        assert len(sample['data_samples'].gt_instances) == 1


# --- annotations ----------------------------------------------------------------------------------


@pytest.fixture
def odd_boxes(tmp_path, chips_of):
    """A data set in MMDetection's own format, which nothing filters: one good box, five not."""
    boxes = [
        BOX,
        [30, 30, 30, 40],
        [-20, 5, -5, 15],
        [200, 5, 210, 15],
        [float('nan')] * 4,
        [30, 30, float('nan'), 40],
    ]
    instances = [dict(bbox=box, bbox_label=i, ignore_flag=0) for i, box in enumerate(boxes)]
    cv2.imwrite(str(tmp_path / 'odd.png'), photo())
    image = dict(img_path='odd.png', img_id=0, height=80, width=100, instances=instances)
    classes = [str(i) for i in range(len(boxes))]
    content = dict(metainfo=dict(classes=classes), data_list=[image])
    (tmp_path / 'odd.json').write_text(json.dumps(content))
    return chips_of(
        dict(
            type='BaseDetDataset',
            data_root=str(tmp_path),
            ann_file='odd.json',
            data_prefix=dict(img_path=''),
        )
    )


def test_boxes_of_no_area_outside_or_nan_get_no_chip_and_are_no_objects(odd_boxes, make_sampler):
    sampler = make_sampler(odd_boxes)
    assert sampler.plan.count_per_level(3).tolist() == [1, 0, 0]
    (index,) = sampler
    for idx in (index, 0):  # planned, and drawn by the transform
        sample = sampler.dataset[idx]['data_samples']
        assert sample.gt_instances.labels.tolist() == [0]
        assert len(sample.ignored_instances) == 0


def test_nan_boxes_are_reported_with_their_file(odd_boxes, make_sampler, monkeypatch):
    said = []
    monkeypatch.setattr(samplers, 'print_log', lambda msg, **kwargs: said.append((msg, kwargs)))
    make_sampler(odd_boxes)
    (message, kwargs), _ = said
    assert kwargs['level'] == logging.WARNING
    assert message.startswith('2 boxes have NaN coordinates and are left out')
    assert 'odd.png: correct the annotation file' in message


@pytest.mark.parametrize('boxes', [[], [[10, 10, 20, 20]]])
def test_images_with_crowd_boxes_only_or_none_at_all(make_coco, chips_of, make_sampler, boxes):
    """They have no positive chip; without a plan they give a chip without objects."""
    empty = dict(size=(100, 80), boxes=boxes, crowd=[1])
    full = dict(size=(100, 80), boxes=[BOX])
    dataset = DATASETS.build(chips_of(make_coco([empty, full, empty])))
    assert {int(index) for index in make_sampler(dataset)} == {1}
    for _ in range(5):
        sample = dataset[0]['data_samples']
        assert len(sample.gt_instances) == 0
        assert set(sample.ignored_instances.labels.tolist()) <= {-1}
