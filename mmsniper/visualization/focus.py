"""Pictures of coarse-to-fine inference: where each level has looked, and what it has found."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.focus import FocusMap
from mmsniper.visualization.figure import (
    as_boxes,
    check_levels,
    draw_boxes,
    draw_legend,
    legend_entry,
    level_colour,
    new_figure,
    place_axes,
    show_image,
)
from mmsniper.visualization.picture import as_picture, check_image

NOT_SEEN = -1.0
"""Value of :func:`focus_heat` where no map says anything."""

_MAX_SIDE = 800  # px, of a panel's image: there are eight of them for three levels
_HEAT = matplotlib.colormaps['inferno']
_DIMMED = 0.3  # brightness of what a level has not seen

_LONG, _MARGIN, _TITLE, _BOTTOM = 3.4, 0.1, 0.25, 0.45  # inches: longer side of a panel, margins
_SHORT = 1.6  # inches, of a panel's shorter side: room for the titles


def draw_focus(
    image: NDArray,
    chips: Sequence[ArrayLike],
    maps: Sequence[Sequence[FocusMap]],
    boxes: ArrayLike,
    levels: ArrayLike,
    scores: ArrayLike,
    *,
    size: tuple[int, int] | None = None,
    thresholds: Sequence[float] | None = None,
    score_thr: float = 0.3,
    title: str = '',
) -> Figure:
    """Draw how AutoFocus went through an image, coarse to fine (AutoFocus, figure 2).

    The first column is the image, and under it the detections of all levels. Each further column
    is a level, the coarsest first, with what it has not seen darkened: above, its FocusPixels as
    heat and the FocusChips that they make for the next level, in that level's colour; below, its
    own detections.

    Args:
        image (np.ndarray): (h, w) or (h, w, bands), see :func:`as_picture`; the whole image,
            reduced or not.
        chips (Sequence[np.ndarray]): For each level, fine to coarse, what it has seen, (n, 4) xyxy,
            original px.
        maps (Sequence[Sequence[FocusMap]]): For each level, fine to coarse, its FocusPixel maps.
            Those of the finest level, which nothing follows, are not drawn.
        boxes (np.ndarray): (n, 4) xyxy, original px.
        levels (np.ndarray): (n,) level of each detection.
        scores (np.ndarray): (n,).
        size (tuple[int, int], optional): Original (width, height). Defaults to None, that of
            ``image``.
        thresholds (Sequence[float], optional): Minimum probability of a FocusPixel for each step,
            coarse to fine; cells below are drawn fainter. Defaults to None: 0.5 for all.
        score_thr (float): Detections below are not drawn. Defaults to 0.3.
        title (str): Above the picture. Defaults to ''.

    Returns:
        Figure: For :func:`save_figure`.

    Raises:
        ValueError: If an array has another shape than it should, or there are not as many levels
            of one thing as of the other.

    Example:
        >>> meta, found = result.metainfo, result.pred_instances.numpy()
        >>> figure = draw_focus(image, meta['focus_chips'], meta['focus_maps'], found.bboxes,
        ...                     found.levels, found.scores, thresholds=model.thresholds)
        >>> save_figure(figure, 'focus.png')
    """
    check_image(image)
    height, width = image.shape[:2]
    size = (width, height) if size is None else size
    image = as_picture(image, _MAX_SIDE)  # once, instead of in each of the panels
    seen_chips = [as_boxes(some, 'chips') for some in chips]
    thresholds = [0.5] * (len(chips) - 1) if thresholds is None else thresholds
    if not len(chips) == len(maps) == len(thresholds) + 1:
        raise ValueError(
            f'chips and maps are given for each level, and a threshold for each step from one '
            f'level to the next; got chips of {len(chips)} levels, maps of {len(maps)}, '
            f'{len(thresholds)} thresholds'
        )
    boxes, levels = _kept(boxes, levels, scores, score_thr, len(chips))

    figure, panels = _layout(size[0] / size[1], len(chips) + 1, title)
    to_panel = np.tile(np.array(image.shape[1::-1]) / size, 2)
    show_image(panels[0][0], image, 'image')
    show_image(panels[0][1], image, f'all levels: {_count(len(boxes), "detection")}')
    for level, (above, below) in zip(reversed(range(len(chips))), panels[1:]):
        seen = _seen(image, seen_chips[level] * to_panel)
        show_image(above, seen, f'level {level} sees {_share(seen_chips[level], size)}')
        if level:
            heat = focus_heat(maps[level], image.shape[:2], size)
            _overlay(above, heat, thresholds[len(chips) - 1 - level])
            draw_boxes(above, seen_chips[level - 1] * to_panel, level_colour(level - 1))
        mine = boxes[levels == level] * to_panel
        show_image(below, seen, f'level {level}: {_count(len(mine), "detection")}')
        for axes in (panels[0][1], below):
            draw_boxes(axes, mine, level_colour(level), width=1.2)
    entries = []
    for level in reversed(range(len(chips))):
        more = ' and FocusChips' if level < len(chips) - 1 else ''
        entries.append(legend_entry(level_colour(level), f'level {level}: its detections{more}'))
    if len(chips) > 1:
        bright = matplotlib.colors.to_hex(_HEAT(0.95))
        entries.append(legend_entry(bright, 'FocusPixels, the brighter the likelier', fill=1))
    draw_legend(figure, entries)
    return figure


def focus_heat(
    maps: Sequence[FocusMap], shape: tuple[int, ...], size: tuple[int, int]
) -> NDArray[np.float64]:
    """FocusPixel maps of an image in one array.

    Args:
        maps (Sequence[FocusMap]): The maps, in original px.
        shape (tuple[int, ...]): Rows and columns of the array, which shows the whole image.
        size (tuple[int, int]): Original (width, height).

    Returns:
        np.ndarray: ``shape``; the greatest probability of the cells that hold the centre of a
        pixel, ``NOT_SEEN`` where there is none.
    """
    heat = np.full(shape, NOT_SEEN)
    xs, ys = ((np.arange(count) + 0.5) * side / count for count, side in zip(shape[::-1], size))
    for focus in maps:
        x1, y1, x2, y2 = focus.box
        cell_w, cell_h = np.broadcast_to(focus.cell, 2)
        num_rows, num_columns = focus.probability.shape
        columns, column = _cells(xs, x1, x2, cell_w, num_columns)
        rows, row = _cells(ys, y1, y2, cell_h, num_rows)
        part = heat[rows, columns]
        np.maximum(part, focus.probability[np.ix_(row, column)], out=part)
    return heat


def _cells(
    centres: NDArray, low: float, high: float, cell: float, count: int
) -> tuple[slice, NDArray[np.int64]]:
    """Which of ascending coordinates are in a window, and in which of its cells each is."""
    inside = slice(*np.searchsorted(centres, [low, min(high, low + count * cell)]))
    return inside, np.minimum((centres[inside] - low) // cell, count - 1).astype(int)


def _kept(
    boxes: ArrayLike, levels: ArrayLike, scores: ArrayLike, score_thr: float, num_levels: int
) -> tuple[NDArray, NDArray]:
    boxes = as_boxes(boxes, 'boxes')
    levels, scores = np.asarray(levels, int).reshape(-1), np.asarray(scores).reshape(-1)
    if not len(boxes) == len(levels) == len(scores):
        raise ValueError(
            f'{len(boxes)} boxes need as many levels and scores, got {len(levels)} '
            f'and {len(scores)}'
        )
    check_levels(levels, num_levels)
    return boxes[scores >= score_thr], levels[scores >= score_thr]


def _seen(image: NDArray[np.uint8], chips: NDArray) -> NDArray[np.uint8]:
    """The image, darkened outside of the chips, which are in its pixels."""
    dark = (image * _DIMMED).astype(np.uint8)
    for (x1, y1), (x2, y2) in np.round(chips).astype(int).reshape(-1, 2, 2):
        dark[y1:y2, x1:x2] = image[y1:y2, x1:x2]
    return dark


def _overlay(axes: Axes, heat: NDArray[np.float64], threshold: float) -> None:
    colours = _HEAT(np.clip(heat, 0, 1))
    strength = np.where(heat >= threshold, 0.35 + 0.4 * heat, 0.4 * heat)
    colours[..., 3] = np.where(heat == NOT_SEEN, 0, strength).clip(0, 1)
    height, width = heat.shape
    axes.imshow(colours, extent=(0, width, height, 0), interpolation='nearest')


def _share(chips: NDArray, size: tuple[int, int]) -> str:
    share = (chips[:, 2:] - chips[:, :2]).prod(axis=1).sum() / np.prod(size, dtype=float)
    return f'{_count(len(chips), "chip")}, {share:.0%} of the image'


def _count(number: int, what: str) -> str:
    return f'{number} {what}' if number == 1 else f'{number} {what}s'


def _layout(aspect: float, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    """A figure, and for each column its upper and its lower panel for images of an aspect."""
    wide = max(_LONG * min(aspect, 1), _SHORT)
    tall = max(_LONG / max(aspect, 1), _SHORT)
    step, high = wide + _MARGIN, _BOTTOM + 2 * (tall + _TITLE) + (_TITLE if title else 0)
    figure = new_figure(columns * step + _MARGIN, high)
    if title:
        left = _MARGIN / figure.get_figwidth()
        figure.text(left, 1 - 0.05 / high, title, fontsize=10, va='top')
    bottoms = (_BOTTOM + tall + _TITLE, _BOTTOM)
    return figure, [
        [place_axes(figure, _MARGIN + i * step, bottom, wide, tall) for bottom in bottoms]
        for i in range(columns)
    ]


def draw_focus_curve(
    pixels: Sequence[float], scores: Sequence[float], names: Sequence[str], metric: str
) -> Figure:
    """Draw what accuracy costs which pixels (AutoFocus, figure 5).

    Args:
        pixels (Sequence[float]): Pixels seen of an image, of each setting.
        scores (Sequence[float]): The metric of each.
        names (Sequence[str]): What to write at each.
        metric (str): Name of the metric.

    Returns:
        Figure: Settings as dots, joined in the order of their pixels.
    """
    figure = new_figure(6, 4.2)
    axes = figure.add_subplot()
    order = np.argsort(pixels)
    million = np.asarray(pixels, np.float64)[order] / 1e6
    axes.plot(million, np.asarray(scores)[order], 'o-', color=level_colour(1))
    for x, i in zip(million, order):
        point = (x, scores[i])
        axes.annotate(names[i], point, (5, -11), textcoords='offset points', fontsize=8)
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('{x:g}')
    axes.set_xlabel('million pixels seen of an image; at the dots: thresholds')
    axes.set_ylabel(metric)
    axes.grid(True, which='both', color='#eeeeee')
    axes.set_axisbelow(True)
    figure.tight_layout()
    return figure
