"""The parts of a page: pictures as data, boxes as SVG."""

import base64

import cv2
import numpy as np
import pytest

from mmsniper.chips import NEGATIVE, ScalePyramid
from mmsniper.visualization import CROWD, INVALID, VALID, ChipView
from mmsniper.visualization.page import Layer, chip_layers, chip_scene, jpeg_uri

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=1.0), valid_range=(0, 24)),
            dict(resize=dict(factor=0.5), valid_range=(16, None)),
        ],
    )
)


def decoded(uri):
    head, _, data = uri.partition(',')
    assert head == 'data:image/jpeg;base64'
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize('shape', [(60, 200), (60, 200, 3), (60, 200, 4)])
def test_a_picture_is_shrunk_to_its_side(shape):
    image = np.zeros(shape, np.uint8)
    assert decoded(jpeg_uri(image, 100, 10**6)).shape == (30, 100, 3)
    assert decoded(jpeg_uri(image, 300, 10**6)).shape == (60, 200, 3)


def test_a_picture_of_too_many_bytes_is_made_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    large, small = jpeg_uri(noise, 400, 10**6), jpeg_uri(noise, 400, 20_000)
    assert len(base64.b64decode(small.partition(',')[2])) <= 20_000 < len(large)
    assert 64 <= max(decoded(small).shape) < 400
    assert max(decoded(jpeg_uri(noise, 400, 1)).shape) >= 64


def test_boxes_are_one_path_and_say_what_they_are():
    layer = Layer('key', '#fff', [(1.5, 2, 4, 8), (0, 0, 1, 1)], ['a', 'b'])
    assert layer.path == 'M1.5 2H4V8H1.5ZM0 0H1V1H0Z'
    assert layer.named == [('1.5', '2', '2.5', '6', 'a'), ('0', '0', '1', '1', 'b')]
    assert Layer('key', '#fff', [(0, 0, 4, 8)], dots=True).path == 'M2 4h0'
    many = Layer('key', '#fff', [(0, 0, 1, 1)] * 5000, ['a'] * 5000)
    assert many.path.count('M') == 5000
    assert len(many.named) < 1000


def test_a_chip_is_shown_in_its_padding_with_the_states_of_its_boxes():
    view = ChipView(
        np.zeros((40, 64, 3), np.uint8),
        np.array([[0, 0, 9, 9], [0, 0, 5, 5], [1, 1, 2, 2], [3, 3, 4, 4]], float),
        np.array([VALID, INVALID, CROWD, INVALID]),
        1,
        0.5,
        ['cat', 'dog', '', 'cow'],
        NEGATIVE,
    )
    scene = chip_scene(view, PYRAMID, 64, 10**6)
    assert (scene.frame, scene.window) == ((0, 0, 64, 40), (0, 0, 64, 64))
    assert scene.title == 'negative, level 1, ×0.5'
    assert list(scene.lines) == ['1 learned, 2 left alone']
    texts = {layer.key: (len(layer.boxes), list(layer.texts)) for layer in scene.layers}
    assert texts['learned'] == (1, ['cat'])
    assert texts['nowhere'] == (2, ['dog', 'cow'])
    assert texts['ignored'] == (1, [''])


def test_chips_of_each_level_are_a_layer_and_so_are_negative_ones():
    boxes = np.array([[0, 0, 64, 64], [0, 0, 128, 128], [64, 0, 128, 64]], float)
    layers = chip_layers(boxes, np.array([0, 1, 0]), np.array([False, False, True]), PYRAMID)
    assert {layer.key: list(map(tuple, layer.boxes)) for layer in layers} == {
        'level-1': [(0, 0, 128, 128)],
        'level-0': [(0, 0, 64, 64)],
        'negative': [(64, 0, 128, 64)],
    }


def test_a_rotated_box_is_a_path_through_its_corners():
    layer = Layer('key', '#fff', [(30.0, 10, 50, 30, 30, 50, 10, 30), (0.0, 0, 4, 5)], ['a', 'b'])
    assert layer.path == 'M30 10L50 30L30 50L10 30ZM0 0H4V5H0Z'
    assert layer.named == [('10', '10', '40', '40', 'a'), ('0', '0', '4', '5', 'b')]
