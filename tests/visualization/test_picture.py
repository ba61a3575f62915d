"""Any image as 8-bit BGR: bands, depths, values that are no numbers."""

import warnings

import cv2
import numpy as np
import pytest
from geo_tiff import smooth_scene

from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.datasets.windowed_files import NpyFile
from mmsniper.visualization import ChipView, as_picture, draw_chips, draw_detections, draw_focus
from mmsniper.visualization.picture import picture_limits

RAMP = np.tile(np.arange(100), (50, 1))  # from left, 0, to right, 99
PYRAMID = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.mark.parametrize('shape', [(50, 100), (50, 100, 1), (50, 100, 2)])
def test_one_band_is_grey_and_not_mirrored(shape):
    image = np.zeros(shape, np.uint8)
    image.reshape(50, 100, -1)[..., 0] = RAMP
    picture = as_picture(image)
    assert picture.shape == (50, 100, 3)
    for band in range(3):
        np.testing.assert_array_equal(picture[..., band], RAMP)


@pytest.mark.parametrize('bands', [3, 4, 8])
def test_the_first_three_bands_are_blue_green_and_red(bands):
    image = np.random.default_rng(0).integers(0, 256, (50, 100, bands), np.uint8)
    picture = as_picture(image)
    np.testing.assert_array_equal(picture, image[..., :3])
    assert not np.shares_memory(picture, image)


@pytest.mark.parametrize('dtype', ['<u2', '>u2', 'i2', 'u4', 'i8', 'f2', 'f4', '>f4', 'f8'])
@pytest.mark.parametrize('max_side', [None, 50])
def test_other_depths_are_stretched_between_percentiles(dtype, max_side):
    """0 to 99: the 2nd percentile is 2, the 98th 97, where nothing is resized 1.98 and 97.02."""
    picture = as_picture((RAMP * 40 + 7).astype(dtype), max_side)
    row = picture[10, :, 0].astype(float)
    assert row[0] == 0
    assert row[-1] == 255
    assert (np.diff(row) >= 0).all()
    middle = np.interp(np.linspace(0, 99, len(row)), [2, 97], [0, 255])
    assert np.abs(row - middle).max() < 4


def test_twelve_bits_in_sixteen_are_seen():
    image = np.random.default_rng(0).integers(200, 4000, (60, 80, 3)).astype(np.uint16)
    picture = as_picture(image)
    assert picture.min() == 0
    assert picture.max() == 255
    assert 110 < picture.mean() < 145


def test_bands_keep_their_colours():
    """One stretch for all: what is bluer stays bluer."""
    image = np.full((40, 40, 3), 1000, np.uint16)
    image[:20] = 3000
    image[..., 0] += 500
    picture = as_picture(image).astype(int)
    assert (picture[..., 0] > picture[..., 1]).all()
    np.testing.assert_array_equal(picture[..., 1], picture[..., 2])


def test_what_is_no_number_is_black():
    image = (RAMP / 99).astype(np.float32)
    image[:5] = np.nan
    image[5:8] = -np.finfo(np.float32).max  # that is how TIFFs mark what was not measured
    image[8] = np.inf
    picture = as_picture(image)[..., 0]
    assert (picture[:8] == 0).all()
    assert (picture[8] == 255).all()
    assert (picture[9:, -1] == 255).all()
    assert 100 < picture[20, 50] < 155


@pytest.mark.parametrize('value', [0, 7, 60000])
@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_an_image_of_one_value_is_black(value, dtype):
    assert as_picture(np.full((20, 30), value, dtype)).max() == 0
    assert as_picture(np.full((20, 30), np.nan)).max() == 0


def test_few_values_that_differ_are_seen():
    image = np.zeros((100, 100), np.uint16)
    image[50, 50] = 9000
    assert as_picture(image)[50, 50].tolist() == [255, 255, 255]


def test_yes_and_no():
    assert np.unique(as_picture(RAMP > 50)).tolist() == [0, 255]


def test_of_a_large_image_some_pixels_are_counted(monkeypatch):
    image = np.random.default_rng(0).integers(0, 60000, (3000, 2000), np.uint16)
    whole = np.percentile(image, [2, 98])
    counted = []
    percentile = np.percentile
    monkeypatch.setattr(np, 'percentile', lambda a, q: counted.append(a.size) or percentile(a, q))
    assert np.abs(np.subtract(picture_limits(image), whole)).max() < 300
    assert counted[0] <= 2**18


@pytest.mark.parametrize(
    'image',
    [
        np.zeros(9),
        np.zeros((0, 9)),
        np.zeros((9, 9, 3, 1)),
        np.zeros((9, 9, 0)),
        np.zeros((9, 9), complex),
        np.full((9, 9), 'a'),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match='must be an array of numbers'):
        as_picture(image)


# --- the figures ----------------------------------------------------------------------------------


def drawn(axes):
    (image,) = axes.get_images()
    return np.asarray(image.get_array())


@pytest.mark.parametrize('bands', [(), (1,), (2,), (3,), (4,), (8,)])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_every_figure_takes_every_image(bands, dtype):
    image = np.broadcast_to(RAMP.reshape(50, 100, *(1 for _ in bands)), (50, 100, *bands))
    image = image.astype(dtype) * dtype(2 if dtype == np.uint8 else 30)
    wanted = as_picture(image)[..., ::-1]
    view = ChipView(image[:30, :40], np.zeros((0, 4)), np.zeros(0), 0, 1.0)
    chips = draw_chips(image, [], [[0, 0, 40, 30]], [0], PYRAMID, views=[view])
    np.testing.assert_array_equal(drawn(chips.axes[0]), wanted)
    # A chip looks as the image does there.
    np.testing.assert_array_equal(drawn(chips.axes[1]), wanted[:30, :40])
    found = draw_detections(image, [], [], [], [], [], ['a'])
    np.testing.assert_array_equal(drawn(found.axes[0]), wanted)
    focus = draw_focus(image, [[[0, 0, 100, 50]]], [[]], [], [], [])
    np.testing.assert_array_equal(drawn(focus.axes[0]), wanted)


def test_what_an_augmentation_made_of_8_bits_is_shown_as_bright_as_it_is():
    image = np.full((60, 60, 3), 100, np.uint8)
    darker = image[:30, :30].astype(np.float32) * 0.5  # as PhotoMetricDistortion does
    view = ChipView(darker, np.zeros((0, 4)), np.zeros(0), 0, 1.0)
    figure = draw_chips(image, [], [[0, 0, 30, 30]], [0], PYRAMID, views=[view])
    assert np.unique(drawn(figure.axes[1])).tolist() == [50]


@pytest.mark.parametrize('dtype', ['u1', 'u2'])
def test_images_that_are_read_by_windows_are_drawn_reduced(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr('mmsniper.visualization.picture.MAX_SIDE', 30)
    scene = smooth_scene(60, 40, 3, dtype, 200)
    np.save(tmp_path / 'a.npy', scene)
    image = ImageWindows(NpyFile(str(tmp_path / 'a.npy')), color_type='unchanged')
    expected = cv2.resize(scene, (30, 20), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(as_picture(image), as_picture(expected))
    np.testing.assert_array_equal(as_picture(image, 60), as_picture(scene))
    assert picture_limits(image) == picture_limits(expected)
    assert draw_chips(image, np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0, int), PYRAMID)
