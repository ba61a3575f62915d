"""Every image file is opened as training opens it, and compared with its annotations."""

import cv2
import numpy as np
import pytest
from mmdet.utils import register_all_modules
from PIL import Image
from small_tiff import scene, tiff_bytes

from mmsniper.checks import ERROR, NOTE, WARNING
from mmsniper.checks.images import ImageEntry, Loading, check_images

register_all_modules()

COLOUR = np.full((20, 30, 3), 90, np.uint8)


@pytest.fixture
def check(tmp_path):
    """Findings of one file, 30x20 px by its annotations."""

    def of(name, pixels=None, size=(30, 20), orientation=None, channels=3, **loading):
        path = tmp_path / name
        if orientation is not None:
            exif = Image.Exif()
            exif[274] = orientation
            Image.fromarray(pixels).save(path, exif=exif)
        elif pixels is not None:
            cv2.imwrite(str(path), pixels)
        transform = dict(type='LoadImageFromFile', **loading)
        entries = [ImageEntry(str(path), *size)]
        return check_images(entries, Loading(transform, channels), 'train_dataloader', workers=2)

    return of


def one(found, severity):
    [finding] = found
    assert finding.severity == severity
    return str(finding)


def test_a_file_as_annotated_has_no_findings(check):
    assert check('a.png', COLOUR) == []
    assert check('b.jpg', COLOUR, orientation=1) == []


def test_files_that_cannot_be_loaded_are_named_with_the_reason(check, tmp_path):
    assert check('a.png', COLOUR) == []
    assert 'there is no gone.png in it' in one(check('gone.png'), ERROR)
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'cut.jpg'), noise)
    whole = (tmp_path / 'cut.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    assert 'cut short' in one(check('cut.jpg'), ERROR)
    (tmp_path / 'page.png').write_text('<html>')
    assert 'a web page' in one(check('page.png'), ERROR)


def test_sizes_are_those_of_the_annotations(check):
    message = one(check('a.png', COLOUR, size=(60, 40)), ERROR)
    assert 'is 30x20 px, annotated 60x40' in message
    assert check('b.png', COLOUR, size=(None, None)) == []


@pytest.mark.parametrize(
    ('orientation', 'size', 'color_type', 'severity', 'said'),
    [
        (6, (30, 20), 'color', ERROR, 'were annotated without it'),
        (6, (20, 30), 'color', None, ''),
        (6, (30, 20), 'color_ignore_orientation', None, ''),
        (6, (20, 30), 'color_ignore_orientation', ERROR, 'with which they were annotated'),
        (6, (20, 30), 'unchanged', ERROR, 'with which they were annotated'),
        (3, (30, 20), 'color', WARNING, 'without another size'),
        (6, (99, 30), 'color', ERROR, 'another size than their annotations say'),
    ],
)
def test_images_that_exif_data_turn(check, orientation, size, color_type, severity, said):
    found = check('a.jpg', COLOUR, size, orientation, color_type=color_type)
    if severity is None:
        assert found == []
    else:
        assert said in one(found, severity)


def test_depth_and_channels_as_the_config_loads_them(check):
    grey, deep = COLOUR[..., 0], COLOUR.astype(np.uint16) * 200
    assert 'one channel and loaded as colour' in one(check('grey.png', grey), NOTE)
    assert check('grey1.png', grey, color_type='grayscale', channels=1) == []
    assert 'of 16 bits' in one(check('deep.png', deep), WARNING)
    assert check('deep1.png', deep, color_type='unchanged') == []
    alpha = np.dstack([COLOUR, COLOUR[..., :1]])
    assert 'has 4 bands, 3 of which' in one(check('alpha.png', alpha), NOTE)
    message = one(check('alpha1.png', alpha, color_type='unchanged'), ERROR)
    assert 'another number of channels than the 3' in message


def test_pages_bands_and_values_that_a_loader_passes_over(check, tmp_path):
    grey = Image.fromarray(COLOUR[..., 0])
    grey.save(tmp_path / 'a.tif', save_all=True, append_images=[grey])
    found = check('a.tif', color_type='unchanged', channels=1)
    assert 'have several pages' in one(found, WARNING)
    floats = COLOUR[..., 0].astype(np.float32)
    floats[3, 3] = np.nan
    found = check('b.tif', floats, color_type='unchanged', channels=1)
    assert 'have values that are NaN' in one(found, WARNING)
    (tmp_path / 'c.tif').write_bytes(tiff_bytes(scene(20, 30, 8, 'u1', 99)))
    found = check('c.tif', color_type='unchanged', channels=8)
    assert "imdecode_backend='tifffile' does" in one(found, ERROR)


def test_files_of_one_fault_are_one_finding(tmp_path):
    entries = [ImageEntry(str(tmp_path / f'{i}.png'), 9, 9) for i in range(8)]
    loading = Loading(dict(type='LoadImageFromFile'), None)
    [finding] = check_images(entries, loading, 'val_dataloader')
    assert finding.what.startswith('8 of 8 images cannot be loaded: ')
    assert finding.what.endswith('; and 3 more')


@pytest.mark.parametrize('suffix', ['gif', 'webp', 'png'])
def test_animations_are_told_and_palettes_and_cmyk_lose_nothing(check, tmp_path, suffix):
    image = Image.fromarray(COLOUR)
    other = Image.fromarray(255 - COLOUR)
    image.save(tmp_path / f'moving.{suffix}', save_all=True, append_images=[other])
    assert 'are animations' in one(check(f'moving.{suffix}'), WARNING)
    for name, mode in (('palette.gif', 'P'), ('palette.png', 'P'), ('ink.jpg', 'CMYK')):
        image.convert(mode).save(tmp_path / name)
        assert check(name) == []
