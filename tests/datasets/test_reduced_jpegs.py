"""JPEGs that are decoded reduced for coarse chips: means of the pixels, in the same places."""

import os
import pickle
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from geo_tiff import smooth_scene
from mmdet.registry import DATASETS
from mmengine.utils import digit_version
from PIL import Image

from mmsniper.chips import POSITIVE
from mmsniper.datasets import (
    Chip,
    ChipIndex,
    LoadImageWindows,
    LoadLargeImageFromFile,
    reduced_jpegs,
)
from mmsniper.datasets.decoding import ImageDecodingError
from mmsniper.datasets.image_faults import ImageFileError
from mmsniper.datasets.image_windows import ImageWindows

pytestmark = pytest.mark.skipif(
    digit_version(cv2.__version__) < digit_version('4.11'),
    reason=f'JPEGs are decoded whole by OpenCV {cv2.__version__}',
)
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [folder / 'data' / 'coco_tiny' for folder in (ROOT, ROOT.parent / 'shared')]
COLOR_TYPES = ['color', 'grayscale', 'color_ignore_orientation', 'grayscale_ignore_orientation']
WIDTH, HEIGHT = 333, 219
WHOLE = (0, 0, WIDTH, HEIGHT)


def load(path, **options):
    loader = LoadImageWindows(**{'reduced_jpegs': True, **options})
    return loader(dict(img_path=os.fspath(path)))['img']


def decoded(path, **options):
    return LoadLargeImageFromFile(**options)(dict(img_path=os.fspath(path)))['img']


def assert_decoded_whole(path, **options):
    img = load(path, **options)
    assert isinstance(img, np.ndarray)
    np.testing.assert_array_equal(img, decoded(path, **options))


@pytest.fixture
def jpeg(tmp_path):
    """A smooth photo of odd sides."""
    cv2.imwrite(str(tmp_path / 'a.jpg'), smooth_scene(WIDTH, HEIGHT))
    return tmp_path / 'a.jpg'


@pytest.fixture
def versions(monkeypatch):
    """Which versions were decoded."""
    seen, decode = [], reduced_jpegs.JpegFile._decoded

    def noted(self, version):
        seen.append(version)
        return decode(self, version)

    monkeypatch.setattr(reduced_jpegs.JpegFile, '_decoded', noted)
    return seen


