"""Pictures of chips: each thing is drawn in its colour at its place."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmsniper.chips import ScalePyramid
from mmsniper.visualization import (
    CROWD,
    INVALID,
    VALID,
    ChipView,
    boxes_in_chips,
    draw_chips,
    save_figure,
)
from mmsniper.visualization.figure import BAD, GOOD, IGNORED, level_colour

PYRAMID = ScalePyramid.from_config({'chip_size': 100, 'levels': [
    {'resize': {'factor': 1.0}, 'valid_range': (0, 50)},
    {'resize': {'factor': 0.5}, 'valid_range': (40, None)}]})
IMAGE = np.full((300, 400, 3), 255, np.uint8)


def is_drawn(figure, axes, x, y, colour):
    """Whether ``colour`` shows within 2 figure pixels of the data point (x, y)."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    column, row = axes.transData.transform((x, y))
    row, column = round(pixels.shape[0] - row), round(column)
    patch = pixels[row - 2:row + 3, column - 2:column + 3]
    return bool((np.abs(patch - to_rgb(colour)).max(axis=-1) < 0.12).any())


def test_boxes_in_chips_needs_the_right_level_and_the_whole_box():
    boxes = [[10, 10, 30, 30],     # small, in the fine chip
             [90, 10, 120, 40],    # small, cut by the fine chip, in the coarse one only
             [20, 20, 80, 80],     # of size 60: valid at the coarse level only
             [60, 60, 105, 105]]   # of size 45: valid at both, in the coarse chip
    fine, coarse = [0, 0, 100, 100], [0, 0, 200, 200]
    assert boxes_in_chips(boxes, [fine], [0], PYRAMID, (400, 300)).tolist() == [
        True, False, False, False]
    assert boxes_in_chips(boxes, [fine, coarse], [0, 1], PYRAMID, (400, 300)).tolist() == [
        True, False, True, True]


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
    figure = draw_chips(IMAGE, [[20, 20, 50, 50], [250, 50, 280, 80]],
                        [[10, 10, 110, 110], [0, 0, 100, 100]], [0, 0], PYRAMID)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        'level 0, ×1: 2 chips, sizes [0, 50)', 'level 1, ×0.5: 0 chips, sizes 40 and more',
        'valid in a chip: 1', 'in no chip: 1']


def test_a_box_over_the_edge_counts_as_clipped_to_the_image():
    figure = draw_chips(IMAGE, [[-30, 20, 40, 60]], [[0, 0, 100, 100]], [0], PYRAMID)
    assert 'valid in a chip: 1' in [t.get_text() for t in figure.legends[0].get_texts()]


def test_a_chip_shows_its_image_its_boxes_and_its_padding():
    chip = np.zeros((100, 60, 3), np.uint8)
    chip[:, :30] = (255, 0, 0)  # BGR: blue
    view = ChipView(chip, [[35, 10, 55, 30], [35, 40, 55, 60], [35, 70, 55, 90]],
                    [VALID, INVALID, CROWD], level=1, scale=0.5, names=['cell', 'dot', ''])
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
    views = [ChipView(np.zeros((100, 100, 3), np.uint8), [], [], level, 1.0)
             for level in [1] * 20 + [0] * 20]
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


def test_drawing_leaves_pyplot_alone():
    import matplotlib.pyplot as plt
    before = plt.get_fignums()
    draw_chips(IMAGE, [], [], [], PYRAMID)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(('change', 'message'), [
    ({'image': IMAGE.astype(float)}, r'must be \(h, w, 3\) uint8 BGR, got .* float64'),
    ({'image': IMAGE[..., 0]}, r'got an array of shape \(300, 400\)'),
    ({'boxes': [[1, 2, 3]]}, r'boxes must have the shape \(n, 4\), xyxy; got \(1, 3\)'),
    ({'levels': [0, 1]}, '1 chips need as many levels, got 2'),
    ({'levels': [2]}, r'levels must be in 0..1, got \[2\]'),
    ({'ignored': [True, False]}, 'ignored must have one value for each of 1 boxes'),
])
def test_wrong_arrays_are_refused(change, message):
    arguments = {'image': IMAGE, 'boxes': [[0, 0, 9, 9]], 'chips': [[0, 0, 100, 100]],
                 'levels': [0], 'pyramid': PYRAMID}
    with pytest.raises(ValueError, match=message):
        draw_chips(**{**arguments, **change})
