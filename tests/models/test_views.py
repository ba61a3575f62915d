"""What the network sees of a window, and which of its detections the window cuts."""

import mmcv
import numpy as np
import pytest
import torch

from mmsniper.models.views import Scene, area_share, load_window, uncut, whole_pixels

SIZE = (30, 20)


@pytest.fixture
def scene():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    return Scene(torch.from_numpy(pixels))


def test_a_scene_has_the_size_of_its_image(scene):
    assert scene.size == SIZE
    assert scene.pixels == 0


def test_the_share_of_an_image_that_a_box_has():
    assert area_share((4, 5, 10, 9), SIZE) == 24 / 600
    assert area_share((0, 0, 30, 20), SIZE) == 1


@pytest.mark.parametrize(
    ('box', 'window'),
    [
        ((4, 5, 10, 9), (4, 5, 10, 9)),
        ((4 - 1e-7, 5 - 1e-7, 10 + 1e-7, 9 + 1e-7), (4, 5, 10, 9)),
        ((4 - 1e-5, 5 - 1e-5, 10 + 1e-5, 9 + 1e-5), (3, 4, 11, 10)),
        ((-1, -1, 31, 21), (0, 0, 30, 20)),
    ],
)
def test_a_window_is_cut_out_in_whole_pixels(box, window):
    assert whole_pixels(box, SIZE) == window


@pytest.mark.parametrize(
    ('box', 'scale', 'window', 'shape'),
    [
        ((4, 5, 10, 9), 1.0, (4, 5, 10, 9), (4, 6)),
        ((4.5, 5.5, 9.5, 8.5), 2.0, (4, 5, 10, 9), (8, 12)),
        ((4, 5, 10, 9), 0.6, (4, 5, 10, 9), (2, 4)),  # 2.4 and 3.6
        ((4, 5, 9, 8), 0.5, (4, 5, 9, 8), (2, 3)),  # halves are rounded up: 1.5 and 2.5
        ((4, 5, 10, 9), 0.01, (4, 5, 10, 9), (1, 1)),
        ((0, 0, 30, 20), 1.5, (0, 0, 30, 20), (30, 45)),
    ],
)
def test_a_window_is_loaded_at_the_scale_of_its_level(scene, box, scale, window, shape):
    inputs, sample = load_window(scene, box, scale)
    x1, y1, x2, y2 = window
    crop = scene.image.numpy()[:, y1:y2, x1:x2].transpose(1, 2, 0)
    expected = mmcv.imresize(np.ascontiguousarray(crop), shape[::-1])
    np.testing.assert_array_equal(inputs.numpy().transpose(1, 2, 0), expected)
    assert sample.img_shape == shape == tuple(inputs.shape[1:])
    assert sample.ori_shape == (y2 - y1, x2 - x1)
    assert sample.scale_factor == (shape[1] / (x2 - x1), shape[0] / (y2 - y1))


def test_an_image_of_one_channel_stays_one():
    inputs, _ = load_window(Scene(torch.zeros(1, 20, 30, dtype=torch.uint8)), (4, 5, 10, 9), 2.0)
    assert inputs.shape == (1, 8, 12)


WINDOW = (4.0, 5.0, 24.0, 15.0)
INSIDE = [10.0, 8.0, 20.0, 12.0]


@pytest.mark.parametrize('side', range(4))
def test_a_box_that_touches_an_edge_of_its_window_is_cut_unless_it_is_the_image_s(side):
    sign = 1 if side < 2 else -1
    boxes = torch.tensor([INSIDE] * 4)
    boxes[1:, side] = torch.tensor([WINDOW[side] + sign * d for d in (2.5, 2.0, -1.0)])
    assert uncut(boxes, WINDOW, SIZE, edge=2.0).tolist() == [True, True, False, False]
    edge = (0, 0, *SIZE)[side]
    window = (*WINDOW[:side], edge, *WINDOW[side + 1 :])
    boxes[:, side] = edge
    assert uncut(boxes, window, SIZE, edge=2.0).tolist() == [True] * 4


@pytest.mark.parametrize('side', range(4))
def test_a_window_that_ends_a_pixel_before_the_image_cuts_what_it_touches(side):
    window = [0, 0, *SIZE]
    window[side] += 1 if side < 2 else -1
    assert uncut(torch.tensor([window]).float(), window, SIZE, edge=0.5).tolist() == [False]


def test_a_window_of_the_whole_image_cuts_nothing():
    assert uncut(torch.tensor([[0.0, 0, *SIZE]]), (0, 0, *SIZE), SIZE, edge=2.0).tolist() == [True]
    assert uncut(torch.zeros(0, 4), WINDOW, SIZE, edge=2.0).shape == (0,)
