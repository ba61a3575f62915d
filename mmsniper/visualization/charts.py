"""The numbers of charts that a page draws by itself: places in per cent, 0 is left and top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from mmsniper.visualization.figure import LEVEL_COLOURS, level_colour
from mmsniper.visualization.sizes import BINS, size_limits, size_ticks

_POINTS = 300  # of a line; more would not be seen


@dataclass(frozen=True)
class Tick:
    """A number at an axis.

    Attributes:
        at: Its place, per cent.
        text: The number.
        minor: Whether a narrow page leaves it out.
    """

    at: float
    text: str
    minor: bool = False


@dataclass(frozen=True)
class Span:
    """A stretch of an axis.

    Attributes:
        left, width: Its place, per cent.
        colour: Its colour.
    """

    left: float
    width: float
    colour: str


@dataclass(frozen=True)
class SizeChart:
    """A distribution of sizes on a log axis.

    Attributes:
        bars: Height of each bar, per cent of the highest.
        ticks: Of the axis, original px.
        spans: The valid range of each level, fine to coarse.
    """

    bars: tuple[float, ...]
    ticks: tuple[Tick, ...]
    spans: tuple[Span, ...]


def size_chart(sizes: NDArray[np.float64], ranges: NDArray[np.float64]) -> SizeChart:
    """Distribution of sizes and the levels' valid ranges, as :func:`draw_sizes` has them.

    Args:
        sizes (np.ndarray): (n,) sqrt(box area), original px.
        ranges (np.ndarray): (num_levels, 2) valid ranges, original px.
    """
    limits = size_limits(sizes, ranges.ravel().tolist())
    count, _ = np.histogram(sizes, np.geomspace(*limits, BINS + 1))
    low, high = np.log(limits)

    def place(values: ArrayLike) -> list[float]:
        inside = np.clip(np.asarray(values, np.float64), *limits)
        return _rounded((np.log(inside) - low) / (high - low) * 100)

    ticks = size_ticks(limits)
    ends = [place(pair) for pair in ranges]
    return SizeChart(
        tuple(_rounded(100 * count / max(count.max(), 1))),
        tuple(Tick(at, f'{v:g}', i % 2 == 1) for i, (at, v) in enumerate(zip(place(ticks), ticks))),
        tuple(
            Span(left, round(right - left, 2), level_colour(level))
            for level, (left, right) in enumerate(ends)
        ),
    )


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: What it shows.
        colour: Its colour.
        points: As an SVG polyline has them, in a box of 100 by 100.
        last: Its last value, as text.
        is_dot: Whether it is a single point.
    """

    name: str
    colour: str
    points: str
    last: str
    is_dot: bool


@dataclass(frozen=True)
class LineChart:
    """Curves in one chart.

    Attributes:
        lines: The curves.
        x_ticks, y_ticks: Of the axes.
        x_label: What the x axis counts.
    """

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str


Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def line_chart(curves: Curves, x_label: str) -> LineChart:
    """A chart of curves, the y axis from 0.

    Of a curve with many points, neighbours are averaged.

    Args:
        curves (dict[str, tuple[Sequence[float], Sequence[float]]]): x and y of each curve, by its
            name; at least one, and each of at least one point. A y that is no finite number is
            left out.
        x_label (str): What the x axis counts.
    """
    drawn = {name: _averaged(x, y) for name, (x, y) in curves.items()}
    xs = np.concatenate([x for x, _ in drawn.values()])
    ys = np.concatenate([y for _, y in drawn.values()])
    left, right = _ends(xs.min(initial=np.inf), xs.max(initial=-np.inf))
    top = ys.max(initial=0.0) * 1.05 or 1.0
    lines = []
    for i, (name, (x, y)) in enumerate(drawn.items()):
        across = _rounded((x - left) / (right - left) * 100)
        points = [f'{a:g},{d:g}' for a, d in zip(across, _rounded(100 - y / top * 100))]
        # A polyline of one point draws nothing; of the same point twice, a dot.
        is_dot, last = len(points) == 1, f'{y[-1]:.3g}' if len(y) else ''
        path, colour = ' '.join(points * (1 + is_dot)), LEVEL_COLOURS[i % len(LEVEL_COLOURS)]
        lines.append(Line(name, colour, path, last, is_dot))
    return LineChart(
        tuple(lines),
        tuple(_ticks(left, right, integer=True)),
        tuple(Tick(round(100 - tick.at, 2), tick.text) for tick in _ticks(0.0, top)),
        x_label,
    )


def _averaged(x: Sequence[float], y: Sequence[float]) -> tuple[NDArray, NDArray]:
    points = np.array([x, y], np.float64)
    points = points[:, np.isfinite(points).all(axis=0)]
    parts = min(points.shape[1], _POINTS)
    if parts == points.shape[1]:
        return points[0], points[1]
    means = [[part.mean() for part in np.array_split(values, parts)] for values in points]
    return np.array(means[0]), np.array(means[1])


def _ends(low: float, high: float) -> tuple[float, float]:
    if not low <= high:  # there are no points
        return 0.0, 1.0
    return (low - 1, high + 1) if low == high else (low, high)


def _ticks(low: float, high: float, integer: bool = False) -> list[Tick]:
    values = np.asarray(MaxNLocator(5, integer=integer).tick_values(low, high))
    inside = values[(values >= low) & (values <= high)]
    # 0.30000000000000004 is 0.3.
    return [
        Tick(round((v - low) / (high - low) * 100, 2), f'{round(v, 10):g}', i % 2 == 1)
        for i, v in enumerate(inside.tolist())
        if math.isfinite(v)
    ]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return np.round(values, 2).tolist()
