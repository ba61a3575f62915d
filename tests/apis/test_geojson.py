"""Boxes on the map: coordinates worked out by hand."""

import warnings

import numpy as np
import pytest

from mmsniper.apis.geojson import GeoReference, check_crs, feature_collection
from mmsniper.apis.results import Classes

rasterio = pytest.importorskip('rasterio')

CLASSES = Classes(['ship', 'car'], [7, 3], 'random', 'a test')
# x, y, width and height in pixels.
BOX = dict(category_id=3, bbox=[10.0, 20.0, 4.0, 6.0], score=0.75)
UTM = 'EPSG:32633'


@pytest.fixture
def write(tmp_path):
    def make(crs=UTM, transform=(0.5, 0, 400000, 0, -0.5, 5000000), driver='GTiff', name='a.tif'):
        path = tmp_path / name
        facts = dict(width=100, height=80, count=1, dtype='uint8', crs=crs)
        if transform:
            facts['transform'] = rasterio.Affine(*transform)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with rasterio.open(path, 'w', driver=driver, **facts) as file:
                file.write(np.zeros((1, 80, 100), np.uint8))
        return path

    return make


def collection(path, found=(BOX,), levels=None, crs=None):
    content = dict(width=100, height=80, detections=list(found))
    if levels:
        content['levels'] = levels
    return feature_collection('scene', content, CLASSES, GeoReference.of(path), crs)


def test_a_box_has_the_coordinates_of_the_scene(write):
    got = collection(write(), levels=[1])
    assert (got['type'], got['name']) == ('FeatureCollection', 'scene')
    assert got['crs'] == {'type': 'name', 'properties': {'name': 'urn:ogc:def:crs:EPSG::32633'}}
    (feature,) = got['features']
    assert feature['properties'] == {'class': 'car', 'category_id': 3, 'score': 0.75, 'level': 1}
    # Columns 10 and 14 are 5 and 7 m east, rows 20 and 26 are 10 and 13 m south of the corner.
    assert feature['geometry'] == dict(
        type='Polygon',
        coordinates=[
            [
                [400005, 4999990],
                [400005, 4999987],
                [400007, 4999987],
                [400007, 4999990],
                [400005, 4999990],
            ]
        ],
    )


def area(feature):
    """Signed: positive if the ring is counterclockwise, as RFC 7946 wants it."""
    x, y = np.array(feature['geometry']['coordinates'][0]).T
    return (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2


@pytest.mark.parametrize(
    'transform', [(2, 0, 0, 0, -2, 0), (2, 0, 0, 0, 2, 0), (0, 2, 0, 2, 0, 0), (-2, 0, 9, 0, -2, 9)]
)
def test_rings_are_counterclockwise_however_the_scene_is_turned(write, transform):
    (feature,) = collection(write(transform=transform))['features']
    assert area(feature) == pytest.approx(4 * 6 * 2 * 2)


def test_a_turned_scene_turns_its_boxes(write):
    (feature,) = collection(write(transform=(0, 1, 100, 1, 0, 200)))['features']
    ring = feature['geometry']['coordinates'][0]
    assert sorted(ring[:4]) == [[120, 210], [120, 214], [126, 210], [126, 214]]


def test_wgs_84_is_longitude_and_latitude_without_a_member_crs(write):
    (projected,) = collection(write())['features']
    got = collection(write(), crs='EPSG:4326')
    assert 'crs' not in got
    ring = np.array(got['features'][0]['geometry']['coordinates'][0])
    from rasterio.warp import transform

    x, y = np.array(projected['geometry']['coordinates'][0]).T
    np.testing.assert_allclose(ring.T, transform(UTM, 'EPSG:4326', x, y), atol=1e-8)
    assert (np.abs(ring - [13.73, 45.15]) < 0.01).all()  # by another calculator


def test_a_scene_in_wgs_84_has_no_member_crs(write):
    got = collection(write('EPSG:4326', (0.001, 0, 10, 0, -0.001, 50)))
    assert 'crs' not in got
    assert got['features'][0]['geometry']['coordinates'][0][0] == [10.01, 49.98]


def test_a_crs_without_a_number_becomes_wgs_84(write):
    crs = '+proj=laea +lat_0=47 +lon_0=11 +x_0=5 +y_0=7 +ellps=GRS80 +units=m'
    got = collection(write(crs, (1, 0, -5, 0, -1, 27)))
    assert 'crs' not in got
    corner = got['features'][0]['geometry']['coordinates'][0][0]
    assert corner == pytest.approx([11, 47], abs=1e-6)  # 5 m east and 7 m north


def test_without_detections_it_is_empty(write):
    assert collection(write(), [])['features'] == []
    assert collection(write(), [], crs='EPSG:4326')['features'] == []


def test_a_class_that_has_no_name_is_told_by_its_number(write):
    (feature,) = collection(write(), [dict(BOX, category_id=9)])['features']
    assert feature['properties']['class'] == 'class 9'
    assert 'level' not in feature['properties']


def test_images_without_a_place_have_none(write, tmp_path):
    assert GeoReference.of(write(crs=None)) is None
    assert GeoReference.of(write(transform=None)) is None
    assert GeoReference.of(write(driver='PNG', name='a.png')) is None
    assert GeoReference.of(tmp_path / 'nowhere.tif') is None


def test_without_rasterio_there_are_none(write, monkeypatch):
    path = write()
    monkeypatch.setattr('mmsniper.apis.geojson.find_spec', lambda name: None)
    assert GeoReference.of(path) is None
    with pytest.raises(ImportError, match='pip install rasterio'):
        check_crs('EPSG:4326')


def test_a_crs_that_there_is_not_is_refused():
    check_crs('EPSG:3857')
    with pytest.raises(ValueError, match='--geojson-crs EPSG:99'):
        check_crs('EPSG:99')
