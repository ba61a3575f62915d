"""The numbers of the charts of a page."""

import numpy as np
import pytest

from mmsniper.visualization.charts import line_chart, size_chart
from mmsniper.visualization.figure import level_colour


def test_sizes_and_ranges_are_on_one_log_axis():
    sizes = np.array([4.0, 16.0, 16.0, 64.0])
    chart = size_chart(sizes, np.array([[0, 16], [8, np.inf]]))
    assert max(chart.bars) == 100
    # Twice as many objects of 16 px as of 4 or 64.
    assert sorted(bar for bar in chart.bars if bar) == [50, 50, 100]
    assert chart.bars.index(100) == pytest.approx(len(chart.bars) / 2, abs=1)
    places = {tick.text: tick.at for tick in chart.ticks}
    assert places['16'] == pytest.approx(50, abs=0.1)
    assert places['32'] - places['16'] == pytest.approx(places['16'] - places['8'], abs=0.1)
    assert [tick.minor for tick in chart.ticks] == [False, True, False, True, False]
    fine, coarse = chart.spans
    assert (fine.left, fine.left + fine.width) == (0, pytest.approx(places['16'], abs=0.1))
    assert coarse.left == pytest.approx(places['8'], abs=0.1)
    assert coarse.left + coarse.width == pytest.approx(100, abs=0.1)
    assert fine.colour == level_colour(0)


def test_lines_begin_at_zero_and_end_at_the_highest():
    chart = line_chart({'a': ([0, 10], [1.0, 2.0]), 'b': ([5], [0.0])}, 'epoch')
    a, b = chart.lines
    assert (a.name, a.last, b.last) == ('a', '2', '0')
    (x0, y0), (x1, y1) = (map(float, point.split(',')) for point in a.points.split())
    assert (x0, x1) == (0, 100)
    assert (100 - y0) * 2 == pytest.approx(100 - y1, abs=0.1)
    assert 0 < y1 < 10
    # A dot: the same point twice.
    assert b.points == '50,100 50,100'
    assert (a.is_dot, b.is_dot) == (False, True)
    assert chart.y_ticks[0] == type(chart.y_ticks[0])(100, '0')
    assert [tick.text for tick in chart.x_ticks][:2] == ['0', '2']
    assert chart.x_label == 'epoch'


def test_many_points_are_averaged_and_what_is_no_number_is_left_out():
    x = np.arange(30_000)
    y = np.where(x % 2, 1.0, 3.0)
    y[7] = np.nan
    chart = line_chart({'loss': (x, y), 'nothing': ([1], [np.inf])}, 'iteration')
    loss, nothing = chart.lines
    points = loss.points.split()
    assert len(points) == 300
    heights = {round(float(point.split(',')[1])) for point in points}
    assert len(heights) <= 2
    assert float(loss.last) == pytest.approx(2, abs=0.02)
    assert (nothing.points, nothing.last) == ('', '')
