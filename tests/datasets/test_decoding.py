"""Bands and bits that a loader would lose: an error that says what loads them, or a warning."""

import os
from functools import partial
from types import SimpleNamespace

import cv2
import mmcv.image.io
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import MMLogger
from PIL import Image
from small_tiff import scene, tiff_bytes

from mmsniper.datasets import LoadLargeImageFromFile, decoding
from mmsniper.datasets.decoding import ImageDecodingError, load_checked, load_or_raise, run_checked


def stock(**options):
    """MMCV's transform, checked as ChipDataset does."""
    return partial(run_checked, LoadImageFromFile(**options))


LOADERS = pytest.mark.parametrize('loader', [stock, LoadLargeImageFromFile])


@pytest.fixture
def write(tmp_path):
    def write(img, suffix='.tif', **layout):
        path = tmp_path / f'x{suffix}'
        if suffix == '.tif':
            path.write_bytes(tiff_bytes(img, **layout))
        else:
            cv2.imwrite(str(path), img)
        return dict(img_path=str(path))

    return write


@pytest.fixture
def told(monkeypatch):
    """What was logged, and nothing has been told yet."""
    said = []
    monkeypatch.setattr(decoding, '_told', set())
    monkeypatch.setattr(decoding, 'print_log', lambda text, **_: said.append(text))
    return said


@pytest.fixture
def tifffile(monkeypatch):
    """Stands in for tifffile, which need not be installed: reads the pages that we write."""

    def imread(file):
        content = file.read()
        img = pages[content]
        return img if b'planar' not in marks[content] else np.moveaxis(img, 2, 0)

    pages, marks = {}, {}

    def register(img, **layout):
        content = tiff_bytes(img, **layout)
        order = '>' if layout.get('big_endian') else '<'
        pages[content] = img.astype(img.dtype.newbyteorder(order))
        marks[content] = b'planar' if layout.get('planar') else b''

    monkeypatch.setattr(mmcv.image.io, 'tifffile', SimpleNamespace(imread=imread))
    return register


@LOADERS
@pytest.mark.parametrize('bands', [0, 3, 4])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'i2', 'f4'])
@pytest.mark.parametrize('to_float32', [False, True])
def test_unchanged_loads_all_bands_and_bits(write, told, loader, bands, dtype, to_float32):
    img = scene(30, 40, bands, dtype, 250)
    loaded = loader(color_type='unchanged', to_float32=to_float32)(write(img))
    if bands:
        img = np.concatenate([img[..., 2::-1], img[..., 3:]], axis=2)  # RGB to BGR
    np.testing.assert_array_equal(loaded['img'], img)
    assert loaded['img'].dtype == (np.float32 if to_float32 else img.dtype)
    assert loaded['img_shape'] == loaded['ori_shape'] == (30, 40)
    assert told == []


@LOADERS
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(color_type='grayscale'),
        dict(to_float32=True),
        dict(color_type='color_ignore_orientation'),
        dict(imdecode_backend='pillow'),
    ],
)
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_bits_that_are_cut_are_told_once(write, told, loader, options, suffix):
    img = scene(30, 40, 0, 'u2', 4095)
    img[0, 0] = 4095
    results = write(img, suffix)
    for _ in range(2):
        loader(**options)(dict(results))
    (message,) = told
    assert message.startswith(f'{results["img_path"]} is a {suffix[1:].upper()}')
    assert 'of one band of 16 bits, which color_type=' in message
    assert "color_type='unchanged' (with 'cv2') loads all bits" in message
    assert ('largest value is 15 of 255' in message) == ('imdecode_backend' not in options)


@LOADERS
def test_eight_bits_are_nothing_to_tell(write, told, loader):
    for suffix in ('.png', '.tif', '.jpg'):
        loader()(write(scene(30, 40, 3, 'u1', 255), suffix))
    assert told == []


def test_the_log_is_told(write, monkeypatch, capsys):
    monkeypatch.setattr(decoding, '_told', set())
    MMLogger.get_instance('decoding', logger_name='decoding')
    LoadLargeImageFromFile()(write(scene(30, 40, 0, 'u2', 4095)))
    assert 'WARNING' in capsys.readouterr().out


TIFFFILE = r"imdecode_backend='tifffile' does \(pip install tifffile imagecodecs\)"


@LOADERS
@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'f4'])
def test_many_bands_need_tifffile(write, loader, color_type, backend, dtype):
    transform = loader(color_type=color_type, imdecode_backend=backend)
    message = rf"x.tif is a TIFF of 8 bands of .* bits.*: imdecode_backend='{backend}' .*{TIFFFILE}"
    with pytest.raises(ImageDecodingError, match=message):
        transform(write(scene(30, 40, 8, dtype, 250)))


