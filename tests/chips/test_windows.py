"""Windows that cover an image of any size."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmsniper.chips import ScalePyramid
from mmsniper.chips.windows import LevelWindows, least_side, overlapping_windows, window_counts

# Of float arithmetic on coordinates of up to 5000 px.
SLACK = 1e-6


@st.composite
def tilings(draw, most=12):
    """Image size, side and overlap that make no more than ``most`` windows along an axis."""
    width, height = draw(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
    side = draw(st.floats(1, 6000))
    least = max(width, height) / most
    overlap = draw(st.floats(0, max(side - max(least, 0.1), 0)))
    return width, height, side + least, overlap


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


# --- worked out by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(('width', 'height'), [(100, 100), (100, 30), (1, 1), (20, 99)])
def test_an_image_that_fits_into_a_window_is_one_window(width, height):
    windows, cores = overlapping_windows(width, height, side=100, overlap=20)
    assert windows.tolist() == cores.tolist() == [[0, 0, width, height]]


def test_windows_are_spread_evenly_and_cores_meet_in_the_middle_of_overlaps():
    windows, cores = overlapping_windows(250, 80, side=100, overlap=20)
    assert windows.tolist() == [[0, 0, 100, 80], [75, 0, 175, 80], [150, 0, 250, 80]]
    assert cores.tolist() == [[0, 0, 87.5, 80], [87.5, 0, 162.5, 80], [162.5, 0, 250, 80]]


def test_windows_are_in_the_order_of_rows():
    windows, cores = overlapping_windows(150, 160, side=100, overlap=40)
    assert windows.tolist() == [
        [0, 0, 100, 100],
        [50, 0, 150, 100],
        [0, 60, 100, 160],
        [50, 60, 150, 160],
    ]
    assert cores.tolist() == [
        [0, 0, 75, 80],
        [75, 0, 150, 80],
        [0, 80, 75, 160],
        [75, 80, 150, 160],
    ]


def test_no_more_windows_than_the_overlap_needs():
    # n windows of 100 that overlap by 20 reach to 20 + 80 n.
    assert [
        len(overlapping_windows(w, 50, 100, 20)[0]) for w in (100, 101, 180, 181, 260, 261)
    ] == [1, 2, 2, 3, 3, 4]


def test_rounding_does_not_cost_a_window():
    """Sides are chip sizes over scales, which are not exact."""
    assert len(overlapping_windows(180, 1, 300 / 3.0000000000000004, 60 / 3)[0]) == 2
    assert len(overlapping_windows(100, 1, 99.99999999999999, 20)[0]) == 1
    assert least_side(180 + 1e-8, 1, side=100, overlap=20) == 100


def test_the_least_side_shares_what_is_too_large_evenly():
    # In x two windows of 65 that overlap by 20 are 110 long, in y one of 80 is needed.
    assert least_side(110, 80, side=100, overlap=20) == 80
    assert least_side(110, 60, side=100, overlap=20) == 65
    assert least_side(300, 10, side=100, overlap=20) == 90  # 4 * 90 - 3 * 20
    assert least_side(70, 60, side=100, overlap=20) == 70
    np.testing.assert_array_equal(
        least_side(np.array([[110], [300]]), [80, 10], 100, 20), [[80, 65], [90, 90]]
    )


# --- properties -----------------------------------------------------------------------------------


@given(tilings())
def test_windows_are_inside_the_image_and_of_the_right_size(tiling):
    width, height, side, _ = tiling
    windows, _ = overlapping_windows(*tiling)
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 2:] <= (width, height)).all()
    expected = np.broadcast_to(np.minimum((width, height), side), (len(windows), 2))
    np.testing.assert_allclose(sides(windows), expected, atol=SLACK)


@given(tilings())
def test_cores_are_the_image_in_pieces(tiling):
    width, height, *_ = tiling
    windows, cores = overlapping_windows(*tiling)
    assert len(windows) == len(cores)
    assert np.prod(sides(cores), axis=1).sum() == pytest.approx(width * height)
    lo = np.maximum(cores[:, None, :2], cores[None, :, :2])
    hi = np.minimum(cores[:, None, 2:], cores[None, :, 2:])
    shared = np.prod(np.maximum(hi - lo, 0), axis=2)
    np.testing.assert_allclose(shared, np.diag(np.diag(shared)), atol=SLACK)


@given(tilings())
def test_a_core_lies_in_its_window(tiling):
    windows, cores = overlapping_windows(*tiling)
    assert (cores[:, :2] >= windows[:, :2] - SLACK).all()
    assert (cores[:, 2:] <= windows[:, 2:] + SLACK).all()
    assert (sides(cores) > 0).all()


@given(
    tilings(),
    st.tuples(*[st.floats(0, 1)] * 2),
    st.tuples(*[st.one_of(st.just(1.0), st.floats(0, 1))] * 2),
)
@example((250, 80, 100.0, 20.0), (87.5 / 250, 0.5), (1.0, 1.0))
def test_a_box_of_up_to_the_overlap_is_whole_in_the_window_whose_core_has_its_centre(
    tiling, place, share
):
    width, height, _, overlap = tiling
    image = np.array([width, height])
    centre, half = image * place, overlap * np.array(share) / 2
    # What lies outside the image no window can show.
    lo, hi = np.maximum(centre - half, 0), np.minimum(centre + half, image)
    windows, cores = overlapping_windows(*tiling)
    holds = ((cores[:, :2] <= centre) & (centre <= cores[:, 2:])).all(axis=1)
    assert holds.any()
    assert (windows[holds, :2] <= lo + SLACK).all()
    assert (windows[holds, 2:] >= hi - SLACK).all()


@given(tilings())
def test_window_counts_are_the_numbers_of_windows(tiling):
    assert window_counts(*tiling) == len(overlapping_windows(*tiling)[0])


@given(tilings())
def test_windows_of_the_least_side_are_no_more_and_no_larger(tiling):
    width, height, side, overlap = tiling
    least = float(least_side(*tiling))
    assert least <= side
    if least <= overlap:  # one window, of less than the overlap
        assert max(width, height) <= least
        return
    assert len(overlapping_windows(width, height, least, overlap)[0]) <= window_counts(*tiling)
    # A little less does not do: along one axis a window more is needed.
    less = least * (1 - 1e-6)
    if less > overlap:
        more = [
            window_counts(n, 1, less, overlap) > window_counts(n, 1, side, overlap)
            for n in (width, height)
        ]
        assert any(more)


def test_counts_and_sides_of_many_images_at_once():
    width, height = np.array([[250], [99]]), np.array([[80], [101]])
    side, overlap = np.array([100.0, 50.0]), np.array([20.0, 10.0])
    counts = window_counts(width, height, side, overlap)
    assert counts.tolist() == [
        [len(overlapping_windows(w, h, s, o)[0]) for s, o in zip(side, overlap)]
        for w, h in ((250, 80), (99, 101))
    ]


# --- every level of a pyramid ---------------------------------------------------------------------

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=20,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 10)),
            dict(resize=dict(long_side=100), valid_range=(8, None)),
        ],
    )
)


def test_an_image_that_fits_is_seen_whole_at_every_level():
    windows = LevelWindows.of(PYRAMID, [50, 40], [30, 50], window_size=100)
    assert windows.count.tolist() == [[1, 1], [1, 1]]
    # Height and width: twice the image, and its long side at 100.
    assert windows.shape.tolist() == [[[60, 100], [60, 100]], [[100, 80], [100, 80]]]
    assert windows.pixels.tolist() == [2 * 6000, 2 * 8000]
    whole = (0, 0, 50, 30)
    assert list(windows.of_image(0)) == [(0, whole, whole), (1, whole, whole)]


def test_where_an_image_is_too_large_it_is_seen_in_windows_no_larger_than_needed():
    windows = LevelWindows.of(PYRAMID, [75], [30], window_size=100)
    assert windows.count.tolist() == [[2, 1]]
    # At level 0 the image is 150x60: two windows of 85 overlap by a chip, 20.
    assert windows.shape.tolist() == [[[60, 85], [40, 100]]]
    assert windows.pixels.tolist() == [2 * 60 * 85 + 40 * 100]
    assert list(windows.of_image(0)) == [
        (0, (0, 0, 42.5, 30), (0, 0, 37.5, 30)),
        (0, (32.5, 0, 75, 30), (37.5, 0, 75, 30)),
        (1, (0, 0, 75, 30), (0, 0, 75, 30)),
    ]


@pytest.mark.parametrize('width', [31, 75, 99, 640])
def test_windows_have_the_shape_that_is_told(width):
    windows = LevelWindows.of(PYRAMID, [width], [77], window_size=33)
    scales = PYRAMID.scales(width, 77)
    seen = [0, 0]
    for level, box, _ in windows.of_image(0):
        sides = (np.array(box[2:]) - box[:2]) * scales[level]
        np.testing.assert_array_equal(np.ceil(sides - SLACK)[::-1], windows.shape[0, level])
        assert sides.max() <= 33 + SLACK
        seen[level] += 1
    assert seen == windows.count[0].tolist()


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(30, 300))
def test_whatever_fits_into_a_chip_is_whole_in_a_window(size, window_size):
    windows = LevelWindows.of(PYRAMID, [size[0]], [size[1]], window_size)
    for level, scale in enumerate(PYRAMID.scales(*size)):
        boxes = np.array([box for k, box, _ in windows.of_image(0) if k == level])
        half = PYRAMID.chip_size / scale / 2
        for x in np.linspace(0, size[0], 7):
            for y in np.linspace(0, size[1], 7):
                lo = np.maximum([x - half, y - half], 0)
                hi = np.minimum([x + half, y + half], size)
                inside = (boxes[:, :2] <= lo + SLACK) & (boxes[:, 2:] >= hi - SLACK)
                assert inside.all(axis=1).any()


def test_rounding_of_a_scale_does_not_add_a_pixel():
    assert 44 * (100 / 44) > 100
    assert LevelWindows.of(PYRAMID, [44], [44], 200).shape[0, 1].tolist() == [100, 100]
    assert LevelWindows.of(PYRAMID, [44], [44], 100).count[0].tolist() == [1, 1]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(('side', 'overlap'), [(20, 20), (20, 30), (20, -1), (20, float('nan'))])
@pytest.mark.parametrize('tile', [overlapping_windows, least_side])
def test_says_that_windows_must_be_larger_than_their_overlap(tile, side, overlap):
    with pytest.raises(ValueError, match=f'windows of 20 px cannot overlap by {overlap} px'):
        tile(100, 100, side, overlap)


@pytest.mark.parametrize('window_size', [20, 5])
def test_says_that_windows_must_be_larger_than_a_chip(window_size):
    with pytest.raises(ValueError, match=f'window_size {window_size} must exceed .*chip size, 20'):
        LevelWindows.of(PYRAMID, [100], [100], window_size)
