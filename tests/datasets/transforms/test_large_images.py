"""A chip of a large image costs the memory of the image, once, and nothing is kept of it."""

import contextlib
import gc
import json
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.utils import digit_version
from PIL import Image

from mmsniper.chips import POSITIVE
from mmsniper.datasets import Chip, ChipIndex
from mmsniper.datasets.image_faults import ImageFileError
from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile, in_large_version

ROOT = Path(__file__).resolve().parents[3]
OLD_OPENCV = digit_version(cv2.__version__) < digit_version('4.11')
decodes_in_place = pytest.mark.skipif(
    OLD_OPENCV, reason=f'OpenCV {cv2.__version__} cannot decode into an array that is there'
)
COLOR_TYPES = ['color', 'grayscale', 'unchanged', 'color_ignore_orientation']


def photo(height=80, width=100):
    """Smooth noise, which compresses to a JPEG of some kB."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1)


# --- memory ---------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def peaks(tmp_path_factory):
    """Peak memory of workers over the decoded image, 6000x6000 px, as the benchmark measures it."""
    if not sys.platform.startswith('linux'):
        pytest.skip('reads /proc')
    folder = tmp_path_factory.mktemp('large')
    command = [
        sys.executable,
        'benchmarks/large_images.py',
        '--side',
        '6000',
        '--formats',
        'jpg',
        'png',
        'npy',
        '--workers',
        '1',
        '--batch',
        '4',
        '--objects',
        '100',
        '--folder',
        str(folder),
        '--out',
        str(folder / 'result.json'),
    ]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = json.loads((folder / 'result.json').read_text())['runs']
    return {(run['loader'], run['format']): run['peak'] for run in runs}


@decodes_in_place
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_a_worker_needs_less_than_1_5_times_the_decoded_image(peaks, suffix):
    assert 1.0 < peaks['LoadLargeImageFromFile', suffix] < 1.5


def test_the_stock_transform_needs_the_image_twice_so_the_measurement_can_tell(peaks):
    assert peaks['LoadImageFromFile', 'jpg'] > 1.9


def test_an_image_mapped_from_its_file_costs_no_memory_that_stays(peaks):
    """Pages that the chips have touched count, but the system can take them back."""
    assert peaks['MapImage', 'npy'] < 1.5


@pytest.mark.parametrize('window', [(8.0, 4.0, 72.0, 68.0), (0.0, 0.0, 64.0, 64.0)])
def test_a_chip_is_no_view_that_keeps_the_image_alive(make_coco, pyramid, window):
    """At factor 1.0, where resizing has nothing to do."""
    seen = {}

    @TRANSFORMS.register_module(force=True)
    class Remember:
        def __call__(self, results):
            seen[len(seen)] = results['img']
            return results

    pipeline = [
        dict(type='LoadLargeImageFromFile'),
        dict(type='Remember'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ChipSampler', pyramid=pyramid),
        dict(type='Remember'),
    ]
    config = make_coco([dict(size=(100, 80), boxes=[[10, 10, 30, 30]], img=photo())])
    dataset = DATASETS.build(dict(type='ChipDataset', dataset=config, pipeline=pipeline))
    results = dataset[ChipIndex(0, Chip(1, window, POSITIVE))]
    image, chip = seen.values()
    assert not np.shares_memory(image, chip)
    assert chip.shape == (64, 64, 3)
    x, y = int(window[0]), int(window[1])
    np.testing.assert_array_equal(chip, image[y : y + 64, x : x + 64])
    assert not any(value is image for value in results.values())


@pytest.fixture
def loaded_images(make_coco, pyramid):
    """A data set of three images, of which what comes after loading is given; and weak references
    to the images that it has loaded, each loaded when those before were gone already.
    """
    loaded = []

    def note(results):
        assert [ref() for ref in loaded] == [None] * len(loaded)
        loaded.append(weakref.ref(results['img']))
        return results

    def make(then=lambda results: results):
        config = make_coco([dict(size=(100, 80), boxes=[[10, 10, 30, 30]])] * 3)
        pipeline = [
            TRANSFORMS.build(dict(type='LoadLargeImageFromFile')),
            note,
            TRANSFORMS.build(dict(type='LoadAnnotations', with_bbox=True)),
            then,
            TRANSFORMS.build(dict(type='ChipSampler', pyramid=pyramid)),
        ]
        return DATASETS.build(dict(type='ChipDataset', dataset=config, pipeline=pipeline)), loaded

    gc.disable()
    yield make
    gc.enable()


def test_an_image_is_gone_before_the_next_is_loaded_while_a_batch_is_collected(loaded_images):
    dataset, loaded = loaded_images()
    batch = [dataset[ChipIndex(i, Chip(1, (8.0, 4.0, 72.0, 68.0), POSITIVE))] for i in range(3)]
    assert len(loaded) == len(batch) == 3
    assert loaded[-1]() is None


def test_an_image_that_is_passed_over_is_gone_before_another_is_loaded(loaded_images):
    dataset, loaded = loaded_images(lambda results: results if len(loaded) > 2 else None)
    assert dataset[0] is not None
    assert len(loaded) == 3


def test_an_image_that_fails_is_not_held_by_what_its_error_leaves(loaded_images):
    dataset, loaded = loaded_images(lambda results: results['no such key'])
    for i in range(2):
        with contextlib.suppress(RuntimeError):
            dataset[i]
    assert len(loaded) == 2
    assert loaded[-1]() is None


# --- the same pixels ------------------------------------------------------------------------------


def both(path, **kwargs):
    return [
        transform(**kwargs)(dict(img_path=str(path)))
        for transform in (LoadImageFromFile, LoadLargeImageFromFile)
    ]


def write(path, img, *options):
    assert cv2.imwrite(str(path), img, *options)
    return path


@pytest.fixture
def decoded_in_place(monkeypatch):
    """Fail where the stock transform loads an image."""
    monkeypatch.setattr('mmcv.imfrombytes', lambda *args, **kwargs: pytest.fail('stock transform'))


FORMATS = dict(
    jpeg=('.jpg', photo()),
    png=('.png', photo()),
    tiff=('.tif', photo()),
    grey_jpeg=('.jpg', photo()[..., 0]),
    rgba=('.png', np.dstack([photo(), photo()[..., :1]])),
    grey_16_bit=('.png', photo()[..., 0].astype(np.uint16) * 256),
    colour_16_bit=('.png', photo().astype(np.uint16) * 256),
)


@pytest.mark.parametrize('color_type', COLOR_TYPES)
@pytest.mark.parametrize('name', FORMATS)
def test_it_loads_what_the_stock_transform_loads(tmp_path, name, color_type):
    suffix, img = FORMATS[name]
    stock, ours = both(write(tmp_path / f'x{suffix}', img), color_type=color_type)
    assert ours.keys() == stock.keys()
    assert ours['img'].dtype == stock['img'].dtype
    np.testing.assert_array_equal(ours['img'], stock['img'])
    assert ours['img_shape'] == stock['img_shape'] == (80, 100)
    assert ours['ori_shape'] == stock['ori_shape']


@pytest.mark.parametrize('color_type', COLOR_TYPES)
def test_exif_orientation_is_treated_as_the_stock_transform_does(tmp_path, color_type):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(photo()).save(tmp_path / 'x.jpg', exif=exif)
    stock, ours = both(tmp_path / 'x.jpg', color_type=color_type)
    turned = color_type in ('color', 'grayscale')
    assert ours['ori_shape'] == ((100, 80) if turned else (80, 100))
    np.testing.assert_array_equal(ours['img'], stock['img'])


def test_to_float32(tmp_path):
    stock, ours = both(write(tmp_path / 'x.png', photo()), to_float32=True)
    assert ours['img'].dtype == np.float32
    np.testing.assert_array_equal(ours['img'], stock['img'])


@decodes_in_place
@pytest.mark.parametrize('tail', [b'', b'\0' * 512])
def test_whole_jpegs_are_decoded_in_place(tmp_path, decoded_in_place, tail):
    path = write(tmp_path / 'x.jpg', photo())
    path.write_bytes(path.read_bytes() + tail)
    assert LoadLargeImageFromFile()(dict(img_path=str(path)))['img'].shape == (80, 100, 3)


def test_a_jpeg_with_something_behind_its_end_is_loaded_all_the_same(tmp_path):
    path = write(tmp_path / 'x.jpg', photo())
    path.write_bytes(path.read_bytes() + b'what a camera adds')
    stock, ours = both(path)
    np.testing.assert_array_equal(ours['img'], stock['img'])


@pytest.mark.parametrize(
    'options', [dict(imdecode_backend='pillow'), dict(backend_args=dict(backend='http'))]
)
def test_what_opencv_cannot_read_from_disk_is_left_to_the_stock_transform(
    tmp_path, monkeypatch, options
):
    path = write(tmp_path / 'x.png', photo())
    monkeypatch.setattr('cv2.imread', lambda *args: pytest.fail('read from disk'))
    monkeypatch.setattr('mmengine.fileio.get', lambda name, **_: Path(name).read_bytes())
    loaded = LoadLargeImageFromFile(**options)(dict(img_path=str(path)))
    np.testing.assert_array_equal(loaded['img'], photo())


# --- files that are broken ------------------------------------------------------------------------


@pytest.mark.parametrize('version', ['4.9.0', '4.10.0'])
def test_an_opencv_that_cannot_decode_in_place_is_left_to_the_stock_transform(
    tmp_path, monkeypatch, version
):
    path = write(tmp_path / 'x.png', photo())
    monkeypatch.setattr('cv2.__version__', version)
    monkeypatch.setattr('cv2.imread', lambda *args: pytest.fail('no such signature'))
    loaded = LoadLargeImageFromFile()(dict(img_path=str(path)))
    np.testing.assert_array_equal(loaded['img'], photo())


@pytest.mark.skipif(OLD_OPENCV, reason=f'OpenCV {cv2.__version__} makes up the rest in silence')
@pytest.mark.parametrize('progressive', [0, 1])
@pytest.mark.parametrize('kept', [0.05, 0.5, 0.95])
def test_a_truncated_jpeg_is_an_error_and_not_a_half_grey_image(tmp_path, kept, progressive):
    path = write(tmp_path / 'x.jpg', photo(), [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageFileError, match=f'cannot load {path}. It is a JPEG that is cut short'):
        LoadLargeImageFromFile()(dict(img_path=str(path)))


def test_a_name_that_is_no_utf_8_does_not_crash_opencv(tmp_path):
    path = write(tmp_path / 'x.png', photo())
    odd = os.fsdecode(os.fsencode(tmp_path) + b'/f\xfcr.png')
    os.rename(path, odd)
    img = LoadLargeImageFromFile()(dict(img_path=odd))['img']
    np.testing.assert_array_equal(img, photo())
    with open(odd, 'wb'):
        pass
    with pytest.raises(ImageFileError, match='It is empty'):
        LoadLargeImageFromFile()(dict(img_path=odd))


def test_a_missing_file_may_be_passed_over(tmp_path):
    assert LoadLargeImageFromFile(ignore_empty=True)(dict(img_path=str(tmp_path / 'no'))) is None


def test_a_missing_file_is_told_without_a_warning_of_opencv(tmp_path, capfd):
    with pytest.raises(ImageFileError, match=f'The folder {tmp_path} is empty'):
        LoadLargeImageFromFile()(dict(img_path=str(tmp_path / 'no.jpg')))
    assert capfd.readouterr().err == ''


# --- windowed reading -----------------------------------------------------------------------------


class Reader:
    """Something that reads windows: what ChipSampler asks of results['img']."""

    def __init__(self, img):
        self.shape, self.windows, self._img = img.shape, [], img

    def __getitem__(self, window):
        self.windows.append(window)
        return np.ascontiguousarray(self._img[window])


def test_an_image_need_only_have_a_shape_and_give_windows(pyramid):
    reader = Reader(photo(200, 300))
    results = dict(
        img=reader,
        img_shape=(200, 300),
        ori_shape=(200, 300),
        chip=Chip(0, (40.0, 60.0, 72.0, 92.0), POSITIVE),
    )
    chip = TRANSFORMS.build(dict(type='ChipSampler', pyramid=pyramid))(results)['img']
    assert reader.windows == [(slice(60, 92), slice(40, 72))]
    assert isinstance(chip, np.ndarray)
    assert chip.shape == (64, 64, 3)


def test_the_reader_of_the_docs_reads_windows(pyramid):
    """A format of one's own, of which the page says what it needs."""
    page = (ROOT / 'docs/large_images.md').read_text()
    (code,) = [c for c in re.findall(r'```python\n(.*?)```', page, re.S) if 'class Slide' in c]
    image = photo(200, 300)
    read = []

    def open_slide(path):
        def pixels(rows, columns):
            read.append((rows.start, rows.stop, columns.start, columns.stop))
            return image[rows, columns, ::-1]  # RGB

        return SimpleNamespace(height=image.shape[0], width=image.shape[1], read=pixels)

    namespace = dict(np=np, open_slide=open_slide)
    exec(compile(code, 'docs/large_images.md', 'exec'), namespace)
    img = namespace['img']
    results = dict(img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2])
    results['chip'] = Chip(1, (40.0, 60.0, 104.0, 124.0), POSITIVE)
    chip = TRANSFORMS.build(dict(type='ChipSampler', pyramid=pyramid))(results)['img']
    assert type(chip) is np.ndarray
    np.testing.assert_array_equal(chip, image[60:124, 40:104])
    assert read == [(60, 124, 40, 104)]


def test_the_table_of_the_docs_is_that_of_the_benchmark():
    table = (ROOT / 'benchmarks/results/large_images.md').read_text()
    rows = [line for line in table.splitlines() if line.startswith('|')]
    assert '\n'.join(rows) in (ROOT / 'docs/large_images.md').read_text()
    goal = re.findall(r'`LoadLargeImageFromFile` \|.*?\| \d \| ([\d.]+) \|', table)
    assert len(goal) >= 4
    assert max(map(float, goal)) < 1.5


@pytest.mark.parametrize(
    'type_', ['LoadImageFromFile', 'mmdet.LoadImageFromFile', LoadImageFromFile]
)
def test_the_stock_transform_has_a_large_version_with_its_settings(type_):
    config = dict(type=type_, to_float32=True)
    large = in_large_version(config)
    assert large == dict(type='mmdet.LoadLargeImageFromFile', to_float32=True)
    assert config['type'] is type_


@pytest.mark.parametrize('type_', ['LoadImageFromNDArray', 'mmdet.LoadLargeImageFromFile'])
def test_other_transforms_stay_as_they_are(type_):
    config = dict(type=type_, to_float32=True)
    assert in_large_version(config) == config
