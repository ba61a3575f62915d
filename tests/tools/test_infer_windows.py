"""infer.py and the API on files that are read by windows: results, pictures, GeoJSON."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from geo_tiff import smooth_scene, write_raster
from mmengine.config import Config

from mmsniper.apis import SNIPERInferencer, find_images
from mmsniper.apis.modes import mode_config
from mmsniper.convert import load_config
from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.datasets.wrappers import type_name
from mmsniper.visualization import picture

ROOT = Path(__file__).resolve().parents[2]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
NO_ANNOTATIONS = 'test_dataloader.dataset.ann_file=nowhere.json'


@pytest.fixture
def scenes(tmp_path):
    """A folder with the same image as a GeoTIFF, a PNG and Zarr, and a folder of arrays beside."""
    rasterio = pytest.importorskip('rasterio')
    zarr = pytest.importorskip('zarr', minversion='3')
    folder, img = tmp_path / 'scenes', smooth_scene(200, 150)
    folder.mkdir()
    place = dict(crs='EPSG:32633', transform=rasterio.Affine(2, 0, 1000, 0, -2, 5000))
    write_raster(folder / 'a.tif', img, **place)
    cv2.imwrite(str(folder / 'b.png'), img[..., ::-1])
    made = zarr.create_array(
        str(folder / 'c.zarr'), shape=img.shape, chunks=(64, 64, 3), dtype='u1'
    )
    made[:] = img[..., ::-1]
    (tmp_path / 'arrays').mkdir()
    np.save(tmp_path / 'arrays' / 'd.npy', img[..., ::-1])
    return folder


@pytest.fixture
def infer(load_tool, checkpoint, tmp_path):
    tool = load_tool('infer')

    def run(*options):
        out = tmp_path / 'out'
        arguments = [str(AUTOFOCUS), str(checkpoint), '--out-dir', str(out), '--device', 'cpu']
        tool.main([*map(str, options), *arguments, '--cfg-options', NO_ANNOTATIONS])
        return out

    return run


def test_all_formats_have_the_same_results_and_scenes_have_geojson(infer, scenes, tmp_path, capsys):
    array = tmp_path / 'arrays' / 'd.npy'
    out = infer(scenes, array, '--picture-side', '100')
    images = {
        i['id']: i['file_name'] for i in json.loads((out / 'images.json').read_text())['images']
    }
    assert list(images.values()) == [
        'arrays/d.npy',
        'scenes/a.tif',
        'scenes/b.png',
        'scenes/c.zarr',
    ]
    found = {name: [] for name in images.values()}
    for detection in json.loads((out / 'detections.json').read_text()):
        found[images[detection.pop('image_id')]].append(detection)
    first = found['scenes/b.png']
    assert len(first) > 3
    assert all(detections == first for detections in found.values())
    for name in found:
        drawn = cv2.imread(str(out / 'vis' / (name if name.endswith('png') else f'{name}.png')))
        assert drawn.shape == (75, 100, 3)
    files = [p.relative_to(out / 'geojson').as_posix() for p in (out / 'geojson').rglob('*.*json')]
    assert files == ['scenes/a.tif.geojson']
    collection = json.loads((out / 'geojson' / files[0]).read_text())
    assert len(collection['features']) == len(first)
    for feature, detection in zip(collection['features'], first):
        x, y, w, h = detection['bbox']
        ring = np.array(feature['geometry']['coordinates'][0])
        np.testing.assert_allclose(ring[0], [1000 + 2 * x, 5000 - 2 * y], atol=1e-3)
        np.testing.assert_allclose(ring[2], [1000 + 2 * (x + w), 5000 - 2 * (y + h)], atol=1e-3)
        assert feature['properties']['score'] == detection['score']
        assert feature['properties']['level'] in (0, 1, 2)
    assert 'of 1 scene also in' in capsys.readouterr().out


def test_an_unknown_crs_ends_the_run_at_its_start(infer, scenes, capsys):
    with pytest.raises(SystemExit) as info:
        infer(scenes, '--geojson-crs', 'EPSG:99')
    assert '--geojson-crs EPSG:99' in str(info.value)


def test_the_api_draws_windows_reduced(checkpoint, scenes, monkeypatch):
    monkeypatch.setattr(picture, 'MAX_SIDE', 100)
    detect = SNIPERInferencer(AUTOFOCUS, checkpoint, device='cpu', show_progress=False)
    assert isinstance(detect.pipeline(str(scenes / 'a.tif'))['inputs'], ImageWindows)
    files = [str(scenes / name) for name in ('a.tif', 'b.png', 'c.zarr')]
    got = detect(files, return_vis=True, no_save_vis=True, draw_pred=False)
    small, whole, zarr = got['visualization']
    assert whole.shape == (150, 200, 3)
    assert small.shape == zarr.shape == (75, 100, 3)
    shrunk = cv2.resize(whole, (100, 75), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.98
    for predictions in got['predictions'][1:]:
        assert predictions['bboxes'] == got['predictions'][0]['bboxes']  # in the image's pixels


def test_a_folder_of_zarr_is_one_image(scenes):
    assert list(find_images([scenes])) == ['a.tif', 'b.png', 'c.zarr']
    assert list(find_images([scenes / 'c.zarr'])) == ['c.zarr']


@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'LoadLargeImageFromFile'])
def test_a_mode_that_resizes_images_decodes_them(loader):
    cfg = load_config(AUTOFOCUS)
    cfg.test_dataloader.dataset.pipeline[0] = dict(type=loader)
    (loading,) = mode_config(cfg)[1]
    assert loading == dict(type='mmdet.LoadImageWindows', optional=True)
    loading, *others = mode_config(cfg, 'single')[1]
    assert type_name(loading) == 'LoadLargeImageFromFile'
    assert len(others) == 2


def test_a_config_that_loads_windows_packs_them_and_makes_arrays_where_they_are_needed(tmp_path):
    loading = dict(type='LoadImageWindows', bands=(3, 2, 1))
    path = tmp_path / 'config.py'
    path.write_text(f"""
_base_ = {str(AUTOFOCUS)!r}
pipeline = [
    {loading}, dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
test_dataloader = dict(dataset=dict(pipeline=pipeline))
""")
    cfg = load_config(path)
    types = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert types == ['LoadImageWindows', 'LoadAnnotations', 'PackImageWindows']
    assert [dict(step) for step in mode_config(cfg)[1]] == [loading]
    assert mode_config(cfg, 'single')[1][0] == dict(loading, whole=True)
    assert isinstance(cfg, Config)
