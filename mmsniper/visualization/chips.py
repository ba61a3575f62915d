"""Pictures of chips: where they lie on the image, and what the network sees of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips import ScalePyramid

from .figure import (
    BAD,
    GOOD,
    IGNORED,
    as_boxes,
    check_image,
    draw_boxes,
    draw_legend,
    legend_entry,
    level_colour,
    new_figure,
    show_image,
)

VALID, INVALID, CROWD = 0, 1, 2
"""What a box is to a chip: learned, invalid at its level, or a region to leave alone."""

_STATES = ((VALID, GOOD, False, 'valid'), (INVALID, BAD, True, 'invalid'),
           (CROWD, IGNORED, True, 'ignored'))
_ROWS = 3
_CELL = 2.4  # inches, of one chip
_EPS = 1e-3  # original px; chips are planned in float32


@dataclass(frozen=True, eq=False)
class ChipView:
    """A chip as the network sees it.

    Args:
        image (np.ndarray): (h, w, 3) uint8 BGR, at most chip_size a side.
        boxes (np.ndarray): (n, 4) xyxy in chip pixels.
        states (np.ndarray): (n,) ``VALID``, ``INVALID`` or ``CROWD`` of each box.
        level (int): Pyramid level, 0 is the finest.
        scale (float): Chip pixels per original pixel.
        names (Sequence[str]): Class name of each box. Defaults to none.
    """

    image: NDArray[np.uint8]
    boxes: NDArray
    states: NDArray
    level: int
    scale: float
    names: Sequence[str] = ()


def boxes_in_chips(boxes: ArrayLike, chips: ArrayLike, levels: ArrayLike, pyramid: ScalePyramid,
                   image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes lie whole in a chip of a level where they are valid (SNIPER section 3).

    Args:
        boxes (np.ndarray): (n, 4) xyxy, original px.
        chips (np.ndarray): (m, 4) xyxy, original px.
        levels (np.ndarray): (m,) level of each chip.
        pyramid (ScalePyramid): The pyramid.
        image_size (tuple[int, int]): Original (width, height).

    Returns:
        np.ndarray: (n,) bool.
    """
    boxes, chips = as_boxes(boxes, 'boxes'), as_boxes(chips, 'chips')
    valid, _ = pyramid.valid_and_fits(boxes, *image_size)
    inside = ((boxes[:, None, :2] >= chips[:, :2] - _EPS)
              & (boxes[:, None, 2:] <= chips[:, 2:] + _EPS)).all(axis=2)
    return (inside & valid[:, np.asarray(levels, int)]).any(axis=1)


def draw_chips(image: NDArray[np.uint8], boxes: ArrayLike, chips: ArrayLike, levels: ArrayLike,
               pyramid: Any, *, ignored: ArrayLike | None = None, views: Sequence[ChipView] = (),
               max_views: int = 12, title: str = '') -> Figure:
    """Draw an image with its boxes and chips, and beside it the chips themselves.

    On the image a box is green if it lies whole in a chip of a level where it is valid, dashed red
    if it is learned nowhere, grey if it is ignored. In a chip it is green if it is valid there,
    dashed red if not.

    Args:
        image (np.ndarray): (h, w, 3) uint8 BGR, the whole image.
        boxes (np.ndarray): (n, 4) xyxy, original px; clipped to the image.
        chips (np.ndarray): (m, 4) xyxy, original px.
        levels (np.ndarray): (m,) level of each chip.
        pyramid (ScalePyramid | dict): The pyramid.
        ignored (np.ndarray, optional): (n,) bool, boxes that are crowd or difficult. Defaults to
            None, which is none.
        views (Sequence[ChipView]): The chips as the network sees them. Defaults to none.
        max_views (int): Draw at most this many views, spread over the levels. Defaults to 12.
        title (str): Above the picture. Defaults to ''.

    Returns:
        Figure: For :func:`save_figure`.

    Raises:
        ValueError: If an array has another shape than it should, or a level is not the pyramid's.

    Example:
        >>> plan = plan_positive_chips(table, pyramid)
        >>> figure = draw_chips(image, boxes, plan.box, plan.level, pyramid)
        >>> save_figure(figure, 'chips.png')
    """
    check_image(image)
    pyramid = ScalePyramid.from_config(pyramid)
    boxes, chips = as_boxes(boxes, 'boxes'), as_boxes(chips, 'chips')
    levels = _check_levels(levels, len(chips), pyramid)
    ignored = np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool)
    if ignored.shape != (len(boxes),):
        raise ValueError(f'ignored must have one value for each of {len(boxes)} boxes, got the '
                         f'shape {ignored.shape}')
    height, width = image.shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    shown = _choose(views, max_views)
    columns = math.ceil(len(shown) / _ROWS)
    figure, main = _layout(width / height, columns)
    show_image(main, image)
    _draw_plan(main, boxes, ignored, chips, levels, pyramid)
    for i, view in enumerate(shown):
        _draw_view(_cell(figure, i, columns), view, pyramid.chip_size)
    more = f' ({len(shown)} of {len(views)} chips shown)' if len(shown) < len(views) else ''
    if title or more:
        main.set_title(title + more, fontsize=10, loc='left')
    return figure