def means(img, factor):
    """Means of squares from the upper left on, the last ones filled up at the edge."""
    below, right = (-side % factor for side in img.shape[:2])
    filled = np.pad(img, ((0, below), (0, right), (0, 0)), 'edge').astype(np.float64)
    height, width, bands = filled.shape
    return filled.reshape(height // factor, factor, width // factor, factor, bands).mean((1, 3))


# --- the pixels -----------------------------------------------------------------------------------


def test_it_is_off_by_default(jpeg):
    img = LoadImageWindows()(dict(img_path=str(jpeg)))['img']
    np.testing.assert_array_equal(img, decoded(jpeg))


@pytest.mark.parametrize('to_float32', [False, True])
@pytest.mark.parametrize('color_type', COLOR_TYPES)
def test_what_is_seen_finer_than_half_is_what_decoding_gives(
    jpeg, color_type, to_float32, versions
):
    options = dict(color_type=color_type, to_float32=to_float32)
    img, whole = load(jpeg, **options), decoded(jpeg, **options)
    assert isinstance(img, ImageWindows)
    assert (img.shape, img.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_array_equal(img[20:90, 10:110], whole[20:90, 10:110])
    for (x1, y1, x2, y2), size in [(WHOLE, (200, 132)), ((7, 9, 41, 30), (68, 42))]:
        expected = mmcv.imresize(whole[y1:y2, x1:x2], size)
        np.testing.assert_array_equal(img.read((x1, y1, x2, y2), size), expected)
    assert versions == [0]


def real_photos():
    found = [path for folder in FOLDERS for path in sorted(folder.glob('val2017/*.jpg'))[:12]]
    return [cv2.imread(str(path)) for path in found[:12]] or pytest.skip('no photos')


def smooth_photos():
    return [smooth_scene(641, 483, seed=seed) for seed in range(3)]


@pytest.mark.parametrize('photos', [real_photos, smooth_photos])
@pytest.mark.parametrize('factor', [2, 4, 8])
@pytest.mark.parametrize('color_type', ['color', 'grayscale'])
def test_coarse_pixels_are_means_of_the_image(tmp_path, photos, factor, color_type, versions):
    """To 2 grey levels on average; resizing real photos at once is off by 5 at 1/4, 9 at 1/8."""
    path = tmp_path / 'a.jpg'
    for photo in photos():
        cv2.imwrite(str(path), photo)
        img, whole = load(path, color_type=color_type), decoded(path, color_type=color_type)
        expected = means(whole.reshape(*whole.shape[:2], -1), factor)
        height, width = (side // factor for side in whole.shape[:2])  # whole squares
        window = (0, 0, width * factor, height * factor)
        difference = img.read(window, (width, height)).reshape(height, width, -1).astype(float)
        difference -= expected[:height, :width]
        assert np.abs(difference).mean() < 2
        assert abs(difference.mean()) < 0.5
        assert np.percentile(np.abs(difference), 99) < 12
    assert set(versions) == {{2: 1, 4: 2, 8: 3}[factor]}


@pytest.mark.parametrize(('scale', 'version'), [(0.7, 0), (0.49, 1), (0.3, 1), (0.25, 2), (0.1, 3)])
def test_the_coarsest_that_is_fine_enough_is_decoded_once(jpeg, versions, scale, version):
    img = load(jpeg)
    for _ in range(2):
        size = round(WIDTH * scale), round(HEIGHT * scale)
        assert img.read(WHOLE, size).shape == (*size[::-1], 3)
    assert versions == [version]


def test_an_image_goes_to_another_process_without_pixels(jpeg):
    img = load(jpeg)
    seen = img.read(WHOLE, (40, 26))
    stored = pickle.dumps(img)
    assert len(stored) < 2000
    np.testing.assert_array_equal(pickle.loads(stored).read(WHOLE, (40, 26)), seen)


def test_the_whole_image_is_decoded_where_an_array_is_wanted(jpeg):
    np.testing.assert_array_equal(load(jpeg, whole=True), decoded(jpeg))


# --- boxes stay on their objects ------------------------------------------------------------------


@pytest.mark.parametrize('factor', [0.55, 0.5, 0.3, 0.25, 0.125])
def test_the_boxes_of_a_chip_lie_on_what_they_enclose(tmp_path, make_coco, factor):
    """At the far corner of an image of odd sides, where a wrong scale would move most."""
    width, height, side = 1001, 1009, 80
    box = np.array([width - 15 - side, height - 9 - side, width - 15, height - 9])
    photo = np.full((height, width, 3), 40, np.uint8)
    photo[box[1] : box[3], box[0] : box[2]] = 200
    dataset = make_coco([dict(size=(width, height), boxes=[box.tolist()], img=photo)])
    folder = tmp_path / 'set'
    cv2.imwrite(str(tmp_path / 'a.jpg'), photo, [cv2.IMWRITE_JPEG_QUALITY, 98])
    (tmp_path / 'a.jpg').rename(folder / '0.png')  # OpenCV looks at what is in it
    pyramid = dict(chip_size=64, levels=[dict(resize=dict(factor=factor), valid_range=(0, None))])
    pipeline = [
        dict(type='LoadImageWindows', reduced_jpegs=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ChipSampler', pyramid=pyramid),
        dict(type='PackDetInputs'),
    ]
    data = DATASETS.build(dict(type='ChipDataset', dataset=dataset, pipeline=pipeline))
    chip = Chip(0, (width - 64 / factor, height - 64 / factor, width, height), POSITIVE)
    sample = data[ChipIndex(0, chip)]
    found = sample['data_samples'].gt_instances.bboxes.tensor[0].numpy()
    light = (sample['inputs'].float().mean(0).numpy() - 40) / 160
    middle = [
        (light.sum(axis) * (np.arange(count) + 0.5)).sum() / light.sum()
        for axis, count in enumerate(light.shape[::-1])
    ]
    np.testing.assert_allclose(middle, (found[:2] + found[2:]) / 2, atol=0.2)
    np.testing.assert_allclose(light.sum(), np.prod(found[2:] - found[:2]), rtol=0.02)


# --- all JPEGs and all else -----------------------------------------------------------------------


@pytest.mark.parametrize('color_type', COLOR_TYPES)
@pytest.mark.parametrize('orientation', [2, 3, 6, 8])
def test_what_exif_data_turn_is_decoded_whole(tmp_path, orientation, color_type):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth_scene(100, 80)).save(tmp_path / 'a.jpg', exif=exif)
    assert_decoded_whole(tmp_path / 'a.jpg', color_type=color_type)


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'YCbCr', 'progressive', 'unturned'])
@pytest.mark.parametrize('color_type', ['color', 'grayscale'])
def test_other_jpegs_are_reduced_too(tmp_path, mode, color_type):
    photo, options = Image.fromarray(smooth_scene(WIDTH, HEIGHT)), {}
    if mode == 'progressive':
        options = dict(progressive=True)
    elif mode == 'unturned':
        options = dict(exif=Image.Exif())
        options['exif'][0x0112] = 1
    else:
        photo = photo.convert(mode)
    photo.save(tmp_path / 'a.jpg', quality=95, **options)
    img = load(tmp_path / 'a.jpg', color_type=color_type)
    whole = decoded(tmp_path / 'a.jpg', color_type=color_type)
    assert isinstance(img, ImageWindows)
    np.testing.assert_array_equal(img[0:HEIGHT, 0:WIDTH], whole)
    seen = img.read((0, 0, 332, 216), (83, 54))
    expected = means(whole.reshape(HEIGHT, WIDTH, -1)[:216, :332], 4)
    assert np.abs(seen.reshape(54, 83, -1) - expected).mean() < 2


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'webp'])
def test_other_formats_are_decoded_whole(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f'a.{suffix}'), smooth_scene(WIDTH, HEIGHT))
    assert_decoded_whole(tmp_path / f'a.{suffix}')