@LOADERS
@pytest.mark.parametrize(
    ('bands', 'layout', 'backend'),
    [
        (2, dict(), 'cv2'),  # of which OpenCV reads the first half of the bytes
        (3, dict(planar=True), 'cv2'),  # of which it reads the first band; the rest is not set
        (4, dict(planar=True, big_endian=True), 'cv2'),
    ],
)
def test_what_opencv_mixes_up_in_silence_is_an_error(write, loader, bands, layout, backend):
    transform = loader(color_type='unchanged', imdecode_backend=backend)
    with pytest.raises(ImageDecodingError, match=rf'TIFF of {bands} bands of 16 bits.*{TIFFFILE}'):
        transform(write(scene(30, 40, bands, 'u2', 60000), **layout))


@LOADERS
def test_bands_that_pillow_drops_are_an_error(write, loader):
    results = write(scene(30, 40, 5, 'u1', 250))
    with pytest.raises(ImageDecodingError, match=rf'5 bands.* shape \(30, 40, 3\).*{TIFFFILE}'):
        loader(color_type='unchanged', imdecode_backend='pillow')(results)


@LOADERS
def test_bits_that_pillow_drops_are_told(write, told, loader):
    img = scene(30, 40, 3, 'u2', 60000)
    loader(color_type='unchanged', imdecode_backend='pillow')(write(img, '.png'))
    assert len(told) == 1


@LOADERS
def test_floats_need_unchanged(write, loader):
    results = write(scene(30, 40, 0, 'f4', 1))
    with pytest.raises(ImageDecodingError, match=r"\(float\): color_type='color' is for whole num"):
        loader()(results)


@LOADERS
def test_values_that_cannot_be_resized_need_floats(write, loader):
    results = write(scene(30, 40, 0, 'u4', 2**20))
    with pytest.raises(ImageDecodingError, match=r'and type uint32, .*to_float32=True'):
        loader(color_type='unchanged')(dict(results))
    loaded = loader(color_type='unchanged', to_float32=True)(results)
    np.testing.assert_array_equal(loaded['img'], scene(30, 40, 0, 'u4', 2**20))


@LOADERS
def test_sixteen_bits_and_an_old_pytorch(write, monkeypatch, loader):
    monkeypatch.setattr(decoding, 'torch', SimpleNamespace(__version__='2.1.0'))
    results = write(scene(30, 40, 3, 'u2', 9))
    with pytest.raises(ImageDecodingError, match=r'PyTorch 2.1.0 .*to_float32=True'):
        loader(color_type='unchanged')(dict(results))
    assert loader(color_type='unchanged', to_float32=True)(results)['img'].dtype == np.float32


@LOADERS
@pytest.mark.parametrize('bands', [2, 3, 8])
@pytest.mark.parametrize('layout', [dict(), dict(planar=True), dict(big_endian=True)])
def test_tifffile_loads_what_others_do_not(write, tifffile, told, loader, bands, layout):
    """In the machine's byte order, with the bands last."""
    img = scene(30, 40, bands, 'u2', 60000)
    tifffile(img, **layout)
    loaded = loader(imdecode_backend='tifffile')(write(img, **layout))
    np.testing.assert_array_equal(loaded['img'], img)
    assert loaded['img'].dtype == np.uint16
    assert loaded['img'].dtype.isnative
    assert loaded['ori_shape'] == loaded['img_shape'] == (30, 40)
    assert told == []


@LOADERS
def test_pages_are_bands(write, loader, monkeypatch):
    """A band on each page: tifffile gives (pages, h, w), of which the header knows the first."""
    pages = scene(30, 40, 8, 'u2', 60000)
    reader = SimpleNamespace(imread=lambda file: np.moveaxis(pages, 2, 0))
    monkeypatch.setattr(mmcv.image.io, 'tifffile', reader)
    loaded = loader(imdecode_backend='tifffile')(write(pages[..., 0]))
    np.testing.assert_array_equal(loaded['img'], pages)
    assert loaded['img'].flags.c_contiguous


@LOADERS
def test_tifffile_is_for_tiffs_and_to_be_installed(write, loader, monkeypatch):
    monkeypatch.setattr(mmcv.image.io, 'tifffile', None)
    transform = loader(imdecode_backend='tifffile')
    with pytest.raises(ImageDecodingError, match='not installed: pip install tifffile'):
        transform(write(scene(30, 40, 8, 'u2', 9)))
    with pytest.raises(ImageDecodingError, match="TIFF only, 'cv2' this one"):
        transform(write(scene(30, 40, 3, 'u1', 9), '.png'))


@LOADERS
def test_flags_of_opencv(write, told, loader):
    """Any of its numbers, such as IMREAD_ANYDEPTH: 16 bits in one band."""
    img = scene(30, 40, 0, 'u2', 4095)
    loaded = loader(color_type=cv2.IMREAD_ANYDEPTH)(write(img, '.png'))
    np.testing.assert_array_equal(loaded['img'], img)
    assert told == []


@LOADERS
def test_other_errors_stay_what_they_are(write, loader, tmp_path):
    (tmp_path / 'x.png').write_bytes(b'no image')
    for name in ('missing.tif', 'x.png'):
        with pytest.raises((OSError, AssertionError)):
            loader()(dict(img_path=str(tmp_path / name)))
    missing = dict(img_path=str(tmp_path / 'missing.tif'))
    assert loader(ignore_empty=True)(missing) is None
    with pytest.raises(
        ImageDecodingError, match=r'no image of .*missing.tif: without ignore_empty'
    ):
        load_or_raise(loader(ignore_empty=True), missing)


