"""Pictures of chips: each thing is drawn in its colour at its place."""

import numpy as np
import pytest
from matplotlib.collections import CircleCollection
from matplotlib.colors import to_rgb

from mmsniper.chips import NEGATIVE, POSITIVE, ScalePyramid
from mmsniper.visualization import (
    CROWD,
    INVALID,
    VALID,
    ChipView,
    boxes_in_chips,
    draw_chips,
    save_figure,
)
from mmsniper.visualization.chips import PROPOSAL, draw_chip_views
from mmsniper.visualization.figure import BAD, GOOD, IGNORED, MISSED, figure_pixels, level_colour

PYRAMID = ScalePyramid.from_config(
    {
        'chip_size': 100,
        'levels': [
            {'resize': {'factor': 1.0}, 'valid_range': (0, 50)},
            {'resize': {'factor': 0.5}, 'valid_range': (40, None)},
        ],
    }
)
IMAGE = np.full((300, 400, 3), 255, np.uint8)


def are_drawn(figure, axes, points, colour, tolerance=0.12):
    """For each data point whether ``colour`` shows within 2 figure pixels of it."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    shows = np.abs(pixels - to_rgb(colour)).max(axis=-1) < tolerance
    columns, rows = np.round(axes.transData.transform(points)).astype(int).T
    rows = len(shows) - rows
    return [
        bool(shows[row - 2 : row + 3, column - 2 : column + 3].any())
        for row, column in zip(rows, columns, strict=True)
    ]


def is_drawn(figure, axes, x, y, colour):
    """Whether ``colour`` shows within 2 figure pixels of the data point (x, y)."""
    return are_drawn(figure, axes, [(x, y)], colour)[0]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def dots_of(figure):
    return [c for c in figure.axes[0].collections if isinstance(c, CircleCollection)]


def tags_of(figure):
    return figure.axes[0].texts


def overlap(a, b):
    """Whether two extents have an inner point in common."""
    return bool(min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0))


def test_boxes_in_chips_needs_the_right_level_and_the_whole_box():
    boxes = [
        [10, 10, 30, 30],  # small, in the fine chip
        [90, 10, 120, 40],  # small, cut by the fine chip, in the coarse one only
        [20, 20, 80, 80],  # of size 60: valid at the coarse level only
        [60, 60, 105, 105],
    ]  # of size 45: valid at both, in the coarse chip
    fine, coarse = [0, 0, 100, 100], [0, 0, 200, 200]
    assert boxes_in_chips(boxes, [fine], [0], PYRAMID, (400, 300)).tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert boxes_in_chips(boxes, [fine, coarse], [0, 1], PYRAMID, (400, 300)).tolist() == [
        True,
        False,
        True,
        True,
    ]


def test_boxes_and_chips_are_drawn_where_they_are():
    boxes = [[20, 20, 50, 50], [250, 50, 280, 80], [150, 150, 200, 200]]
    chips, levels = [[10, 10, 110, 110], [120, 100, 320, 300]], [0, 1]
    figure = draw_chips(IMAGE, boxes, chips, levels, PYRAMID, ignored=[False, False, True])
    axes = figure.axes[0]
    assert is_drawn(figure, axes, 20, 35, GOOD)
    assert is_drawn(figure, axes, 35, 50, GOOD)
    assert is_drawn(figure, axes, 60, 10, level_colour(0))
    assert is_drawn(figure, axes, 320, 200, level_colour(1))
    # Dashed lines: somewhere along the side.
    assert any(is_drawn(figure, axes, x, 50, BAD) for x in range(250, 281, 3))
    assert any(is_drawn(figure, axes, x, 150, IGNORED) for x in range(150, 201, 3))
    assert not is_drawn(figure, axes, 35, 35, GOOD)
    assert not any(is_drawn(figure, axes, x, 50, GOOD) for x in range(250, 281, 3))


def test_the_legend_counts_chips_and_boxes():
    figure = draw_chips(
        IMAGE,
        [[20, 20, 50, 50], [250, 50, 280, 80]],
        [[10, 10, 110, 110], [0, 0, 100, 100]],
        [0, 0],
        PYRAMID,
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        'level 0, ×1: 2 chips, sizes [0, 50)',
        'level 1, ×0.5: 0 chips, sizes 40 and more',
        'valid in a chip: 1',
        'in no chip: 1',
    ]


def test_a_box_over_the_edge_counts_as_clipped_to_the_image():
    figure = draw_chips(IMAGE, [[-30, 20, 40, 60]], [[0, 0, 100, 100]], [0], PYRAMID)
    assert 'valid in a chip: 1' in [t.get_text() for t in figure.legends[0].get_texts()]


def test_a_chip_shows_its_image_its_boxes_and_its_padding():
    chip = np.zeros((100, 60, 3), np.uint8)
    chip[:, :30] = (255, 0, 0)  # BGR: blue
    view = ChipView(
        chip,
        [[35, 10, 55, 30], [35, 40, 55, 60], [35, 70, 55, 90]],
        [VALID, INVALID, CROWD],
        level=1,
        scale=0.5,
        names=['cell', 'dot', ''],
    )
    figure = draw_chips(IMAGE, [], [[0, 0, 120, 200]], [1], PYRAMID, views=[view])
    axes = figure.axes[1]
    assert axes.get_title() == 'level 1, ×0.5: 1 valid, 1 invalid, 1 ignored'
    assert is_drawn(figure, axes, 15, 50, 'blue')
    assert is_drawn(figure, axes, 80, 50, '#404040')
    assert is_drawn(figure, axes, 35, 20, GOOD)
    assert any(is_drawn(figure, axes, x, 40, BAD) for x in range(36, 55, 2))
    assert any(is_drawn(figure, axes, x, 70, IGNORED) for x in range(36, 55, 2))
    assert is_drawn(figure, axes, 0, 50, level_colour(1))
    # An invalid box's name is left out.
    assert [text.get_text() for text in axes.texts] == ['cell']


def test_many_chips_are_sampled_over_the_levels_and_the_title_says_so():
    views = [
        ChipView(np.zeros((100, 100, 3), np.uint8), [], [], level, 1.0)
        for level in [1] * 20 + [0] * 20
    ]
    figure = draw_chips(IMAGE, [], [], [], PYRAMID, views=views, max_views=5, title='a.jpg')
    assert [axes.get_title()[:7] for axes in figure.axes[1:]] == ['level 0'] * 3 + ['level 1'] * 2
    assert figure.axes[0].get_title(loc='left') == 'a.jpg (5 of 40 chips shown)'


def test_a_huge_image_is_shrunk_but_keeps_its_coordinates():
    image = np.full((200, 20000, 3), 255, np.uint8)
    figure = draw_chips(image, [[10000, 50, 10040, 90]], [[9900, 0, 10000, 100]], [0], PYRAMID)
    axes = figure.axes[0]
    assert axes.images[0].get_array().shape[:2] == (16, 1600)
    assert axes.images[0].get_extent() == [0, 20000, 200, 0]
    assert axes.get_xlim() == (0, 20000)


def test_an_image_without_boxes_and_chips_is_drawn():
    figure = draw_chips(IMAGE, np.zeros((0, 4)), [], [], PYRAMID)
    assert len(figure.axes) == 1


def test_pictures_are_saved_whole_and_folders_made(tmp_path):
    path = tmp_path / 'deep' / 'er' / 'chips.png'
    save_figure(draw_chips(IMAGE, [], [], [], PYRAMID), path)
    assert path.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
    assert [p.name for p in path.parent.iterdir()] == ['chips.png']


def test_a_negative_chip_is_dashed_red_with_its_level_on_a_tag():
    figure = draw_chips(
        IMAGE,
        [],
        [[10, 10, 110, 110], [150, 50, 350, 250]],
        [0, 1],
        PYRAMID,
        kinds=[POSITIVE, NEGATIVE],
    )
    axes = figure.axes[0]
    side = [(150, y) for y in range(60, 241)]
    assert 0.3 < np.mean(are_drawn(figure, axes, side, BAD)) < 1
    assert not any(are_drawn(figure, axes, side, level_colour(1)))
    assert [tag.get_text() for tag in tags_of(figure)] == ['level 1']
    assert to_rgb(tags_of(figure)[0].get_bbox_patch().get_facecolor()) == to_rgb(level_colour(1))
    assert not any(are_drawn(figure, axes, [(10, y) for y in range(20, 101)], BAD))


def test_a_negative_chip_is_not_counted_among_the_chips_of_its_level():
    chips = [[0, 0, 100, 100]] * 3 + [[0, 0, 200, 200]]
    figure = draw_chips(
        IMAGE, [], chips, [0, 0, 0, 1], PYRAMID, kinds=[NEGATIVE, POSITIVE, NEGATIVE, NEGATIVE]
    )
    assert legend_of(figure) == [
        'level 0, ×1: 1 positive chips, sizes [0, 50)',
        'level 1, ×0.5: 0 positive chips, sizes 40 and more',
        'negative chips: 3 (2/1)',
    ]


def test_a_box_that_only_a_negative_chip_encloses_is_learned_there():
    figure = draw_chips(
        IMAGE, [[20, 20, 50, 50]], [[0, 0, 100, 100]], [0], PYRAMID, kinds=[NEGATIVE]
    )
    assert 'valid in a chip: 1' in legend_of(figure)


def test_proposals_are_dots_at_their_centres_in_the_colour_of_their_level():
    figure = draw_chips(
        IMAGE,
        [],
        [],
        [],
        PYRAMID,
        proposals=[[90, 40, 110, 60], [150, 100, 250, 200]],
        proposal_levels=[0, 1],
    )
    axes = figure.axes[0]
    assert is_drawn(figure, axes, 100, 50, level_colour(0))
    assert is_drawn(figure, axes, 200, 150, level_colour(1))
    assert not is_drawn(figure, axes, 90, 40, level_colour(0))
    assert legend_of(figure)[-1] == 'uncovered proposals: 2 (1/1)'
    dots = figure.legends[0].legend_handles[-1]
    assert len(dots.get_offsets()) == 2
    assert [to_rgb(colour) for colour in dots.get_facecolor()] == [
        to_rgb(level_colour(0)),
        to_rgb(level_colour(1)),
    ]


def test_a_proposal_of_two_levels_shows_both_colours():
    figure = draw_chips(
        IMAGE, [], [], [], PYRAMID, proposals=[[180, 130, 220, 170]] * 2, proposal_levels=[0, 1]
    )
    assert is_drawn(figure, figure.axes[0], 200, 150, level_colour(0))
    around = [(200 + x, 150 + y) for x in range(-3, 4) for y in range(-3, 4)]
    assert any(are_drawn(figure, figure.axes[0], around, level_colour(1), tolerance=0.3))


def test_thousands_of_proposals_are_one_artist_and_leave_the_picture_visible():
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, (400, 300), (20000, 2))
    figure = draw_chips(
        IMAGE,
        [],
        [],
        [],
        PYRAMID,
        proposals=np.concatenate([centres - 10, centres + 10], axis=1),
        proposal_levels=rng.integers(0, 2, 20000),
    )
    (dots,) = dots_of(figure)
    assert len(dots.get_offsets()) == 20000
    points = figure.axes[0].bbox.width * figure.axes[0].bbox.height * (72 / figure.dpi) ** 2
    assert dots.get_sizes().sum() <= 0.1 * points


def test_what_is_not_given_is_not_in_the_legend():
    without = draw_chips(IMAGE, [], [], [], PYRAMID)
    assert not any('negative' in text or 'proposals' in text for text in legend_of(without))
    none = draw_chips(IMAGE, [], [], [], PYRAMID, kinds=[], proposals=[], proposal_levels=[])
    assert legend_of(none)[-2:] == ['negative chips: 0 (0/0)', 'uncovered proposals: 0 (0/0)']


@pytest.mark.parametrize('size', [(400, 300), (100, 300), (900, 100)], ids=str)
@pytest.mark.parametrize('views', [0, 1, 7])
def test_the_legend_is_clear_of_the_pictures(size, views):
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    view = ChipView(np.zeros((100, 100, 3), np.uint8), [], [], 0, 1.0)
    figure = draw_chips(
        image,
        [[10, 10, 20, 20], [50, 50, 60, 60], [5, 5, 90, 95]],
        [[0, 0, 40, 40]] * 2,
        [0, 1],
        PYRAMID,
        kinds=[POSITIVE, NEGATIVE],
        ignored=[False, False, True],
        proposals=[[0, 0, 9, 9]] * 1000,
        proposal_levels=[0, 1] * 500,
        views=[view] * views,
    )
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert len(legend_of(figure)) == 7
    assert not any(overlap(legend, axes.bbox) for axes in figure.axes)
    assert min(legend.x0, legend.y0) >= 0
    assert legend.x1 <= figure.bbox.x1


@pytest.mark.parametrize('image', [IMAGE, IMAGE[:50]], ids=['square', 'wide'])
def test_no_tag_hides_another_one_or_leaves_the_image_at_the_top(image):
    rng = np.random.default_rng(0)
    corners = np.stack([rng.choice([0, 1, 8, 15, 200], 30), rng.choice([0, 1, 5, 9, 40], 30)], 1)
    levels = rng.integers(0, 2, 30)
    chips = np.concatenate([corners, corners + 100 * (1 + levels[:, None])], axis=1)
    figure = draw_chips(image, [], chips, levels, PYRAMID, kinds=[NEGATIVE] * 30)
    figure.canvas.draw()
    plates = [tag.get_bbox_patch().get_window_extent() for tag in tags_of(figure)]
    assert len(plates) == 30
    # A plate may touch the next one by a pixel: what it measures is estimated.
    plates = [plate.padded(-1) for plate in plates]
    assert not any(overlap(a, b) for i, a in enumerate(plates) for b in plates[:i])
    assert max(plate.y1 for plate in plates) <= figure.axes[0].bbox.y1


def test_the_tag_of_a_chip_that_is_drawn_small_is_short():
    image = np.zeros((3000, 4000, 3), np.uint8)
    figure = draw_chips(
        image,
        [],
        [[1000, 1000, 1100, 1100], [500, 500, 1500, 1500]],
        [0, 1],
        PYRAMID,
        kinds=[NEGATIVE, NEGATIVE],
    )
    assert [tag.get_text() for tag in tags_of(figure)] == ['0', 'level 1']


def test_the_view_of_a_negative_chip_has_a_red_frame_and_says_so():
    views = [
        ChipView(
            np.zeros((100, 100, 3), np.uint8),
            [[10, 10, 30, 30]] * 3,
            [VALID, INVALID, CROWD],
            1,
            0.5,
            kind=kind,
        )
        for kind in (POSITIVE, NEGATIVE)
    ]
    figure = draw_chips(IMAGE, [], [], [], PYRAMID, views=views)
    positive, negative = figure.axes[1:]
    assert positive.get_title() == 'level 1, ×0.5: 1 valid, 1 invalid, 1 ignored'
    assert negative.get_title() == 'negative, level 1, ×0.5: 1 valid, 1 invalid, 1 ignored'
    frames = [axes.spines['left'].get_edgecolor()[:3] for axes in (positive, negative)]
    assert frames == [to_rgb(level_colour(1)), to_rgb(BAD)]
    figure.canvas.draw()
    gap = positive.bbox.y0 - negative.bbox.y1  # the second view is below the first
    extent = negative.title.get_window_extent()
    assert extent.height < gap
    assert extent.width < negative.bbox.width + gap


@pytest.mark.parametrize(
    ('positive', 'negative', 'expected'),
    [(20, 20, (3, 2)), (20, 1, (4, 1)), (1, 20, (1, 4)), (2, 2, (2, 2)), (0, 9, (0, 5))],
)
def test_views_are_shared_out_to_both_kinds(positive, negative, expected):
    views = [
        ChipView(np.zeros((100, 100, 3), np.uint8), [], [], 0, 1.0, kind=kind)
        for kind in [NEGATIVE] * negative + [POSITIVE] * positive
    ]
    figure = draw_chips(IMAGE, [], [], [], PYRAMID, views=views, max_views=5)
    said = [axes.get_title().startswith('negative') for axes in figure.axes[1:]]
    assert said == [False] * expected[0] + [True] * expected[1]


def test_drawing_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw_chips(IMAGE, [], [], [], PYRAMID)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image': IMAGE.astype(str)}, r'must be an array of numbers, .* type <U'),
        ({'image': IMAGE[0, 0]}, r'got one of shape \(3,\)'),
        (
            {'boxes': [[1, 2, 3]]},
            r'boxes must have the shape \(n, 4\), xyxy, or \(n, 8\), corners; got',
        ),
        ({'levels': [0, 1]}, '1 chips need as many levels, got 2'),
        ({'levels': [2]}, r'levels must be in 0..1, got \[2\]'),
        ({'ignored': [True, False]}, 'ignored must have one value for each of 1 boxes'),
        (
            {'kinds': [0, 1]},
            r'kinds must be POSITIVE \(0\) or NEGATIVE \(1\) for each of 1 chips, '
            r'got \[0, 1\]',
        ),
        ({'kinds': [2]}, r'got \[2\]'),
        ({'proposals': [[1, 2, 3]]}, r'proposals must have the shape \(n, 4\), xyxy; got \(1, 3\)'),
        ({'proposals': [[1, 2, 3, 4]]}, '1 proposals need as many levels, got 0'),
        (
            {'proposals': [[1, 2, 3, 4]], 'proposal_levels': [-1]},
            r'levels must be in 0..1, got \[-1\]',
        ),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    arguments = {
        'image': IMAGE,
        'boxes': [[0, 0, 9, 9]],
        'chips': [[0, 0, 100, 100]],
        'levels': [0],
        'pyramid': PYRAMID,
    }
    with pytest.raises(ValueError, match=message):
        draw_chips(**{**arguments, **change})


def noise(height, width, bands=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)


def view_of(image, boxes=(), states=(), **more):
    return ChipView(image, np.reshape(boxes, (-1, 4)), np.array(states, int), 0, 1.5, **more)


def inside(figure, axes):
    """The pixels within the frame of axes, as they are in the figure, RGB."""
    pixels = figure_pixels(figure)
    x1, y1, x2, y2 = np.round(axes.bbox.extents).astype(int)
    return pixels[len(pixels) - y2 : len(pixels) - y1, x1:x2]


@pytest.mark.parametrize('chips', [1, 2, 4])
def test_each_pixel_of_a_chip_is_one_of_the_picture(chips):
    images = [noise(256, 256, seed=i) for i in range(chips)]
    figure = draw_chip_views([view_of(image) for image in images])
    assert len(figure.axes) == chips
    for axes, image in zip(figure.axes, images):
        drawn = inside(figure, axes)
        assert drawn.shape == image.shape
        # Its frame lies over the outermost.
        np.testing.assert_array_equal(drawn[4:-4, 4:-4], image[4:-4, 4:-4, ::-1])


def test_pixels_of_small_chips_are_enlarged_as_they_are():
    image = noise(64, 48)
    figure = draw_chip_views([view_of(image)])
    drawn = inside(figure, figure.axes[0])
    assert drawn.shape == (256, 256, 3)
    enlarged = image.repeat(4, axis=0).repeat(4, axis=1)[..., ::-1]
    np.testing.assert_array_equal(drawn[4:-4, 4:188], enlarged[4:-4, 4:188])
    assert (drawn[4:-4, 194:-4] == 0x40).all()  # where there is no chip


def test_whole_images_are_shrunk():
    figure = draw_chip_views([view_of(noise(500, 2000))] * 2)
    assert inside(figure, figure.axes[1]).shape == (1024, 1024, 3)


def test_boxes_of_a_chip_have_the_colours_of_their_states():
    boxes = [[20, 20, 80, 80], [120, 20, 180, 80], [20, 120, 80, 180], [120, 120, 180, 180]]
    states = [VALID, INVALID, CROWD, PROPOSAL]
    grey = np.full((200, 200, 3), 128, np.uint8)
    figure = draw_chip_views([view_of(grey, boxes, states, kind=NEGATIVE)])
    axes = figure.axes[0]
    for (x1, y1, x2, _), colour in zip(boxes, (GOOD, BAD, IGNORED, MISSED)):
        assert any(are_drawn(figure, axes, [(x, y1) for x in range(x1, x2)], colour))
    assert axes.get_title() == 'negative, level 0, ×1.5: 1 proposed, 1 valid, 1 invalid, 1 ignored'
    assert legend_of(figure) == ['proposed', 'valid', 'invalid', 'ignored']


def test_a_picture_of_no_chip_is_refused():
    with pytest.raises(ValueError, match='no chip'):
        draw_chip_views([])


def test_names_stand_above_their_boxes_and_in_them_at_the_top_of_the_picture():
    boxes = [[20, 100, 80, 160], [120, 2, 180, 80]]
    grey = np.full((200, 200, 3), 128, np.uint8)
    figure = draw_chip_views([view_of(grey, boxes, [VALID] * 2, names=['car', 'cyclist'])])
    figure.canvas.draw()
    (axes,) = figure.axes
    above, below = (text.get_window_extent() for text in axes.texts)
    (_, top), (_, second) = (axes.transData.transform(box[:2]) for box in boxes)
    assert above.y0 > top
    assert below.y1 < second


def test_rotated_boxes_are_drawn_turned_and_judged_by_their_own_size():
    """80 x 8 px at 45 degrees: size 25, which level 0 learns, enclosed by a box of size 62."""
    turned = np.array([[30.0, 30, 86.6, 86.6, 80.9, 92.2, 24.3, 35.7]])
    pyramid = dict(
        chip_size=100,
        levels=[
            dict(resize=dict(factor=1.0), valid_range=(0, 30)),
            dict(resize=dict(factor=0.5), valid_range=(30, None)),
        ],
    )
    built = ScalePyramid.from_config(pyramid)
    chips = np.array([[0.0, 0, 100, 100]])
    assert boxes_in_chips(turned, chips, [0], built, (200, 200)).tolist() == [True]
    around = np.array([[24.3, 30, 86.6, 92.2]])
    assert boxes_in_chips(around, chips, [0], built, (200, 200)).tolist() == [False]
    view = ChipView(np.zeros((100, 100, 3), np.uint8), turned, [VALID], 0, 1.0, ['ship'])
    image = np.zeros((200, 200, 3), np.uint8)
    figure = draw_chips(image, turned, chips, [0], pyramid, views=[view])
    for axes in figure.axes:
        outlines = [
            path.vertices[:4]
            for drawn in axes.collections
            for path in drawn.get_paths()
            if len(path.vertices) >= 4
        ]
        assert any(np.allclose(found, turned.reshape(4, 2)) for found in outlines)
        assert not any(
            np.allclose(found.min(axis=0), around[0, :2])
            and np.allclose(found.max(axis=0), around[0, 2:])
            and len(set(found[:, 0])) == 2
            for found in outlines
        )
