"""A test that reads windows of files finds what a test of decoded images finds."""

import threading
from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from geo_tiff import smooth_scene, write_raster
from mmengine.dataset import Compose, pseudo_collate
from mmengine.utils import digit_version
from torch.utils.data import DataLoader

from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.datasets.windowed_files import NpyFile, RasterFile
from mmsniper.models.views import Scene, load_window

WIDTH, HEIGHT = 230, 190
PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 40)),
        dict(resize=dict(factor=0.5), valid_range=(30, None)),
    ],
)
PIPELINE = ['LoadImageWindows', 'PackImageWindows']


class Files:
    """A data set of files, for a data loader."""

    def __init__(self, paths, pipeline):
        steps = [dict(type=step) if isinstance(step, str) else step for step in pipeline]
        self.paths, self.pipeline = paths, Compose(steps)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return self.pipeline(dict(img_path=self.paths[i], img_id=i))


def batches(paths, pipeline=PIPELINE, workers=0):
    return list(
        DataLoader(Files(paths, pipeline), 2, num_workers=workers, collate_fn=pseudo_collate)
    )


@pytest.fixture
def paths(tmp_path):
    """Two images of two sizes, and a copy of each as an array of the same pixels."""
    for i in range(2):
        img = smooth_scene(WIDTH - 40 * i, HEIGHT, seed=i)
        np.save(tmp_path / f'{i}.npy', img[..., ::-1])
        write_raster(tmp_path / f'{i}.tif', img)
    return tmp_path


def results(model, data):
    return [sample.pred_instances for sample in model.test_step(data)]


@pytest.mark.parametrize('suffix', ['tif', 'npy'])
@pytest.mark.parametrize('type', ['PyramidDetector', 'AutoFocus'])
@pytest.mark.parametrize('family', ['RetinaNet', 'MaskRCNN'])
def test_detections_are_those_of_decoded_images(at_levels, paths, suffix, type, family):
    settings = dict(small=(0, 100), thresholds=0.0) if type == 'AutoFocus' else {}
    model = at_levels(family, PYRAMID, type=type, window_size=100, **settings)
    names = [str(paths / f'{i}.{suffix}') for i in range(2)]
    decoded = [str(paths / f'{i}.tif') for i in range(2)]
    (ours,) = batches(names)
    (theirs,) = batches(decoded, ['LoadLargeImageFromFile', 'PackDetInputs'])
    assert all(isinstance(image, ImageWindows) for image in ours['inputs'])
    assert all(isinstance(image, torch.Tensor) for image in theirs['inputs'])
    for got, expected in zip(results(model, ours), results(model, theirs)):
        assert len(got) > 0
        for key in list(expected.keys()):
            assert torch.equal(got[key], expected[key])


def test_images_go_from_workers_to_the_test(at_levels, paths):
    model = at_levels('RetinaNet', PYRAMID, window_size=100)
    names = [str(paths / name) for name in ('0.tif', '1.npy', '1.tif', '0.npy')]
    by_worker = [results(model, data) for data in batches(names, workers=2)]
    here = [results(model, data) for data in batches(names)]
    for ours, theirs in zip(chain(*by_worker), chain(*here)):
        assert torch.equal(ours.bboxes, theirs.bboxes)
        assert len(ours) > 0


@pytest.mark.skipif(
    digit_version(cv2.__version__) < digit_version('4.11'),
    reason=f'JPEGs are decoded whole by OpenCV {cv2.__version__}',
)
def test_a_reduced_jpeg_is_tested_as_an_image_of_its_means_is(at_levels, paths):
    """At half its size; from a worker, too, which decodes nothing."""
    cv2.imwrite(str(paths / 'a.jpg'), smooth_scene(WIDTH, HEIGHT), [cv2.IMWRITE_JPEG_QUALITY, 100])
    half = cv2.imread(str(paths / 'a.jpg'), cv2.IMREAD_REDUCED_COLOR_2)
    cv2.imwrite(str(paths / 'half.png'), half)

    def tested(name, factor, loading, workers=0):
        level = dict(resize=dict(factor=factor), valid_range=(0, None))
        model = at_levels('RetinaNet', dict(chip_size=64, levels=[level]))
        pipeline = [loading, 'PackImageWindows']
        (data,) = batches([str(paths / name)], pipeline, workers)
        return results(model, data)[0].bboxes

    expected = tested('half.png', 1.0, 'LoadImageWindows')
    reduced = dict(type='LoadImageWindows', reduced_jpegs=True)
    assert len(expected) > 0
    for workers in (0, 1):
        found = tested('a.jpg', 0.5, reduced, workers)
        torch.testing.assert_close(found, expected * 2, rtol=0, atol=1e-3)


