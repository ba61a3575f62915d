"""Pictures of chips: where they lie on the image, and what the network sees of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips import NEGATIVE, POSITIVE, ScalePyramid
from mmsniper.chips.rotated_boxes import enclosing_boxes, rectangle_sides
from mmsniper.visualization.figure import (
    BAD,
    DPI,
    GOOD,
    IGNORED,
    MISSED,
    as_boxes,
    as_mask,
    check_levels,
    draw_boxes,
    draw_dots,
    draw_legend,
    draw_tags,
    legend_dots,
    legend_entry,
    level_colour,
    new_figure,
    place_axes,
    show_image,
)
from mmsniper.visualization.picture import check_image, picture_limits

VALID, INVALID, CROWD, PROPOSAL = 0, 1, 2, 3
"""What a box is to a chip: learned, invalid at its level, or a region to leave alone; and what the
RPN proposed there."""

# Drawn in this order: colour, dashes, line width in points, name.
_STATES = (
    (PROPOSAL, MISSED, False, 0.8, 'proposed'),
    (VALID, GOOD, False, 1.5, 'valid'),
    (INVALID, BAD, True, 1.5, 'invalid'),
    (CROWD, IGNORED, True, 1.5, 'ignored'),
)
_ROWS = 3
_CELL = 2.4  # inches, of one chip
_EPS = 1e-3  # original px; chips are planned in float32
_SMALL, _LARGE = 200, 1024  # figure px: smaller chips are enlarged, larger inputs are shrunk


@dataclass(frozen=True, eq=False)
class ChipView:
    """A chip as the network sees it.

    Args:
        image (np.ndarray): (h, w) or (h, w, bands), see :func:`as_picture`, at most chip_size a
            side.
        boxes (np.ndarray): (n, 4) xyxy in chip pixels, or (n, 8) corners of rotated ones.
        states (np.ndarray): (n,) ``VALID``, ``INVALID``, ``CROWD`` or ``PROPOSAL`` of each box.
        level (int): Pyramid level, 0 is the finest.
        scale (float): Chip pixels per original pixel.
        names (Sequence[str]): Class name of each box. Defaults to none.
        kind (int): ``mmsniper.chips.POSITIVE`` or ``NEGATIVE``. Defaults to positive.
    """

    image: NDArray
    boxes: NDArray
    states: NDArray
    level: int
    scale: float
    names: Sequence[str] = ()
    kind: int = POSITIVE


def boxes_in_chips(
    boxes: ArrayLike,
    chips: ArrayLike,
    levels: ArrayLike,
    pyramid: ScalePyramid,
    image_size: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which boxes lie whole in a chip of a level where they are valid (SNIPER section 3).

    Args:
        boxes (np.ndarray): (n, 4) xyxy, original px, or (n, 8) corners of rotated ones.
        chips (np.ndarray): (m, 4) xyxy, original px.
        levels (np.ndarray): (m,) level of each chip.
        pyramid (ScalePyramid): The pyramid.
        image_size (tuple[int, int]): Original (width, height).

    Returns:
        np.ndarray: (n,) bool.
    """
    boxes, chips = as_boxes(boxes, 'boxes', rotated=True), as_boxes(chips, 'chips')
    (width, height), sizes = image_size, None
    if boxes.shape[1] == 8:
        sizes = np.sqrt(rectangle_sides(boxes).prod(axis=1))
        boxes = enclosing_boxes(boxes)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    valid, _ = pyramid.valid_and_fits(boxes, width, height, sizes)
    inside = (
        (boxes[:, None, :2] >= chips[:, :2] - _EPS) & (boxes[:, None, 2:] <= chips[:, 2:] + _EPS)
    ).all(axis=2)
    return np.any(inside & valid[:, np.asarray(levels, int)], axis=1)


