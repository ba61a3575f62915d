"""Contact sheets of false positives: each in its surroundings, with what is truly there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmsniper.utils.coco_matching import (
    ANOTHER_CLASS,
    BACKGROUND,
    BADLY_PLACED,
    FOUND_TWICE,
    NEAR_ANOTHER_CLASS,
)
from mmsniper.visualization.figure import (
    BAD,
    GOOD,
    IGNORED,
    MISSED,
    draw_boxes,
    draw_legend,
    legend_entry,
    new_figure,
    place_axes,
)
from mmsniper.visualization.picture import as_picture, check_image, picture_limits

KIND_COLOURS: Mapping[str, str] = {
    BACKGROUND: '#b3261e',
    BADLY_PLACED: '#b35c00',
    ANOTHER_CLASS: '#6a3fc4',
    NEAR_ANOTHER_CLASS: '#7a6a8e',
    FOUND_TWICE: '#1767a8',
}
"""Colours of the titles."""

FINDER = '#19a7ff'
"""Colour of the detection that has an object found twice."""
_BEYOND = dict(facecolor='#ffffff', hatch='////', edgecolor='#c8c8c8', linewidth=0)
_CONTEXT = 4.0  # the window's side by the detection's size
_ROUND_BOX = 1.25  # at least, by its longer side
_LEAST_WINDOW = 64.0  # original px
_BEYOND_EDGE = 1 / 8  # of a window: enough to show that the image ends there
_PICTURE = 512  # px; more of a window is not kept
_CELL, _TEXT, _GAP = 2.3, 0.42, 0.12  # inches: of a window, of the lines above it, between cells
_TOP, _BOTTOM = 0.35, 0.45


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A part of an image around a detection.

    Attributes:
        window (tuple[float, ...]): What is shown, xyxy, original px; it may reach over the image.
        frame (tuple[int, ...]): The part of the image in it, xyxy, original px.
        picture (np.ndarray): That part, (h, w, 3) uint8 BGR.
    """

    window: tuple[float, float, float, float]
    frame: tuple[int, int, int, int]
    picture: NDArray[np.uint8]


def surroundings(
    image: NDArray, box: NDArray, limits: tuple[float, float] | None = None
) -> Surroundings:
    """Cut out what surrounds a detection: four times its size, at least 64 px, at most the image.

    The detection is in the middle, but for the image's edge.

    Args:
        image (np.ndarray): (h, w) or (h, w, bands), see :func:`as_picture`; the whole image.
        box (np.ndarray): (4,) xyxy, original px.
        limits (tuple[float, float], optional): What is black and white, see
            :func:`picture_limits`. Defaults to None, that of the image.

    Raises:
        ValueError: If the array is no image.
    """
    check_image(image)
    height, width = image.shape[:2]
    sides = np.maximum(box[2:] - box[:2], 0)
    side = max(_CONTEXT * math.sqrt(sides.prod()), _LEAST_WINDOW)
    side = max(min(side, float(max(width, height))), _ROUND_BOX * sides.max())
    x, y = (
        _start((low + high) / 2, side, end)
        for low, high, end in zip(box[:2], box[2:], (width, height), strict=True)
    )
    window = (x, y, x + side, y + side)
    x0, y0 = (max(math.floor(v), 0) for v in window[:2])
    x1, y1 = (min(math.ceil(v), end) for v, end in zip(window[2:], (width, height), strict=True))
    limits = limits or picture_limits(image)
    picture = as_picture(image[y0:y1, x0:x1], _PICTURE, limits)
    return Surroundings(window, (x0, y0, x1, y1), picture)


def _start(middle: float, side: float, end: int) -> float:
    """Where a window starts: around ``middle``, but little of it outside of 0 to ``end``."""
    if side >= end:
        return (end - side) / 2
    beyond = _BEYOND_EDGE * side
    return float(np.clip(middle - side / 2, -beyond, end + beyond - side))


