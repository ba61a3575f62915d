"""Images that are read by windows: the same pixels as decoding, overviews, bands, values."""

import importlib.util
import json
import os
import pickle
import sys

import cv2
import mmcv
import numpy as np
import pytest
import torch
from geo_tiff import smooth_scene, write_raster
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from small_tiff import tiff_bytes

from mmsniper.chips import ScalePyramid
from mmsniper.chips.windows import LevelWindows
from mmsniper.datasets import (
    ChipAwareSampler,
    LoadImageWindows,
    LoadLargeImageFromFile,
    decoding,
    image_windows,
)
from mmsniper.datasets.decoding import ImageDecodingError
from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.datasets.windowed_files import RasterFile, WindowedFile
from mmsniper.mining.window_dataset import window_dataset, window_index

WIDTH, HEIGHT = 300, 220
WINDOWS = [((10, 20, 110, 90), (100, 70)), ((0, 0, 300, 220), (77, 56)), ((7, 9, 41, 30), (68, 42))]


def load(path, **options):
    return LoadImageWindows(**options)(dict(img_path=str(path)))['img']


def decoded(path, **options):
    return LoadLargeImageFromFile(**options)(dict(img_path=str(path)))['img']


@pytest.fixture(autouse=True)
def told(monkeypatch):
    said = []
    monkeypatch.setattr(decoding, '_told', set())
    monkeypatch.setattr(decoding, 'print_log', lambda message, **_: said.append(message))
    return said


def assert_same_windows(img, whole):
    assert isinstance(img, ImageWindows)
    assert (img.shape, img.dtype, img.ndim) == (whole.shape, whole.dtype, whole.ndim)
    np.testing.assert_array_equal(img[0:HEIGHT, 0:WIDTH], whole)
    for (x1, y1, x2, y2), size in WINDOWS:
        np.testing.assert_array_equal(img[y1:y2, x1:x2], whole[y1:y2, x1:x2])
        expected = mmcv.imresize(np.ascontiguousarray(whole[y1:y2, x1:x2]), size)
        np.testing.assert_array_equal(img.read((x1, y1, x2, y2), size), expected)
    nearest = mmcv.imresize(whole, (50, 40), interpolation='nearest')
    np.testing.assert_array_equal(img.read((0, 0, WIDTH, HEIGHT), (50, 40), 'nearest'), nearest)


# --- the same pixels as decoding ------------------------------------------------------------------


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
@pytest.mark.parametrize('bands', [1, 3, 4])
@pytest.mark.parametrize(('dtype', 'most'), [('u1', 255), ('u2', 65535)])
def test_windows_of_a_tiled_tiff_are_what_decoding_gives(tmp_path, color_type, bands, dtype, most):
    scene, options = smooth_scene(WIDTH, HEIGHT, bands, dtype, most), dict(color_type=color_type)
    path = write_raster(tmp_path / 'a.tif', scene)
    # Grey tiles of 16 bits that end beyond the image are mixed up by OpenCV 5.0.
    strips = write_raster(tmp_path / 'strips.tif', scene, tile=0)
    assert_same_windows(load(path, **options), decoded(strips, **options))


@pytest.mark.parametrize('options', [dict(color_type='grayscale'), dict(to_float32=True)])
def test_one_band_as_other_options_of_the_loader_have_it(tmp_path, options):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT, 1))
    assert_same_windows(load(path, **options), decoded(path, **options))


def test_windows_of_floats_are_what_decoding_gives(tmp_path):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT, 1, 'f4', 1))
    options = dict(color_type='unchanged')
    assert_same_windows(load(path, **options), decoded(path, **options))


def test_windows_of_jpeg_2000_are_what_was_written(tmp_path):
    img = smooth_scene(WIDTH, HEIGHT)
    path = write_raster(tmp_path / 'a.jp2', img, driver='JP2OpenJPEG', tile=128)
    assert_same_windows(load(path), img[..., ::-1])


@pytest.mark.parametrize('shape', [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3)])
@pytest.mark.parametrize('dtype', ['u1', '>u2', 'f4'])
def test_windows_of_npy_are_the_array(tmp_path, shape, dtype):
    whole = smooth_scene(WIDTH, HEIGHT, 3, dtype, 250)[..., : shape[2] if shape[2:] else 1]
    np.save(tmp_path / 'a.npy', whole.reshape(shape))
    img = load(tmp_path / 'a.npy', color_type='unchanged')
    assert_same_windows(img, whole.reshape(shape).astype(whole.dtype.newbyteorder('=')))