@pytest.mark.parametrize('family', ['RetinaNet', 'MaskRCNN'])
def test_windows_that_are_read_ahead_are_the_same(at_levels, paths, monkeypatch, family):
    threads, read = set(), ImageWindows.read

    def noted(self, *args):
        threads.add(threading.current_thread().name.partition('_0')[0])
        return read(self, *args)

    monkeypatch.setattr(ImageWindows, 'read', noted)
    (data,) = batches([str(paths / '0.tif'), str(paths / '1.npy')])
    expected = None
    for count, where in ((0, {'MainThread'}), (1, {'read_ahead'}), (4, {'read_ahead'})):
        model = at_levels(family, PYRAMID, window_size=100, read_ahead=count)
        model.batch_pixels = 2 * 128**2
        threads.clear()
        found = results(model, data)
        if family == 'MaskRCNN':  # whose windows may be read again for the masks
            threads.add('MainThread')
            where = where | {'MainThread'}
        assert threads == where
        expected = expected or found
        for ours, theirs in zip(found, expected):
            assert len(ours) > 0
            assert torch.equal(ours.bboxes, theirs.bboxes)


def test_windows_of_decoded_images_take_no_thread(at_levels, paths, monkeypatch):
    threads = []
    monkeypatch.setattr(
        'mmsniper.models.pyramid_detector.made_ahead',
        lambda items, count: threads.append(count) or items,
    )
    model = at_levels('RetinaNet', PYRAMID)
    for pipeline in (PIPELINE, ['LoadLargeImageFromFile', 'PackDetInputs']):
        results(model, batches([str(paths / '0.tif')], pipeline)[0])
    assert threads == [1, 1, 0, 0]


def test_decoded_images_are_packed_as_ever(paths):
    cv2.imwrite(str(paths / 'a.png'), smooth_scene(50, 40))
    (ours,), (theirs,) = (
        batches([str(paths / 'a.png')], pipeline)
        for pipeline in (PIPELINE, ['LoadLargeImageFromFile', 'PackDetInputs'])
    )
    assert torch.equal(ours['inputs'][0], theirs['inputs'][0])


def test_only_what_is_seen_is_read_and_coarse_levels_from_overviews(
    at_levels, tmp_path, monkeypatch
):
    path = write_raster(tmp_path / 'a.tif', smooth_scene(WIDTH, HEIGHT), overviews=(2, 4))
    seen, pixels = [], RasterFile.pixels

    def spy(self, version, window, bands):
        seen.append((version, window))
        return pixels(self, version, window, bands)

    monkeypatch.setattr(RasterFile, 'pixels', spy)
    model = at_levels('RetinaNet', PYRAMID, window_size=100)
    results(model, batches([path])[0])
    coarse = [window for version, window in seen if version == 1]
    fine = [window for version, window in seen if version == 0]
    # At factor 0.5 it is 115x95 px: two windows.
    assert sorted(coarse) == [(0, 0, 100, 95), (15, 0, 115, 95)]
    assert all(max(x2 - x1, y2 - y1) <= 68 for x1, y1, x2, y2 in fine)


@pytest.mark.parametrize('shape', [(40, 60), (40, 60, 5)])
def test_a_window_has_the_bands_of_the_image(tmp_path, shape):
    np.save(tmp_path / 'a.npy', np.zeros(shape, np.uint8))
    image = ImageWindows(NpyFile(str(tmp_path / 'a.npy')), color_type='unchanged')
    scene = Scene(image)
    assert scene.size == (60, 40)
    inputs, sample = load_window(scene, (4, 5, 10, 9), 2.0)
    assert inputs.shape == (shape[2] if shape[2:] else 1, 8, 12)
    assert sample.ori_shape == (4, 6)