def _check_levels(levels: ArrayLike, count: int, pyramid: ScalePyramid) -> NDArray[np.int64]:
    levels = np.asarray(levels, int).reshape(-1)
    if len(levels) != count:
        raise ValueError(f'{count} chips need as many levels, got {len(levels)}')
    if count and not (0 <= levels.min() <= levels.max() < pyramid.num_levels):
        raise ValueError(f'levels must be in 0..{pyramid.num_levels - 1}, got '
                         f'{sorted(set(levels.tolist()))}')
    return levels


def _choose(views: Sequence[ChipView], limit: int) -> list[ChipView]:
    """At most ``limit`` views, fine to coarse, taken evenly from that order."""
    ordered = sorted(views, key=lambda view: view.level)
    if len(ordered) <= limit:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, limit).astype(int)]


_TOP, _BOTTOM, _MARGIN = 0.35, 0.75, 0.15  # inches, around the image


def _layout(aspect: float, columns: int) -> tuple[Figure, Axes]:
    """A figure with room for the image of the given aspect and ``columns`` columns of chips."""
    tall = _ROWS * _CELL
    wide = float(np.clip(tall * aspect, 3.5, 11.0))
    total = wide + 2 * _MARGIN + columns * _CELL + (_MARGIN if columns else 0)
    high = tall + _TOP + _BOTTOM
    figure = new_figure(total, high)
    main = figure.add_axes((_MARGIN / total, _BOTTOM / high, wide / total, tall / high))
    main.set_anchor('N')
    return figure, main


def _cell(figure: Figure, index: int, columns: int) -> Axes:
    """Axes of the ``index``-th chip, column by column from the top left."""
    total, high = figure.get_size_inches()
    column, row = divmod(index, _ROWS)
    left = total - _MARGIN - (columns - column) * _CELL
    bottom = _BOTTOM + (_ROWS - 1 - row) * _CELL
    side = _CELL - 0.3
    return figure.add_axes(((left + 0.15) / total, bottom / high, side / total, side / high))


def _draw_plan(axes: Axes, boxes: NDArray, ignored: NDArray, chips: NDArray, levels: NDArray,
               pyramid: ScalePyramid) -> None:
    width, height = int(axes.get_xlim()[1]), int(axes.get_ylim()[0])
    learned = boxes_in_chips(boxes, chips, levels, pyramid, (width, height)) & ~ignored
    entries = []
    for level, (low, high) in enumerate(pyramid.ranges()):
        mine = levels == level
        draw_boxes(axes, chips[mine], level_colour(level), width=2.2, fill=0.06)
        sizes = f'[{low:g}, {high:g})' if math.isfinite(high) else f'{low:g} and more'
        scale = pyramid.scales(width, height)[level]
        entries.append(legend_entry(
            level_colour(level), f'level {level}, ×{scale:.2g}: {mine.sum()} chips, sizes {sizes}'))
    for mask, colour, dashed, label in ((learned, GOOD, False, 'valid in a chip'),
                                        (~learned & ~ignored, BAD, True, 'in no chip'),
                                        (ignored, IGNORED, True, 'ignored')):
        draw_boxes(axes, boxes[mask], colour, dashed=dashed)
        if mask.any():
            entries.append(legend_entry(colour, f'{label}: {mask.sum()}', dashed))
    draw_legend(axes.figure, entries)


def _draw_view(axes: Axes, view: ChipView, chip_size: int) -> None:
    check_image(view.image)
    boxes, states = as_boxes(view.boxes, 'boxes of a chip'), np.asarray(view.states)
    show_image(axes, view.image)
    axes.set_xlim(0, max(chip_size, view.image.shape[1]))
    axes.set_ylim(max(chip_size, view.image.shape[0]), 0)
    axes.set_facecolor('#404040')  # the padding of an image smaller than a chip
    for spine in axes.spines.values():
        spine.set(edgecolor=level_colour(view.level), linewidth=2.5)
    for state, colour, dashed, _ in _STATES:
        chosen = np.flatnonzero(states == state)
        # The names of invalid boxes, often tiny and many, would hide the picture.
        names = [view.names[i] for i in chosen] if len(view.names) and state == VALID else []
        draw_boxes(axes, boxes[chosen], colour, dashed=dashed, names=names)
    counts = ', '.join(f'{(states == state).sum()} {label}' for state, _, _, label in _STATES
                       if (states == state).any())
    axes.set_title(f'level {view.level}, ×{view.scale:.2g}: {counts or "no boxes"}', fontsize=7.5,
                   pad=3)