def test_an_npy_of_one_band_is_shown_in_three_channels(tmp_path):
    grey = smooth_scene(WIDTH, HEIGHT, 1)
    np.save(tmp_path / 'a.npy', grey[..., 0])
    assert_same_windows(load(tmp_path / 'a.npy'), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize('version', [2, 3])
def test_windows_of_zarr_are_the_array(tmp_path, version):
    zarr = pytest.importorskip('zarr', minversion='3')
    whole = smooth_scene(WIDTH, HEIGHT)
    path = str(tmp_path / 'a.zarr')
    made = zarr.create_array(
        path, shape=whole.shape, chunks=(64, 64, 3), dtype='u1', zarr_format=version
    )
    made[:] = whole
    assert_same_windows(load(path), whole)


def test_a_group_of_zarr_is_refused_with_the_names_of_its_arrays(tmp_path):
    zarr = pytest.importorskip('zarr', minversion='3')
    path = str(tmp_path / 'a.zarr')
    zarr.open_group(path, mode='w').create_array('red', shape=(9, 9), dtype='u1')
    with pytest.raises(ImageDecodingError, match=r'a group of Zarr.*a\.zarr/red'):
        load(path)


@pytest.mark.parametrize(
    'options', [dict(tile=0), dict(photometric='CMYK'), dict(photometric='MINISWHITE')]
)
def test_other_tiff_is_decoded(tmp_path, options):
    img = smooth_scene(WIDTH, HEIGHT, 4 if options.get('photometric') == 'CMYK' else 1)
    path = write_raster(tmp_path / 'a.tif', img, **options)
    assert isinstance(load(path, color_type='color'), np.ndarray)


def test_other_formats_are_decoded(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), smooth_scene(30, 20))
    np.testing.assert_array_equal(load(tmp_path / 'a.png'), decoded(tmp_path / 'a.png'))


def test_colours_are_made_grey_by_decoding(tmp_path):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT))
    assert load(path, color_type='grayscale').shape == (HEIGHT, WIDTH)
    assert isinstance(load(path, color_type='grayscale'), np.ndarray)


def test_a_large_tiff_in_strips_is_read_by_windows(tmp_path, monkeypatch):
    monkeypatch.setattr('mmsniper.datasets.windowed_files._DECODED_WHOLE', WIDTH * HEIGHT - 1)
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT), tile=0)
    assert_same_windows(load(path), decoded(path))


# --- overviews ------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """What is read of raster files: (version, window)."""
    pytest.importorskip('rasterio')
    seen, pixels = [], RasterFile.pixels

    def spy(self, version, window, bands):
        seen.append((version, window))
        return pixels(self, version, window, bands)

    monkeypatch.setattr(RasterFile, 'pixels', spy)
    return seen


@pytest.fixture
def with_overviews(tmp_path):
    return write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT), overviews=(2, 4, 8))


@pytest.mark.parametrize(
    ('scale', 'version', 'read'),
    [
        (2.0, 0, (40, 40, 200, 200)),
        (1.0, 0, (40, 40, 200, 200)),
        (0.53, 0, (40, 40, 200, 200)),
        (0.5, 1, (20, 20, 100, 100)),
        (0.4, 1, (20, 20, 100, 100)),
        (0.25, 2, (10, 10, 50, 50)),
        (0.01, 3, (5, 5, 25, 25)),
    ],
)
def test_the_coarsest_overview_that_is_fine_enough_is_read(
    with_overviews, reads, scale, version, read
):
    side = max(round(160 * scale), 1)
    load(with_overviews).read((40, 40, 200, 200), (side, side))
    (found,) = reads
    assert found[0] == version
    # 300 px are 150, 75 and 38 of the overviews.
    np.testing.assert_allclose(found[1], read, atol=1)


def test_what_rounding_makes_of_a_size_changes_no_overview(with_overviews, reads):
    load(with_overviews).read((40, 40, 103, 103), (32, 32))  # 0.508
    assert reads[0][0] == 1