@pytest.mark.parametrize(
    'options', [dict(color_type='unchanged'), dict(imdecode_backend='pillow'), dict(color_type=1)]
)
def test_what_has_no_reduced_mode_is_decoded_whole(jpeg, options):
    assert_decoded_whole(jpeg, **options)


def test_what_is_not_on_disk_is_decoded_whole(jpeg, monkeypatch):
    monkeypatch.setattr('mmengine.fileio.get', lambda name, **_: Path(name).read_bytes())
    assert_decoded_whole(jpeg, backend_args=dict(backend='http'))


def test_a_name_that_is_no_utf_8_is_decoded_whole(jpeg):
    odd = os.fsdecode(os.fsencode(jpeg.parent) + b'/f\xfcr.jpg')
    os.rename(jpeg, odd)
    assert_decoded_whole(odd)


def test_a_jpeg_that_is_cut_short_is_the_same_error(jpeg):
    jpeg.write_bytes(jpeg.read_bytes()[:-500])
    with pytest.raises(ImageFileError, match=f'cannot load {jpeg}. It is a JPEG that is cut short'):
        load(jpeg)
    assert LoadImageWindows(reduced_jpegs=True, ignore_empty=True)(dict(img_path=str(jpeg))) is None


def test_a_broken_header_is_the_same_error(jpeg):
    jpeg.write_bytes(b'\xff\xd8\xff\xff\xd9')
    with pytest.raises(ImageFileError) as theirs:
        decoded(jpeg)
    with pytest.raises(ImageFileError) as ours:
        load(jpeg)
    assert str(ours.value) == str(theirs.value)


def test_a_large_jpeg_is_no_bomb(tmp_path, monkeypatch, jpeg):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert isinstance(load(jpeg), ImageWindows)


def test_a_jpeg_of_another_size_than_its_header_is_an_error(jpeg, monkeypatch):
    monkeypatch.setattr(reduced_jpegs, 'jpeg_size', lambda path: (HEIGHT, WIDTH))
    with pytest.raises(ImageDecodingError, match=r'decoded to 28x42 px.*OpenCV gives 42x28 px'):
        load(jpeg).read((0, 0, HEIGHT, WIDTH), (27, 41))


# --- beside kept images ---------------------------------------------------------------------------


def test_decoded_images_are_not_kept_of_which_a_chip_decodes_its_own(
    five_images, chips_of, chip_pipeline
):
    chip_pipeline[0] = dict(type='LoadImageWindows', reduced_jpegs=True)
    with pytest.raises(ValueError, match=r'cache_mb keeps .* reduced_jpegs=True decodes'):
        DATASETS.build(chips_of(five_images(), cache_mb=10))
