"""A picture of a data set's object sizes and of what a pyramid makes of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from mmsniper.chips import (
    GOOD_SIZE_RANGE,
    AnnotationTable,
    ScalePyramid,
    describe_rule,
    network_sizes,
)
from mmsniper.visualization.figure import level_colour, new_figure

BINS = 64
"""Bars of a distribution of sizes."""
_GREY = '#7d8796'
_BAR = 0.32  # inches, of a level


def draw_sizes(table: AnnotationTable, pyramid: ScalePyramid, title: str = '') -> Figure:
    """Draw how large objects are, which level learns which, and how large each level shows them.

    Above, the distribution of sqrt(box area) in original px on a log axis, and under it a bar for
    each level's valid range. Below, the sizes in network px of the objects that are valid at each
    level and fit, over the band of sizes that are seen well (1/8 to 1/2 of a chip).

    Args:
        table (AnnotationTable): Image sizes and boxes; those to ignore are left out.
        pyramid (ScalePyramid): The pyramid.
        title (str): Above the picture. Defaults to ''.

    Returns:
        Figure: For :func:`save_figure`.

    Example:
        >>> save_figure(draw_sizes(table, suggest_pyramid(table).pyramid), 'sizes.png')
    """
    sizes = table.sizes_of(~table.ignore)
    shown = network_sizes(table, pyramid)
    bars = _BAR * pyramid.num_levels
    figure = new_figure(8.0, 5.4 + bars)
    above, ranges, below = figure.subplots(3, 1, height_ratios=[2.0, bars, 2.0])
    figure.subplots_adjust(left=0.09, right=0.975, top=0.93, bottom=0.09, hspace=0.06)
    limits = size_limits(sizes, [b for pair in pyramid.ranges() for b in pair])
    _draw_distribution(above, sizes, pyramid, limits)
    above.set_title(title, fontsize=10, loc='left')
    _draw_ranges(ranges, pyramid, sizes, limits)
    _draw_network_sizes(below, shown, pyramid)
    box = below.get_position()
    below.set_position((box.x0, box.y0, box.width, box.height - 0.7 / figure.get_size_inches()[1]))
    return figure


def _draw_distribution(
    axes: Axes, sizes: NDArray, pyramid: ScalePyramid, limits: tuple[float, float]
) -> None:
    for level, (lo, hi) in enumerate(pyramid.ranges()):
        left, right = np.clip((lo, hi), *limits)
        axes.axvspan(left, right, color=level_colour(level), alpha=0.12, linewidth=0)
    _draw_histogram(axes, sizes, limits, color=_GREY, zorder=2)
    _prepare(axes, limits)
    axes.tick_params(axis='x', labelbottom=False)
    axes.set_ylabel(f'of {len(sizes):,} boxes', fontsize=8)


def _draw_ranges(
    axes: Axes, pyramid: ScalePyramid, sizes: NDArray, limits: tuple[float, float]
) -> None:
    for level, (lo, hi) in enumerate(pyramid.ranges()):
        left, right = np.clip((lo, hi), *limits)
        axes.barh(level, right - left, left=left, height=0.8, color=level_colour(level))
        share = np.mean((sizes >= lo) & (sizes < hi)) if len(sizes) else 0
        span = f'{lo:g} to {hi:g} px' if math.isfinite(hi) else f'{lo:g} px and more'
        label = f'{describe_rule(pyramid.levels[level].resize)}: {span}, {share:.0%} of boxes'
        # At the end of the bar that is nearer to the picture's edge, so that it stays inside.
        near_left = left * right < limits[0] * limits[1]
        axes.annotate(
            label,
            (left if near_left else right, level),
            (4 if near_left else -9, 0),
            textcoords='offset points',
            fontsize=8,
            va='center',
            ha='left' if near_left else 'right',
            path_effects=[withStroke(linewidth=2.5, foreground=(1, 1, 1, 0.8))],
        )
    _prepare(axes, limits)
    axes.set_ylim(pyramid.num_levels - 0.4, -0.6)
    names = [f'level {i}' for i in range(pyramid.num_levels)]
    axes.set_yticks(range(pyramid.num_levels), names, fontsize=8)
    axes.set_xlabel('size in the image, sqrt(box area), original px', fontsize=9)


def _draw_network_sizes(axes: Axes, shown: list[NDArray], pyramid: ScalePyramid) -> None:
    chip = pyramid.chip_size
    limits = size_limits(np.concatenate(shown), [chip * GOOD_SIZE_RANGE[0], chip])
    good = tuple(bound * chip for bound in GOOD_SIZE_RANGE)
    axes.axvspan(*good, color='#eaf6ea', zorder=0)
    style: dict[str, Any] = {'fontsize': 8, 'va': 'top', 'transform': axes.get_xaxis_transform()}
    text = f' seen well: {good[0]:g} to {good[1]:g} px, smaller too at level 0'
    axes.text(good[0], 0.98, text, color='#3b7a3b', **style)
    axes.axvline(chip, color='#666666', linewidth=1, linestyle='--')
    axes.text(chip, 0.98, f'a chip: {chip} px ', ha='right', color='#666666', **style)
    for level, sizes in enumerate(shown):
        colour = level_colour(level)
        for style in ({'histtype': 'stepfilled', 'alpha': 0.25}, {'histtype': 'step', 'lw': 1.6}):
            _draw_histogram(axes, sizes, limits, color=colour, **style)
    _prepare(axes, limits)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)  # room for the texts
    axes.set_xlabel('size that the network sees, network px', fontsize=9)
    axes.set_ylabel("of the level's boxes", fontsize=8)


def size_limits(sizes: NDArray, bounds: list[float]) -> tuple[float, float]:
    """What a log axis shows: all sizes and finite bounds, with a margin.

    Args:
        sizes (np.ndarray): Sizes, px.
        bounds (list[float]): Ends of ranges; 0 and infinity do not count.
    """
    values = [*sizes[sizes > 0], *(bound for bound in bounds if 0 < bound < math.inf)]
    lo, hi = min(values, default=1.0), max(values, default=100.0)
    margin = max(1.15, 2 * math.sqrt(lo / hi))  # at least a factor of 4, for two ticks
    return lo / margin, hi * margin


def size_ticks(limits: tuple[float, float]) -> NDArray[np.float64]:
    """The powers of two on an axis: a level of twice the scale moves sizes by one tick."""
    first, last = math.ceil(math.log2(limits[0])), math.floor(math.log2(limits[1]))
    return 2.0 ** np.arange(first, last + 1, dtype=np.float64)


def _draw_histogram(axes: Axes, sizes: NDArray, limits: tuple[float, float], **style: Any) -> None:
    """Draw bars that add up to 1."""
    weights = np.full(len(sizes), 1 / max(len(sizes), 1))
    axes.hist(sizes, np.geomspace(*limits, BINS + 1).tolist(), weights=weights, **style)


def _prepare(axes: Axes, limits: tuple[float, float]) -> None:
    axes.set_xscale('log')
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(FixedLocator(size_ticks(limits).tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter('{x:g}')
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:g}%')
    axes.tick_params(labelsize=8)
    axes.grid(axis='x', color='#e6e6e6', linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