@pytest.mark.parametrize('window', [(0, 0, 300, 220), (41, 33, 207, 199), (5, 6, 101, 90)])
@pytest.mark.parametrize('scale', [0.5, 0.33, 0.2, 0.11])
@pytest.mark.parametrize('most_pixels', [2**27, 1000])
def test_what_is_coarser_shows_what_is_there(
    with_overviews, window, scale, most_pixels, monkeypatch
):
    """To a tenth of a pixel of the overview: each place has what a linear scene has there."""
    monkeypatch.setattr(image_windows, '_MOST_PIXELS', most_pixels)
    x1, y1, x2, y2 = window
    size = tuple(max(round(side * scale), 1) for side in (x2 - x1, y2 - y1))
    img = load(with_overviews)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    img._file.pixels = linear_scene(img._file, x, y)
    img._values = img.dtype = np.dtype(np.float32)
    got = img.read(window, size)
    xs = x1 + (np.arange(size[0]) + 0.5) * (x2 - x1) / size[0]
    ys = y1 + (np.arange(size[1]) + 0.5) * (y2 - y1) / size[1]
    factor = img._file.factors[img._version(window, size)]
    # At the edges of the window what is beside it is not seen.
    inner = slice(1, -1)
    np.testing.assert_allclose(
        got[inner, inner, 0], np.broadcast_to(xs, got.shape[:2])[inner, inner], atol=0.1 * factor
    )
    np.testing.assert_allclose(
        got[inner, inner, 1],
        np.broadcast_to(ys[:, None], got.shape[:2])[inner, inner],
        atol=0.1 * factor,
    )


def linear_scene(file, x, y):
    """A reader whose values are the places, in original px, of the centres of what is read."""

    def pixels(version, window, bands):
        x1, y1, x2, y2 = window
        width, height = file.size(version)
        xs = (np.arange(x1, x2) + 0.5) * WIDTH / width
        ys = (np.arange(y1, y2) + 0.5) * HEIGHT / height
        grid = np.meshgrid(xs, ys)
        return np.stack([*grid, grid[0]], axis=2).astype(np.float32)

    return pixels


def test_a_whole_image_is_reduced_from_an_overview(with_overviews, reads):
    assert load(with_overviews).reduced(60).shape == (44, 60, 3)
    assert [version for version, _ in reads] == [2]
    assert load(with_overviews).reduced(1000).shape == (HEIGHT, WIDTH, 3)


def test_a_window_that_is_too_large_is_read_in_strips(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(image_windows, '_MOST_PIXELS', 5000)
    monkeypatch.setattr(image_windows, '_STRIP', 4000)
    whole = smooth_scene(WIDTH, HEIGHT)
    img = load(write_raster(tmp_path / 'a.tif', whole))
    got = img.read((4, 8, 300, 220), (74, 53))  # of squares of 4 px
    means = whole[8:, 4:, ::-1].reshape(53, 4, 74, 4, 3).mean((1, 3))
    np.testing.assert_allclose(got, means, atol=0.51)
    assert [window for _, window in reads] == [
        (4, y, 300, min(y + 12, 220)) for y in range(8, 220, 12)
    ]
    got = img.read((3, 5, 298, 219), (73, 53))  # whose last squares are cut
    assert got.shape == (53, 73, 3)
    assert np.abs(got[:20, :20].astype(float) - means[:20, :20]).mean() < 40
    reads.clear()
    img.read((3, 5, 298, 219), (290, 200))  # no coarser than that: nothing to reduce
    assert len(reads) == 1


# --- chips and windows ----------------------------------------------------------------------------

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 16)),
        dict(resize=dict(factor=1.0), valid_range=(12, 40)),
        dict(resize=dict(factor=0.25), valid_range=(32, None)),
    ],
)


@pytest.fixture
def samples_of(tmp_path):
    """(file, loader) -> all samples of an epoch, and windows of all levels as mining sees them."""
    register_all_modules()
    rng = np.random.default_rng(0)
    wh = rng.uniform(6, 90, (25, 2))
    boxes = np.concatenate([rng.uniform(0, 1, (25, 2)) * ([WIDTH, HEIGHT] - wh), wh], axis=1)

    def samples(path, loader):
        images = [dict(id=1, file_name=os.path.basename(path), width=WIDTH, height=HEIGHT)]
        objects = [
            dict(id=i, image_id=1, category_id=1, bbox=b, area=b[2] * b[3], iscrowd=0)
            for i, b in enumerate(boxes.tolist(), 1)
        ]
        content = dict(images=images, annotations=objects, categories=[dict(id=1, name='object')])
        (tmp_path / 'a.json').write_text(json.dumps(content))
        inner = dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file='a.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=('object',)),
        )
        pipeline = [
            dict(type=loader),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='ChipSampler', pyramid=PYRAMID),
            dict(type='ScaleRangeFilter', pyramid=PYRAMID),
            dict(type='PackDetInputs'),
        ]
        data = DATASETS.build(dict(type='ChipDataset', dataset=inner, pipeline=pipeline))
        sampler = ChipAwareSampler(data, PYRAMID, seed=0)
        pyramid = ScalePyramid.from_config(PYRAMID)
        windows = LevelWindows(pyramid, [WIDTH], [HEIGHT], window_size=100).of_image(0)
        seen = window_dataset(data, pyramid)
        chips, mined = list(sampler), [window_index(window) for window in windows]
        return [data[chip] for chip in chips], [seen[window] for window in mined]

    return samples


