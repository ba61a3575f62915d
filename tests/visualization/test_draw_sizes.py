"""The picture of sizes: each bar, label and histogram says what is in the data."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from mmsniper.chips import AnnotationTable, ScalePyramid
from mmsniper.visualization import draw_sizes, save_figure
from mmsniper.visualization.figure import level_colour

PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=160,
        levels=[
            dict(resize=dict(factor=1.0), valid_range=(0, 48)),
            dict(resize=dict(long_side=160), valid_range=(32, None)),
        ],
    )
)


def squares(*sizes):
    return AnnotationTable.from_images([(320, 320, [[0, 0, s, s] for s in sizes], None)])


def bars(axes, colour):
    return [
        patch
        for patch in axes.patches
        if isinstance(patch, Rectangle)
        and to_rgb(patch.get_facecolor()) == to_rgb(colour)
        and patch.get_height() == 0.8
    ]


def texts(axes):
    return [text.get_text().strip() for text in axes.texts]


def test_every_range_is_a_bar_at_its_place_on_a_log_axis():
    _, ranges, _ = draw_sizes(squares(10, 20, 40, 100), PYRAMID).axes
    assert ranges.get_xscale() == 'log'
    (fine,), (coarse,) = bars(ranges, level_colour(0)), bars(ranges, level_colour(1))
    left, right = ranges.get_xlim()
    assert left < 10
    assert right > 100
    assert (fine.get_x(), fine.get_x() + fine.get_width()) == pytest.approx((left, 48))
    assert (coarse.get_x(), coarse.get_x() + coarse.get_width()) == pytest.approx((32, right))
    assert texts(ranges) == [
        'factor 1: 0 to 48 px, 75% of boxes',
        'long side 160: 32 px and more, 50% of boxes',
    ]


def test_the_distribution_is_that_of_the_boxes():
    above = draw_sizes(squares(10, 20, 20, 100), PYRAMID, 'some data').axes[0]
    assert above.get_title(loc='left') == 'some data'
    assert above.get_ylabel() == 'of 4 boxes'
    heights = {
        round(p.get_x() + p.get_width() / 2): p.get_height()
        for p in above.patches
        # What marks a level is a Polygon before Matplotlib 3.9.
        if isinstance(p, Rectangle) and p.get_height() in (0.25, 0.5)
    }
    assert sorted(heights.values()) == [0.25, 0.25, 0.5]
    assert all(
        min(abs(size / 10 - 1), abs(size / 20 - 1), abs(size / 100 - 1)) < 0.1 for size in heights
    )


def test_below_are_the_sizes_that_the_network_sees():
    below = draw_sizes(squares(40, 100), PYRAMID).axes[2]
    assert texts(below) == ['seen well: 20 to 80 px, smaller too at level 0', 'a chip: 160 px']
    filled = {
        to_rgb(patch.get_facecolor()): patch.get_xy()
        for patch in below.patches
        if hasattr(patch, 'get_closed') and patch.get_fill()
    }
    for level, sizes in ((0, [40]), (1, [20, 50])):
        xy = filled[to_rgb(level_colour(level))]
        x = xy[xy[:, 1] > 0, 0]
        assert x.min() == pytest.approx(min(sizes), rel=0.1)
        assert x.max() == pytest.approx(max(sizes), rel=0.1)


@pytest.mark.parametrize('sizes', [(40,), (1, 300), tuple(range(2, 300))], ids=len)
def test_labels_and_axes_are_in_the_picture(sizes):
    levels = [
        dict(resize=dict(factor=round(3 / 1.5**i, 2)), valid_range=(30 * i, 30 * i + 60))
        for i in range(6)
    ]
    for pyramid in (PYRAMID, ScalePyramid.from_config(dict(chip_size=96, levels=levels))):
        figure = draw_sizes(squares(*sizes), pyramid, 'title')
        figure.canvas.draw()
        above, ranges, below = figure.axes
        for axes in figure.axes:
            low, high = axes.get_xlim()
            assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 2
            for text in axes.texts:
                extent = text.get_window_extent()
                assert extent.x0 >= 0
                assert extent.x1 <= figure.bbox.width
        assert below.get_tightbbox().y1 < ranges.get_tightbbox().y0 < above.get_tightbbox().y0


def test_data_without_boxes_are_drawn(tmp_path):
    table = AnnotationTable.from_images([(320, 320, np.zeros((0, 4)), None)])
    save_figure(draw_sizes(table, PYRAMID), tmp_path / 'a.png')
    assert (tmp_path / 'a.png').is_file()