def draw_chips(
    image: NDArray,
    boxes: ArrayLike,
    chips: ArrayLike,
    levels: ArrayLike,
    pyramid: Any,
    *,
    kinds: ArrayLike | None = None,
    ignored: ArrayLike | None = None,
    proposals: ArrayLike | None = None,
    proposal_levels: ArrayLike = (),
    views: Sequence[ChipView] = (),
    max_views: int = 12,
    title: str = '',
) -> Figure:
    """Draw an image with its boxes and chips, and beside it the chips themselves.

    On the image a box is green if it lies whole in a chip of a level where it is valid, dashed red
    if it is learned nowhere, grey if it is ignored. In a chip it is green if it is valid there,
    dashed red if not. A positive chip has its level's colour; a negative chip is dashed red, with
    its level on a tag. Proposals are dots at their centres, in their level's colour, the larger the
    coarser the level. What is black and white in the image is so in its chips.

    Args:
        image (np.ndarray): (h, w) or (h, w, bands), see :func:`as_picture`; the whole image.
        boxes (np.ndarray): (n, 4) xyxy, original px, clipped to the image; or (n, 8) corners of
            rotated ones.
        chips (np.ndarray): (m, 4) xyxy, original px.
        levels (np.ndarray): (m,) level of each chip.
        pyramid (ScalePyramid | dict): The pyramid.
        kinds (np.ndarray, optional): (m,) ``mmsniper.chips.POSITIVE`` or ``NEGATIVE``. Defaults to
            None: all are positive, and the legend leaves negative chips out.
        ignored (np.ndarray, optional): (n,) bool, boxes that are crowd or difficult. Defaults to
            None, which is none.
        proposals (np.ndarray, optional): (k, 4) xyxy, original px, proposals that no positive chip
            encloses. Defaults to None: the legend leaves them out.
        proposal_levels (np.ndarray): (k,) level at which no chip encloses it; a proposal occurs
            once for each such level. Defaults to ().
        views (Sequence[ChipView]): The chips as the network sees them. Defaults to ().
        max_views (int): Draw at most this many views, spread over the levels, and half of them of
            negative chips if there are so many. Defaults to 12.
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
    boxes, chips = as_boxes(boxes, 'boxes', rotated=True), as_boxes(chips, 'chips')
    levels = _check_levels(levels, len(chips), pyramid, 'chips')
    ignored = as_mask(ignored, len(boxes), 'ignored')
    height, width = image.shape[:2]
    if boxes.shape[1] == 4:
        boxes = np.clip(boxes, 0, [width, height, width, height])
    learned = boxes_in_chips(boxes, chips, levels, pyramid, (width, height)) & ~ignored
    negative = _are_negative(kinds, len(chips))

    shown = _choose(views, max_views)
    figure, main, cells = _layout(width / height, len(shown), pyramid.num_levels)
    limits = picture_limits(image)
    show_image(main, image, limits=limits)
    what = 'chips' if kinds is None else 'positive chips'
    entries = _draw_positives(main, chips[~negative], levels[~negative], pyramid, what)
    if kinds is not None:
        entries.append(_draw_negatives(main, chips[negative], levels[negative], pyramid))
    if proposals is not None:
        proposals = as_boxes(proposals, 'proposals')
        proposal_levels = _check_levels(proposal_levels, len(proposals), pyramid, 'proposals')
        entries.append(_draw_proposals(main, proposals, proposal_levels, pyramid))
    for mask, colour, dashed, label in (
        (learned, GOOD, False, 'valid in a chip'),
        (~learned & ~ignored, BAD, True, 'in no chip'),
        (ignored, IGNORED, True, 'ignored'),
    ):
        draw_boxes(main, boxes[mask], colour, dashed=dashed)
        if mask.any():
            entries.append(legend_entry(colour, f'{label}: {mask.sum()}', dashed))
    draw_legend(figure, entries, _ENTRY)
    for cell, view in zip(cells, shown, strict=True):
        _draw_view(cell, view, pyramid.chip_size, limits)
    more = f' ({len(shown)} of {len(views)} chips shown)' if len(shown) < len(views) else ''
    if title or more:
        main.set_title(title + more, fontsize=10, loc='left')
    return figure


def draw_chip_views(views: Sequence[ChipView]) -> Figure:
    """Draw chips side by side, pixel by pixel as the network sees them.

    A pixel of a chip is one of the figure, or several where chips are small. Boxes are green if
    they are valid, dashed red if not, grey if they are to be ignored; proposals are thin and
    yellow.

    Args:
        views (Sequence[ChipView]): At least one chip.

    Returns:
        Figure: For :func:`save_figure` or :func:`figure_pixels`.

    Raises:
        ValueError: If there is no chip, or an array has another shape than it should.
    """
    if not views:
        raise ValueError('there is no chip to draw')
    for view in views:
        check_image(view.image)
    side = max(max(view.image.shape[:2]) for view in views)
    # Whole pixels, so that none is resampled.
    cell = min(side * math.ceil(_SMALL / side), _LARGE)
    columns = math.ceil(math.sqrt(len(views)))
    rows = math.ceil(len(views) / columns)
    margin, gap, legend = (round(DPI * inches) for inches in (_MARGIN / 2, 0.2, 0.3))
    wide, tall = columns * (cell + margin) + margin, rows * (cell + gap) + legend
    # A little more: what matplotlib makes of it is cut to whole pixels.
    figure = new_figure((wide + 0.01) / DPI, (tall + 0.01) / DPI)
    for i, view in enumerate(views):
        row, column = divmod(i, columns)
        left, bottom = margin + column * (cell + margin), legend + (rows - 1 - row) * (cell + gap)
        axes = place_axes(figure, left / DPI, bottom / DPI, cell / DPI, cell / DPI)
        _draw_view(axes, view, side, picture_limits(view.image))
    found = set(np.concatenate([np.asarray(view.states, int) for view in views]).tolist())
    entries = [
        legend_entry(colour, label, dashed)
        for state, colour, dashed, _, label in _STATES
        if state in found
    ]
    if entries:
        draw_legend(figure, entries, width=0.8)
    return figure


def _check_levels(
    levels: ArrayLike, count: int, pyramid: ScalePyramid, what: str
) -> NDArray[np.int64]:
    levels = np.asarray(levels, int).reshape(-1)
    if len(levels) != count:
        raise ValueError(f'{count} {what} need as many levels, got {len(levels)}')
    check_levels(levels, pyramid.num_levels)
    return levels


def _are_negative(kinds: ArrayLike | None, count: int) -> NDArray[np.bool_]:
    kinds = np.full(count, POSITIVE) if kinds is None else np.asarray(kinds, int).reshape(-1)
    if len(kinds) != count or not np.isin(kinds, (POSITIVE, NEGATIVE)).all():
        raise ValueError(
            f'kinds must be POSITIVE ({POSITIVE}) or NEGATIVE ({NEGATIVE}) for each '
            f'of {count} chips, got {kinds.tolist()}'
        )
    return kinds == NEGATIVE


def _choose(views: Sequence[ChipView], limit: int) -> list[ChipView]:
    """At most ``limit`` views, positive before negative, fine to coarse, evenly of each kind."""
    positive, negative = (
        sorted((view for view in views if view.kind == kind), key=lambda view: view.level)
        for kind in (POSITIVE, NEGATIVE)
    )
    few = _evenly(negative, max(limit // 2, limit - len(positive)))
    return _evenly(positive, limit - len(few)) + few


def _evenly(views: Sequence[ChipView], limit: int) -> list[ChipView]:
    return [views[i] for i in np.linspace(0, len(views) - 1, min(limit, len(views))).astype(int)]


_TOP, _BOTTOM, _MARGIN = 0.35, 0.75, 0.15  # inches, around the image
_ENTRY, _LINE = 2.6, 0.17  # inches, of an entry of the legend


def _layout(aspect: float, views: int, num_levels: int) -> tuple[Figure, Axes, list[Axes]]:
    """A figure with room for the image of the given aspect, ``views`` chips and the legend."""
    columns, tall = math.ceil(views / _ROWS), _ROWS * _CELL
    wide = float(np.clip(tall * aspect, 3.5, 11.0))
    total = wide + 2 * _MARGIN + columns * _CELL + (_MARGIN if columns else 0)
    # Beside the levels: boxes of three kinds, negative chips and proposals.
    lines = math.ceil((num_levels + 5) / max(int(total / _ENTRY), 1))
    bottom = max(_BOTTOM, lines * _LINE + _MARGIN)
    figure = new_figure(total, tall + _TOP + bottom)
    main = place_axes(figure, _MARGIN, bottom, wide, tall)
    main.set_anchor('N')
    side, first = _CELL - 0.3, total - _MARGIN - columns * _CELL + 0.15
    cells = []
    for i in range(views):
        column, row = divmod(i, _ROWS)
        above = bottom + (_ROWS - 1 - row) * _CELL
        cells.append(place_axes(figure, first + column * _CELL, above, side, side))
    return figure, main, cells


def _draw_positives(
    axes: Axes, chips: NDArray, levels: NDArray, pyramid: ScalePyramid, what: str
) -> list[Artist]:
    scales = pyramid.scales(int(axes.get_xlim()[1]), int(axes.get_ylim()[0]))
    entries: list[Artist] = []
    for level, (low, high) in enumerate(pyramid.ranges()):
        mine = levels == level
        draw_boxes(axes, chips[mine], level_colour(level), width=2.2, fill=0.06)
        sizes = f'[{low:g}, {high:g})' if math.isfinite(high) else f'{low:g} and more'
        label = f'level {level}, ×{scales[level]:.2g}: {mine.sum()} {what}, sizes {sizes}'
        entries.append(legend_entry(level_colour(level), label))
    return entries


def _draw_negatives(axes: Axes, chips: NDArray, levels: NDArray, pyramid: ScalePyramid) -> Artist:
    draw_boxes(axes, chips, BAD, dashed=True, width=2.2, fill=0.06)
    draw_tags(axes, chips, [f'level {i}' for i in levels], list(map(level_colour, levels)))
    return legend_entry(BAD, f'negative chips: {_per_level(levels, pyramid)}', True, fill=0.06)


def _draw_proposals(
    axes: Axes, proposals: NDArray, levels: NDArray, pyramid: ScalePyramid
) -> Artist:
    # Fine above coarse: one that is valid at two levels shows as a dot in a ring.
    order = np.argsort(-levels, kind='stable')
    proposals, levels = proposals[order], levels[order]
    centres = (proposals[:, :2] + proposals[:, 2:]) / 2
    colours = list(map(level_colour, range(pyramid.num_levels)))
    draw_dots(axes, centres, [colours[level] for level in levels], 3 + 2.5 * levels)
    return legend_dots(colours, f'uncovered proposals: {_per_level(levels, pyramid)}')


def _per_level(levels: NDArray, pyramid: ScalePyramid) -> str:
    """How many there are, and how many of each level, fine to coarse: 5 (3/2/0)."""
    counts = np.bincount(levels, minlength=pyramid.num_levels)
    return f'{len(levels)} ({"/".join(map(str, counts))})'


def _draw_view(axes: Axes, view: ChipView, chip_size: int, limits: tuple[float, float]) -> None:
    check_image(view.image)
    boxes, states = as_boxes(view.boxes, 'boxes of a chip', rotated=True), np.asarray(view.states)
    negative = view.kind == NEGATIVE
    colour = BAD if negative else level_colour(view.level)
    show_image(axes, view.image, limits=limits)
    height, width = np.maximum(chip_size, view.image.shape[:2])
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_facecolor('#404040')  # the padding of an image smaller than a chip
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=2.5, linestyle='--' if negative else '-')
    counts = []
    for state, colour, dashed, line, label in _STATES:
        chosen = np.flatnonzero(states == state)
        # The names of invalid boxes, often tiny and many, would hide the picture.
        named = state == VALID and len(view.names) > 0
        names = [view.names[i] for i in chosen.tolist()] if named else []
        draw_boxes(axes, boxes[chosen], colour, dashed=dashed, width=line, names=names)
        counts += [f'{len(chosen)} {label}'] if len(chosen) else []
    title = f'level {view.level}, ×{view.scale:.2g}: {", ".join(counts) or "no boxes"}'
    title = f'negative, {title}' if negative else title
    cell = axes.bbox.width * 72 / axes.figure.dpi  # points, than which it is not wider
    axes.set_title(title, fontsize=min(7.5, 2.215 * cell / len(title)), pad=3)