@pytest.mark.parametrize('number', [0, 1], ids=['chips', 'mining'])
def test_chips_and_windows_of_mining_are_those_of_decoding(tmp_path, samples_of, number, reads):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT))
    ours = samples_of(path, 'LoadImageWindows')[number]
    theirs = samples_of(path, 'LoadLargeImageFromFile')[number]
    assert len(ours) == len(theirs) > 5
    for our, their in zip(ours, theirs):
        assert torch.equal(our['inputs'], their['inputs'])
        for key in ('level', 'homography_matrix', 'img_shape', 'ori_shape'):
            assert np.array_equal(our['data_samples'].get(key), their['data_samples'].get(key))
    # Nothing but the windows is read.
    whole = WIDTH * HEIGHT
    read = [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2) in reads]
    assert sum(area < whole / 4 for area in read) > len(read) / 2


def test_coarse_chips_come_from_overviews(tmp_path, samples_of, reads):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT), overviews=(2, 4))
    samples_of(path, 'LoadImageWindows')
    assert {version for version, _ in reads} == {0, 2}


# --- bands ----------------------------------------------------------------------------------------


def test_bands_are_those_that_are_chosen_in_their_order(tmp_path):
    whole = smooth_scene(WIDTH, HEIGHT, 8)
    path = write_raster(tmp_path / 'a.tif', whole)
    np.testing.assert_array_equal(
        load(path, bands=(8, 3, 2))[0:HEIGHT, 0:WIDTH], whole[..., [7, 2, 1]]
    )
    assert_same_windows(load(path, bands=(5,)), whole[..., 4])
    assert_same_windows(load(path, color_type='unchanged'), whole)


def test_bands_of_an_npy_are_chosen(tmp_path):
    whole = smooth_scene(WIDTH, HEIGHT, 5)
    np.save(tmp_path / 'a.npy', whole)
    assert_same_windows(load(tmp_path / 'a.npy', bands=[4, 1]), whole[..., [3, 0]])


def test_bands_are_chosen_of_files_without_tiles(tmp_path):
    pytest.importorskip('rasterio')
    whole = smooth_scene(WIDTH, HEIGHT, 6)
    (tmp_path / 'a.tif').write_bytes(tiff_bytes(whole, planar=True))
    img = load(tmp_path / 'a.tif', bands=(6, 1))
    np.testing.assert_array_equal(img[0:HEIGHT, 0:WIDTH], whole[..., [5, 0]])


@pytest.mark.parametrize('bands', [(0,), (4,), ()])
def test_bands_that_are_not_there_are_refused(tmp_path, bands):
    np.save(tmp_path / 'a.npy', smooth_scene(30, 20))
    with pytest.raises(ImageDecodingError, match=r'a\.npy has 3 bands, numbered from 1'):
        load(tmp_path / 'a.npy', bands=bands)


def test_colours_of_eight_bands_are_to_be_chosen(tmp_path):
    np.save(tmp_path / 'a.npy', smooth_scene(30, 20, 8))
    with pytest.raises(ImageDecodingError, match=r'has 8 bands.*choose bands='):
        load(tmp_path / 'a.npy')


# --- values ---------------------------------------------------------------------------------------


def test_values_are_stretched_between_the_limits(tmp_path):
    values = np.array([[0, 100, 200, 300, 400, 65535]], np.uint16)
    np.save(tmp_path / 'a.npy', values)
    img = load(tmp_path / 'a.npy', stretch=(100, 300), color_type='unchanged')
    assert img.dtype == np.uint8
    assert img[0:1, 0:6].tolist() == [[0, 0, 128, 255, 255, 255]]