def test_an_error_of_a_loader_of_arrays_stays_what_it_is():
    def load(results):
        raise ArithmeticError('its own')

    with pytest.raises(ArithmeticError, match='its own'):
        load_checked(LoadImageFromFile(), load, dict(img=np.zeros((3, 3))))


# --- what OpenCV and Pillow do in silence ---------------------------------------------------------


OPAQUE_OR_NOT, INFRARED = np.array([0, 255]), np.arange(256)


@LOADERS
@pytest.mark.parametrize('bands', [4])
@pytest.mark.parametrize(('alpha', 'wrong'), [(OPAQUE_OR_NOT, False), (INFRARED, True)])
def test_a_band_that_is_marked_as_opacity_is_not_multiplied_in(
    tmp_path, told, loader, bands, alpha, wrong
):
    img = scene(30, 40, bands, 'u1', 250)
    img[..., 3] = np.resize(alpha, (30, 40))
    path = tmp_path / 'x.tif'
    path.write_bytes(tiff_bytes(img, extra=2))
    results = dict(img_path=str(path))
    loader()(dict(results))
    assert len(told) == wrong
    if not wrong:
        loader(color_type='unchanged')(dict(results))
        return
    assert 'OpenCV multiplies the colours by it' in told[0]
    with pytest.raises(ImageDecodingError, match="imdecode_backend='pillow' does not"):
        loader(color_type='unchanged')(dict(results))
    loaded = loader(color_type='unchanged', imdecode_backend='pillow')(dict(results))['img']
    np.testing.assert_array_equal(loaded[..., [2, 1, 0, 3]], img)


def test_a_file_name_that_opencv_cannot_be_given_is_loaded_all_the_same(tmp_path, told):
    path = os.path.join(os.fsencode(tmp_path), b'\xff.tif')
    with open(path, 'wb') as file:
        file.write(tiff_bytes(scene(30, 40, 4, 'u1', 250), extra=2))
    assert stock()(dict(img_path=os.fsdecode(path)))['img'].shape == (30, 40, 3)
    assert told == []


@LOADERS
@pytest.mark.parametrize('suffix', ['.png', '.tif', '.bmp', '.gif'])
def test_places_in_a_palette_are_no_values(tmp_path, loader, suffix):
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:15] = (10, 200, 90)
    Image.fromarray(colours).quantize(8).save(tmp_path / f'x{suffix}')
    results = dict(img_path=str(tmp_path / f'x{suffix}'))
    loaded = loader(color_type='unchanged')(dict(results))['img']
    assert loaded[3, 3, :3].tolist() == [90, 200, 10]
    with pytest.raises(ImageDecodingError, match="'cv2'"):
        loader(color_type='unchanged', imdecode_backend='pillow')(dict(results))
    grey = loader(color_type='grayscale', imdecode_backend='pillow')(dict(results))['img']
    assert grey[3, 3] == pytest.approx(0.299 * 10 + 0.587 * 200 + 0.114 * 90, abs=1)


@LOADERS
def test_further_pages_are_told_and_overviews_are_not(tmp_path, told, loader):
    pages = [Image.fromarray(scene(30, 40, 0, 'u1', 250)) for _ in range(3)]
    pages[0].save(tmp_path / 'x.tif', save_all=True, append_images=pages[1:])
    loaded = loader(color_type='unchanged')(dict(img_path=str(tmp_path / 'x.tif')))
    np.testing.assert_array_equal(loaded['img'], np.array(pages[0]))
    (message,) = told
    assert 'x.tif has several pages, of which the first is loaded' in message
    told.clear()
    decoding._told.clear()
    small = pages[0].resize((20, 15))
    pages[0].save(tmp_path / 'y.tif', save_all=True, append_images=[small])
    loader()(dict(img_path=str(tmp_path / 'y.tif')))
    assert told == []


@LOADERS
@pytest.mark.parametrize('value', [np.nan, np.inf, -3.4e38, 1e30])
def test_values_that_are_no_numbers_are_told(write, told, loader, value):
    img = scene(30, 40, 0, 'f4', 1)
    results = write(img)
    load = loader(color_type='unchanged')
    load(dict(results))
    assert told == []
    img[3, 5] = value
    load(write(img))
    (message,) = told
    assert 'has 1 values of 1200 that are NaN, infinite or beyond 1e+30' in message


@LOADERS
def test_negative_values_of_8_bits_are_not_taken_for_large_ones(write, loader):
    results = write(scene(30, 40, 0, 'i1', 99) - 50)
    with pytest.raises(ImageDecodingError, match="'unchanged', to_float32=True loads it"):
        loader()(dict(results))
    assert loader(color_type='unchanged', to_float32=True)(dict(results))['img'].min() < 0
