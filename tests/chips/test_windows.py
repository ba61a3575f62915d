"""Windows that cover an image of any size, their batches, and what each of them owns."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mmsniper.chips import ScalePyramid
from mmsniper.chips.windows import (
    LevelWindows,
    Window,
    check_window_size,
    chip_window,
    cut_windows,
    fewest_windows,
    pixel_window,
    window_batches,
)

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


def cover(width, height, side, overlap):
    """Windows over a whole image, and their cores."""
    windows = list(cut_windows((0, 0, width, height), 1, side, overlap))
    return np.array([w.box for w in windows]), np.array([w.core for w in windows])


def window_counts(width, height, side, overlap):
    return fewest_windows(width, height, side, overlap)[0]


def min_window_side(width, height, side, overlap):
    return fewest_windows(width, height, side, overlap)[1]


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


# --- worked out by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(('width', 'height'), [(100, 100), (100, 30), (1, 1), (20, 99)])
def test_an_image_that_fits_into_a_window_is_one_window(width, height):
    windows, cores = cover(width, height, side=100, overlap=20)
    assert windows.tolist() == cores.tolist() == [[0, 0, width, height]]


def test_windows_are_spread_evenly_and_cores_meet_in_the_middle_of_overlaps():
    windows, cores = cover(250, 80, side=100, overlap=20)
    assert windows.tolist() == [[0, 0, 100, 80], [75, 0, 175, 80], [150, 0, 250, 80]]
    assert cores.tolist() == [[0, 0, 87.5, 80], [87.5, 0, 162.5, 80], [162.5, 0, 250, 80]]


def test_windows_are_in_the_order_of_rows():
    windows, cores = cover(150, 160, side=100, overlap=40)
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
    assert [len(cover(w, 50, 100, 20)[0]) for w in (100, 101, 180, 181, 260, 261)] == [
        1,
        2,
        2,
        3,
        3,
        4,
    ]


def test_rounding_does_not_cost_a_window():
    """Sides are chip sizes over scales, which are not exact."""
    assert len(cover(180, 1, 300 / 3.0000000000000004, 60 / 3)[0]) == 2
    assert len(cover(100, 1, 99.99999999999999, 20)[0]) == 1
    assert min_window_side(180 + 1e-8, 1, side=100, overlap=20) == 100


def test_the_smallest_side_shares_what_is_too_large_evenly():
    # In x two windows of 65 that overlap by 20 are 110 long, in y one of 80 is needed.
    assert min_window_side(110, 80, side=100, overlap=20) == 80
    assert min_window_side(110, 60, side=100, overlap=20) == 65
    assert min_window_side(300, 10, side=100, overlap=20) == 90  # 4 * 90 - 3 * 20
    assert min_window_side(70, 60, side=100, overlap=20) == 70
    np.testing.assert_array_equal(
        min_window_side(np.array([[110], [300]]), [80, 10], 100, 20), [[80, 65], [90, 90]]
    )


# --- properties -----------------------------------------------------------------------------------


@given(tilings())
def test_windows_are_inside_the_image_and_of_the_right_size(tiling):
    width, height, side, _ = tiling
    windows, _ = cover(*tiling)
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 2:] <= (width, height)).all()
    expected = np.broadcast_to(np.minimum((width, height), side), (len(windows), 2))
    np.testing.assert_allclose(sides(windows), expected, atol=SLACK)


@given(tilings())
def test_cores_are_the_image_in_pieces(tiling):
    width, height, *_ = tiling
    windows, cores = cover(*tiling)
    assert len(windows) == len(cores)
    assert np.prod(sides(cores), axis=1).sum() == pytest.approx(width * height)
    lo = np.maximum(cores[:, None, :2], cores[None, :, :2])
    hi = np.minimum(cores[:, None, 2:], cores[None, :, 2:])
    shared = np.prod(np.maximum(hi - lo, 0), axis=2)
    np.testing.assert_allclose(shared, np.diag(np.diag(shared)), atol=SLACK)


@given(tilings())
def test_a_core_lies_in_its_window(tiling):
    windows, cores = cover(*tiling)
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
    windows, cores = cover(*tiling)
    holds = ((cores[:, :2] <= centre) & (centre <= cores[:, 2:])).all(axis=1)
    assert holds.any()
    assert (windows[holds, :2] <= lo + SLACK).all()
    assert (windows[holds, 2:] >= hi - SLACK).all()


@given(tilings())
def test_window_counts_are_the_numbers_of_windows(tiling):
    assert window_counts(*tiling) == len(cover(*tiling)[0])


@given(tilings())
def test_windows_of_the_smallest_side_are_no_more_and_no_larger(tiling):
    width, height, side, overlap = tiling
    least = float(min_window_side(*tiling))
    assert least <= side
    if least <= overlap:  # one window, of less than the overlap
        assert max(width, height) <= least
        return
    assert len(cover(width, height, least, overlap)[0]) <= window_counts(*tiling)
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
        [len(cover(w, h, s, o)[0]) for s, o in zip(side, overlap)]
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
    windows = LevelWindows(PYRAMID, [50, 40], [30, 50], window_size=100)
    assert len(windows) == 2
    assert windows.count.tolist() == [[1, 1], [1, 1]]
    # Height and width: twice the image, and its long side at 100.
    assert windows.shape.tolist() == [[[60, 100], [60, 100]], [[100, 80], [100, 80]]]
    assert windows.pixels.tolist() == [2 * 6000, 2 * 8000]
    whole = (0, 0, 50, 30)
    assert list(windows.of_image(0)) == [
        Window(0, 0, whole, whole, (60, 100)),
        Window(0, 1, whole, whole, (60, 100)),
    ]


def test_where_an_image_is_too_large_it_is_seen_in_windows_no_larger_than_needed():
    windows = LevelWindows(PYRAMID, [75], [30], window_size=100)
    assert windows.count.tolist() == [[2, 1]]
    # At level 0 the image is 150x60: two windows of 85 overlap by a chip, 20.
    assert windows.shape.tolist() == [[[60, 85], [40, 100]]]
    assert windows.pixels.tolist() == [2 * 60 * 85 + 40 * 100]
    assert list(windows.of_image(0)) == [
        Window(0, 0, (0, 0, 42.5, 30), (0, 0, 37.5, 30), (60, 85)),
        Window(0, 0, (32.5, 0, 75, 30), (37.5, 0, 75, 30), (60, 85)),
        Window(0, 1, (0, 0, 75, 30), (0, 0, 75, 30), (40, 100)),
    ]


def test_windows_carry_the_index_of_their_image():
    windows = LevelWindows(PYRAMID, [50, 75], [30, 30], window_size=100, image=[7, 9])
    assert [window.image for i in range(2) for window in windows.of_image(i)] == [7, 7, 9, 9, 9]


@pytest.mark.parametrize('width', [31, 75, 99, 640])
def test_windows_have_the_shape_that_is_told(width):
    windows = LevelWindows(PYRAMID, [width], [77], window_size=33)
    scales = PYRAMID.scales(width, 77)
    seen = [0, 0]
    for window in windows.of_image(0):
        sides = (np.array(window.box[2:]) - window.box[:2]) * scales[window.level]
        np.testing.assert_array_equal(np.ceil(sides - SLACK)[::-1], window.shape)
        np.testing.assert_array_equal(window.shape, windows.shape[0, window.level])
        assert sides.max() <= 33 + SLACK
        seen[window.level] += 1
    assert seen == windows.count[0].tolist()


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(30, 300))
def test_whatever_fits_into_a_chip_is_whole_in_a_window(size, window_size):
    windows = LevelWindows(PYRAMID, [size[0]], [size[1]], window_size)
    for level, scale in enumerate(PYRAMID.scales(*size)):
        boxes = np.array([w.box for w in windows.of_image(0) if w.level == level])
        half = PYRAMID.chip_size / scale / 2
        for x in np.linspace(0, size[0], 7):
            for y in np.linspace(0, size[1], 7):
                lo = np.maximum([x - half, y - half], 0)
                hi = np.minimum([x + half, y + half], size)
                inside = (boxes[:, :2] <= lo + SLACK) & (boxes[:, 2:] >= hi - SLACK)
                assert inside.all(axis=1).any()


def test_rounding_of_a_scale_does_not_add_a_pixel():
    assert 44 * (100 / 44) > 100
    assert LevelWindows(PYRAMID, [44], [44], 200).shape[0, 1].tolist() == [100, 100]
    assert LevelWindows(PYRAMID, [44], [44], 100).count[0].tolist() == [1, 1]


# --- a region, in windows of a level --------------------------------------------------------------


def test_a_region_is_cut_where_it_is():
    windows = list(cut_windows((10, 20, 85, 50), 2, 100, 20, image=3, level=1))
    # 150x60 pixels of the level; two windows of 100 overlap by 50.
    assert windows == [
        Window(3, 1, (10, 20, 60, 50), (10, 20, 47.5, 50), (60, 100)),
        Window(3, 1, (35, 20, 85, 50), (47.5, 20, 85, 50), (60, 100)),
    ]
    assert windows[0].pixels == 6000


@pytest.mark.parametrize('scale', [0.3, 1 / 3, 0.7])
@pytest.mark.parametrize('corner', [0, 0.1, 33.3])
def test_a_region_that_fits_is_one_window_with_its_own_edges(scale, corner):
    region = (corner, corner, corner + 100 / scale, corner + 100 / scale)
    (window,) = cut_windows(region, scale, 100, 20)
    assert window.box == window.core == region
    assert window.shape == (100, 100)


@given(
    st.tuples(*[st.floats(0, 1000)] * 2),
    st.tuples(*[st.floats(1, 1000)] * 2),
    st.floats(0.05, 4),
    st.integers(30, 400),
)
def test_the_last_windows_end_exactly_where_the_region_does(corner, size, scale, window_size):
    """Or a centre on the edge of an image would belong to no window."""
    region = (*corner, corner[0] + size[0], corner[1] + size[1])
    windows = list(cut_windows(region, scale, window_size, 20))
    for of in ('box', 'core'):
        ends = np.array([getattr(window, of) for window in windows])
        assert (*ends[:, :2].min(axis=0), *ends[:, 2:].max(axis=0)) == region
    assert max(max(window.shape) for window in windows) <= window_size


# --- which window a detection belongs to ----------------------------------------------------------


def points(*centres):
    """Boxes of 4 px around centres."""
    centres = np.array(centres, float)
    return np.concatenate([centres - 2, centres + 2], axis=1)


def test_a_box_belongs_to_the_core_that_has_its_centre():
    left, right = cut_windows((0, 0, 180, 80), 1, 100, 20)
    assert left.core == (0, 0, 90, 80)
    boxes = points((89.9, 40), (90, 40), (90.1, 40))
    assert left.owns(boxes, 180, 80).tolist() == [True, False, False]
    assert right.owns(boxes, 180, 80).tolist() == [False, True, True]


def test_the_edges_of_an_image_belong_to_its_last_windows_and_those_of_a_chip_to_none():
    window = Window(0, 0, (20, 20, 60, 60), (20, 20, 60, 60), (40, 40))
    boxes = points((60, 40), (40, 60), (60, 60), (59, 59))
    assert window.owns(boxes, 60, 60).tolist() == [True, True, True, True]
    assert window.owns(boxes, 60, 61).tolist() == [True, False, False, True]
    assert window.owns(boxes, 100, 100).tolist() == [False, False, False, True]


PLACE = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1))


@given(tilings(), PLACE, PLACE, st.floats(0.05, 4), st.booleans())
@example((250, 80, 100.0, 20.0), 1.0, 1.0, 1.0, False)
@example((250, 80, 100.0, 20.0), 87.5 / 250, 1.0, 1.0, False)
@example((250, 80, 100.0, 0.0), 1.0, 0.5, 1.0, False)
def test_every_centre_in_an_image_belongs_to_exactly_one_window_which_shows_the_box_whole(
    tiling, x, y, scale, as_tensor
):
    width, height, side, overlap = tiling
    assume(round(side * scale) > overlap * scale)
    windows = list(cut_windows((0, 0, width, height), scale, round(side * scale), overlap * scale))
    centre = np.array([width * x, height * y])
    # As large as fits around the centre, up to the overlap: what a network shows of an object.
    half = np.minimum(np.minimum(centre, (width, height) - centre), overlap / 2)
    box = np.concatenate([centre - half, centre + half])[None]
    if as_tensor:
        torch = pytest.importorskip('torch')
        box = torch.tensor(box, dtype=torch.float32)
    (owner,) = [window for window in windows if window.owns(box, width, height).all()]
    slack = 1e-2 if as_tensor else SLACK  # float32 is exact to 0.0005 px at 5000 px
    lo, hi = np.array(box.tolist()).reshape(2, 2)
    assert (lo >= np.array(owner.box[:2]) - slack).all()
    assert (hi <= np.array(owner.box[2:]) + slack).all()


# --- batches --------------------------------------------------------------------------------------


def window(height, width, image=0, level=0):
    box = (0, 0, width, height)
    return Window(image, level, box, box, (height, width))


def test_windows_of_one_shape_go_together_up_to_a_number_of_pixels():
    windows = [window(10, 20, image=i) for i in range(5)]
    assert list(window_batches(windows, 400)) == [windows[:2], windows[2:4], windows[4:]]
    assert list(window_batches(windows, 399)) == [[w] for w in windows]


def test_windows_of_other_shapes_go_together_if_little_of_the_batch_is_padding():
    a, b, c = window(10, 10), window(10, 11), window(10, 14)
    assert list(window_batches([c, b, a], 1000)) == [[a], [b], [c]]
    # a and b are 210 px, 220 padded; all three 350 px, 420 padded.
    assert list(window_batches([c, b, a], 1000, max_padding=1.1)) == [[a, b], [c]]
    assert list(window_batches([c, b, a], 1000, max_padding=1.2)) == [[a, b, c]]


def test_shapes_are_compared_after_rounding_up():
    a, b, c = window(30, 20), window(20, 32), window(20, 33)
    assert list(window_batches([c, b, a], 10_000, pad_size_divisor=32)) == [[b, a], [c]]
    assert list(window_batches([a, b], 2 * 32 * 32 - 1, pad_size_divisor=32)) == [[a], [b]]


@given(
    st.lists(st.tuples(*[st.integers(1, 60)] * 2, *[st.integers(0, 2)] * 2), max_size=30),
    st.integers(1, 20_000),
    st.floats(1, 2),
    st.sampled_from([1, 8, 32]),
)
def test_batches_have_every_window_once_and_respect_the_limits(
    windows, max_pixels, max_padding, divisor
):
    windows = [window(*values) for values in windows]
    batches = list(
        window_batches(windows, max_pixels, max_padding=max_padding, pad_size_divisor=divisor)
    )
    assert sorted(id(w) for batch in batches for w in batch) == sorted(map(id, windows))
    for batch in batches:
        shapes = np.ceil(np.array([w.shape for w in batch]) / divisor) * divisor
        padded = len(batch) * shapes.max(axis=0).prod()
        assert len(batch) == 1 or padded <= max_pixels
        assert padded <= max_padding * shapes.prod(axis=1).sum() + SLACK


@given(st.lists(st.integers(1, 5), max_size=20), st.randoms())
def test_batches_do_not_depend_on_the_order_of_the_images(heights, random):
    windows = [window(height, 5, image=i) for i, height in enumerate(heights)]
    shuffled = random.sample(windows, len(windows))
    assert list(window_batches(windows, 60)) == list(window_batches(shuffled, 60))


# --- windows of whole pixels ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ('box', 'window'),
    [
        ((2, 3, 7, 9), (2, 3, 7, 9)),
        ((2.5, 3.25, 6.5, 8.75), (2, 3, 7, 9)),
        ((1.95, 2.95, 7.05, 9.05), (2, 3, 7, 9)),  # within the slack of whole pixels
        ((2.05, 3.05, 6.95, 8.95), (2, 3, 7, 9)),
        ((1.85, 2.85, 7.15, 9.15), (1, 2, 8, 10)),  # beyond it
        ((-5, -6, 70, 80), (0, 0, 20, 30)),
        ((4.3, 5.3, 4.6, 5.6), (4, 5, 5, 6)),
        ((4, 5, 4, 5), (4, 5, 5, 6)),  # one pixel at least
        ((20, 30, 20, 30), (19, 29, 20, 30)),  # which is in the image
        ((0, 0, 0, 0), (0, 0, 1, 1)),
        ((1, 29.5, 1, 30), (1, 29, 2, 30)),
        ((19.5, 1, 20, 1), (19, 1, 20, 2)),
    ],
)
def test_the_window_of_whole_pixels_that_holds_a_box(box, window):
    assert pixel_window(box, 20, 30, slack=0.1) == window


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(('side', 'overlap'), [(20, 20), (20, 30), (20, -1), (20, float('nan'))])
@pytest.mark.parametrize('tile', [cover, fewest_windows])
def test_says_that_windows_must_be_larger_than_their_overlap(tile, side, overlap):
    with pytest.raises(ValueError, match=f'windows of 20 px cannot overlap by {overlap} px'):
        tile(100, 100, side, overlap)


@pytest.mark.parametrize('window_size', [20, 5])
def test_says_that_windows_must_be_larger_than_a_chip(window_size):
    with pytest.raises(ValueError, match=f'window_size {window_size} must exceed .*chip size, 20'):
        LevelWindows(PYRAMID, [100], [100], window_size)
    with pytest.raises(ValueError, match=f'window_size {window_size} must exceed .*chip size, 20'):
        check_window_size(window_size, PYRAMID)


@pytest.mark.parametrize(
    ('box', 'size', 'level', 'expected'),
    [
        # Half of 64 px is shown enlarged; the edge at 39.9995 lies on the pixel's.
        ((8, 7.9995, 40, 39.9995), (200, 100), 0, ((8, 8, 40, 40), (64, 64))),
        # 33 px at twice the size are more than a chip.
        ((8.4, 8, 40.4, 40), (200, 100), 0, ((8, 8, 41, 40), (64, 64))),
        # An image that is smaller than a chip.
        ((0, 0, 100, 51), (100, 51), 1, ((0, 0, 100, 51), (50, 26))),
    ],
)
def test_a_chip_is_cut_in_whole_pixels_and_resized_to_no_more_than_its_size(
    box, size, level, expected
):
    levels = [dict(resize=dict(factor=factor), valid_range=(0, None)) for factor in (2.0, 0.5)]
    pyramid = ScalePyramid.from_config(dict(chip_size=64, levels=levels))
    assert chip_window(box, level, pyramid, *size) == expected