def test_each_band_may_have_its_limits(tmp_path):
    np.save(tmp_path / 'a.npy', np.full((1, 1, 2), 50, np.int16))
    img = load(tmp_path / 'a.npy', stretch=[(0, 100), (-150, 50)], bands=(1, 2))
    assert img[0:1, 0:1].tolist() == [[[128, 255]]]
    with pytest.raises(ImageDecodingError, match='limits for 2 bands, and 1 are taken'):
        load(tmp_path / 'a.npy', stretch=[(0, 100), (-150, 50)], bands=(1,))


@pytest.mark.parametrize(
    'stretch', [(3, 3), (5, 1), 'auto', dict(percentiles=(98, 2)), dict(low=1), [(1, 2), (2, 1)]]
)
def test_limits_that_are_none_are_refused(stretch):
    with pytest.raises(ValueError, match='stretch must be'):
        LoadImageWindows(stretch=stretch)


def test_percentiles_are_those_of_the_coarsest_overview(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(image_windows, '_OVERVIEW_SIDE', 70)
    monkeypatch.setattr(image_windows, '_counted', {})
    scene = smooth_scene(WIDTH, HEIGHT, 3, 'u2', 4095)
    path = write_raster(tmp_path / 'a.tif', scene, overviews=(2, 4, 8), nodata=0)
    img = load(path, stretch=dict(percentiles=(2, 98)))
    assert reads == [(2, (0, 0, 75, 55))]
    seen = RasterFile(path).pixels(2, (0, 0, 75, 55), (2, 1, 0)).reshape(-1, 3).astype(float)
    low, high = np.array([np.percentile(v[v != 0], (2, 98)) for v in seen.T]).T
    part = scene[10:50, 20:80, ::-1].astype(float)
    expected = np.clip((part - low) / (high - low), 0, 1) * 255
    assert np.abs(img[10:50, 20:80] - expected).max() <= 0.51
    reads.clear()
    load(path, stretch=dict(percentiles=(2, 98)))
    assert reads == []  # counted once


def test_without_overviews_percentiles_are_those_of_windows_evenly_spread(tmp_path, monkeypatch):
    monkeypatch.setattr(image_windows, '_SAMPLE_SIDE', 4)
    values = np.zeros((100, 200), np.float32)
    values[:4], values[-4:] = 10, np.nan
    values[48:56] = 20
    np.save(tmp_path / 'a.npy', values)
    img = load(tmp_path / 'a.npy', stretch=dict(percentiles=(0, 100)), color_type='unchanged')
    # Rows 0, 13, 27, 41, 54, 68, 82, 96.
    assert img._limits.tolist() == [[0], [20]]
    assert img[96:97, 0:1].tolist() == [[0]]  # NaN


def test_sixteen_bits_as_colour_are_told(tmp_path, told):
    np.save(tmp_path / 'a.npy', smooth_scene(30, 20, 3, 'u2', 4095))
    load(tmp_path / 'a.npy')
    load(tmp_path / 'a.npy')
    (message,) = told
    assert 'a.npy has 16 bits' in message
    assert 'stretch=dict(percentiles=(2, 98))' in message


def test_floats_as_colour_are_refused(tmp_path):
    np.save(tmp_path / 'a.npy', np.zeros((30, 20, 3), np.float32))
    with pytest.raises(ImageDecodingError, match=r'a\.npy has values of type float32.*stretch='):
        load(tmp_path / 'a.npy')


def test_values_that_opencv_does_not_resize_are_refused(tmp_path):
    np.save(tmp_path / 'a.npy', np.zeros((30, 20, 3), np.int64))
    with pytest.raises(ImageDecodingError, match='to_float32=True'):
        load(tmp_path / 'a.npy', color_type='unchanged')
    load(tmp_path / 'a.npy', color_type='unchanged', to_float32=True)


# --- processes, packages, faults ------------------------------------------------------------------


@pytest.fixture(params=['tif', 'npy', 'zarr'])
def file(request, tmp_path):
    path, whole = tmp_path / f'a.{request.param}', smooth_scene(WIDTH, HEIGHT)
    if request.param == 'tif':
        write_raster(path, whole[..., ::-1])
    elif request.param == 'npy':
        np.save(path, whole)
    else:
        zarr = pytest.importorskip('zarr', minversion='3')
        zarr.create_array(str(path), shape=whole.shape, chunks=(64, 64, 3), dtype='u1')[:] = whole
    return path, whole


def test_it_goes_through_a_pickle_before_and_after_it_was_read(file):
    path, whole = file
    img = load(path)
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(img))
        np.testing.assert_array_equal(copy[5:50, 7:70], whole[5:50, 7:70])
        np.testing.assert_array_equal(img[5:50, 7:70], whole[5:50, 7:70])