@dataclass(frozen=True, eq=False)
class FalsePositive:
    """A false positive to draw; n objects are near it.

    Attributes:
        where (Surroundings): Its surroundings.
        box (np.ndarray): (4,) xyxy, original px.
        kind (str): One of ``KINDS``.
        title (str): Above it, bold, behind the kind.
        lines (Sequence[str]): Two lines below that.
        objects (np.ndarray): (n, 4) xyxy, original px.
        same_class (np.ndarray): (n,) bool, whether each object is of the detection's class.
        names (Sequence[str]): Class name of each object.
        crowds (np.ndarray): (k, 4) xyxy, original px, crowd regions. Defaults to none.
        finder (np.ndarray): (0 or 1, 4) the detection that has the object. Defaults to none.
    """

    where: Surroundings
    box: NDArray[np.float64]
    kind: str
    title: str
    lines: Sequence[str]
    objects: NDArray[np.float64]
    same_class: NDArray[np.bool_]
    names: Sequence[str]
    crowds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    finder: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))


def draw_false_positives(
    detections: Sequence[FalsePositive], columns: int = 5, title: str = ''
) -> Figure:
    """Draw a contact sheet, row by row.

    A detection is red, and what is truly there is green if it is of the detection's class, dashed
    yellow if not, with its name if the detection overlaps it. Blue is the detection that has an
    object found twice. Crowd regions are grey. What lies beyond the image's edge is hatched.

    Args:
        detections (Sequence[FalsePositive]): What to draw, at least one.
        columns (int): Cells in a row. Defaults to 5.
        title (str): Above the sheet. Defaults to ''.

    Returns:
        Figure: For :func:`save_figure`.
    """
    columns = min(columns, max(len(detections), 3))  # the legend needs room
    rows = math.ceil(len(detections) / columns)
    wide, tall = _CELL + _GAP, _CELL + _TEXT + _GAP
    figure = new_figure(columns * wide + _GAP, rows * tall + _TOP + _BOTTOM)
    width, height = figure.get_size_inches()
    figure.text(_GAP / width, 1 - 0.1 / height, title, fontsize=10, va='top')
    for i, detection in enumerate(detections):
        row, column = divmod(i, columns)
        left, bottom = _GAP + column * wide, height - _TOP - (row + 1) * tall + _GAP
        _draw(place_axes(figure, left, bottom, _CELL, _CELL), detection)
    entries = [legend_entry(BAD, 'false positive')]
    for boxes, colour, dashed, label in (
        ([d.objects[d.same_class] for d in detections], GOOD, False, 'object of its class'),
        ([d.objects[~d.same_class] for d in detections], MISSED, True, 'object of another class'),
        ([d.finder for d in detections], FINDER, False, 'detection that has the object'),
        ([d.crowds for d in detections], IGNORED, True, 'crowd region'),
    ):
        if any(map(len, boxes)):
            entries.append(legend_entry(colour, label, dashed))
    draw_legend(figure, entries, width=1.8)
    return figure


def _draw(axes: Axes, detection: FalsePositive) -> None:
    where = detection.where
    x0, y0, x1, y1 = where.frame
    axes.imshow(where.picture[..., ::-1], extent=(x0, x1, y1, y0), interpolation='bicubic')
    axes.set(xlim=where.window[::2], ylim=where.window[:0:-2], xticks=[], yticks=[])
    axes.patch.set(**_BEYOND)
    colour = KIND_COLOURS[detection.kind]
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=2)
    draw_boxes(axes, detection.crowds, IGNORED, dashed=True, width=1)
    same = detection.same_class
    draw_boxes(axes, detection.objects[same], GOOD, width=1)
    other, texts = detection.objects[~same], np.array(detection.names, object)[~same]
    draw_boxes(axes, other, MISSED, dashed=True, width=1)
    # The names of all would hide the picture.
    named = ((other[:, :2] < detection.box[2:]) & (other[:, 2:] > detection.box[:2])).all(axis=1)
    draw_boxes(axes, other[named], MISSED, dashed=True, width=1, names=texts[named])
    draw_boxes(axes, detection.finder, FINDER, width=1)
    draw_boxes(axes, detection.box[None], BAD, width=1.6)
    style: dict[str, Any] = dict(
        xycoords='axes fraction', textcoords='offset points', annotation_clip=False
    )
    title = f'{detection.kind}: {detection.title}'
    axes.annotate(
        title,
        (0, 1),
        (0, 20),
        fontsize=min(7.5, 250 / len(title)),  # not wider than its cell
        weight='bold',
        color=colour,
        **style,
    )
    for line, above in zip(detection.lines, (11, 3), strict=True):
        axes.annotate(line, (0, 1), (0, above), fontsize=6, **style)