def test_it_is_read_on_both_sides_of_a_fork(file):
    path, whole = file
    img = load(path)
    img[0:60, 0:60]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(not np.array_equal(img[60:HEIGHT, 7:WIDTH], whole[60:, 7:]))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(img[100:HEIGHT, 7:WIDTH], whole[100:, 7:])


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT))
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    with pytest.raises(ImportError, match=r"a\.tif are read by rasterio.*'mmsniper\[geo\]'"):
        load(path)


def test_a_package_that_is_missing_and_optional_leaves_decoding(tmp_path, monkeypatch):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        'mmsniper.datasets.windowed_files.find_spec', lambda n: None if n == 'rasterio' else find(n)
    )
    assert isinstance(load(path, optional=True), np.ndarray)


def test_zarr_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / 'a.zarr').mkdir()
    (tmp_path / 'a.zarr' / 'zarr.json').write_text('{}')
    monkeypatch.setitem(sys.modules, 'zarr', None)
    with pytest.raises(ImportError, match=r'a\.zarr are read by zarr'):
        load(tmp_path / 'a.zarr', optional=True)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    whole = smooth_scene(WIDTH, HEIGHT, seed=3)
    path = tmp_path / 'a.tif'
    write_raster(path, whole, compress='deflate')
    (directory,) = np.frombuffer(path.read_bytes()[4:8], '<u4')
    assert directory < 100  # at the start, so that the file can be opened without its end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    img = load(path)
    with pytest.raises(ImageDecodingError, match=r'the window \[0, 150, 300, 220\] of .*a\.tif'):
        img[150:220, 0:300]


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    pytest.importorskip('rasterio')
    path = tmp_path / 'a.tif'
    write_raster(path, smooth_scene(WIDTH, HEIGHT))
    # Compressed in a way that nobody knows.
    data = path.read_bytes().replace(
        b'\x03\x01\x03\x00\x01\x00\x00\x00\x01\x00', b'\x03\x01\x03\x00\x01\x00\x00\x00\x4d\x4d'
    )
    path.write_bytes(data)
    with pytest.raises(ImageDecodingError, match=r'a\.tif'):
        load(path)[0:60, 0:60]
    (tmp_path / 'b.npy').write_bytes(b'\x93NUMPY\1\0')
    with pytest.raises(ImageDecodingError, match=r'b\.npy cannot be opened'):
        load(tmp_path / 'b.npy')


def test_a_file_that_cannot_be_opened_may_be_passed_over(tmp_path):
    (tmp_path / 'b.npy').write_bytes(b'\x93NUMPY\1\0')
    loader = LoadImageWindows(ignore_empty=True)
    assert loader(dict(img_path=str(tmp_path / 'b.npy'))) is None


def test_a_whole_image_is_an_array_of_the_same_values(tmp_path):
    scene = smooth_scene(30, 20, 4, 'u2', 900)
    np.save(tmp_path / 'a.npy', scene)
    options = dict(bands=(4, 2), stretch=(100, 700))
    img = load(tmp_path / 'a.npy', whole=True, **options)
    assert isinstance(img, np.ndarray)
    np.testing.assert_array_equal(img, load(tmp_path / 'a.npy', **options)[0:20, 0:30])


def test_a_file_that_is_missing_is_an_error_of_its_own(tmp_path):
    with pytest.raises(OSError, match='nowhere'):
        load(tmp_path / 'nowhere.tif')


def test_what_wants_an_array_is_told_what_it_got(tmp_path):
    np.save(tmp_path / 'a.npy', smooth_scene(30, 20))
    img = load(tmp_path / 'a.npy')
    for wrong in (np.asarray, lambda image: image[3], lambda image: image[::2, 0:3]):
        with pytest.raises(TypeError, match=r'a\.npy.*read by windows'):
            wrong(img)


def test_a_file_without_overviews_has_one_version():
    assert WindowedFile.factors == (1.0,)
