"""What all pictures share: colours, images of any size, boxes, files.

Figures are matplotlib objects with their own Agg canvas: no pyplot, no global state, no display.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import CircleCollection, PolyCollection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.rotated_boxes import box_corners
from mmsniper.utils.files import replacing
from mmsniper.visualization.picture import MAX_SIDE, as_picture

DPI = 120

GOOD = '#21d95a'
BAD = '#ff4136'
MISSED = '#ffd500'
IGNORED = '#b4b4b4'
LEVEL_COLOURS = ('#ff9f1c', '#19a7ff', '#ff4fa3', '#9b6bff', '#00c2a8', '#c0d72f')
"""Of the levels of a pyramid, fine to coarse; they repeat."""

_PLATE = 8  # points, the height of a line of text beside a box
_RIM = 0.4  # points, around dots
_COVERED = 0.1  # of the picture, by dots


def level_colour(level: int) -> str:
    """Colour of a pyramid level, 0 is the finest."""
    return LEVEL_COLOURS[level % len(LEVEL_COLOURS)]


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of the given size in inches, with a canvas of its own."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def place_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    total, high = figure.get_size_inches()
    return figure.add_axes((left / total, bottom / high, width / total, height / high))


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Save a figure as PNG. The file appears when it is whole; folders are made as needed."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png')


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as an RGB image (h, w, 3)."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def as_boxes(boxes: Any, what: str, rotated: bool = False) -> NDArray[np.float64]:
    """Boxes as (n, 4) float64, xyxy, or if they may be ``rotated`` as (n, 8), corners.

    An empty list is no boxes. ValueError if they have another shape.
    """
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] not in ((4, 8) if rotated else (4,)):
        corners = ', or (n, 8), corners' if rotated else ''
        raise ValueError(f'{what} must have the shape (n, 4), xyxy{corners}; got {array.shape}')
    return array


def one_per_box(values: ArrayLike, count: int, what: str, dtype: Any = None) -> NDArray:
    """Values as (count,). ValueError if there are more or fewer."""
    array = np.asarray(values, dtype).reshape(-1)
    if len(array) != count:
        raise ValueError(f'{what} must have one value for each of {count} boxes, got {len(array)}')
    return array


def as_mask(mask: ArrayLike | None, count: int, what: str) -> NDArray[np.bool_]:
    """A mask as (count,) bool; None is all False."""
    return one_per_box(np.zeros(count) if mask is None else mask, count, what, bool)


def check_levels(levels: NDArray[np.int64], num_levels: int) -> None:
    """Raise ValueError if there is a level that the pyramid does not have."""
    if not np.isin(levels, range(num_levels)).all():
        raise ValueError(f'levels must be in 0..{num_levels - 1}, got {np.unique(levels).tolist()}')


def show_image(
    axes: Axes,
    image: NDArray,
    title: str = '',
    fontsize: int = 8,
    limits: tuple[float, float] | None = None,
) -> None:
    """Show an image by :func:`~mmsniper.visualization.picture.as_picture`, shrunk to ``MAX_SIDE``.

    Data coordinates are its own pixels nonetheless.
    """
    height, width = image.shape[:2]
    axes.imshow(
        as_picture(image, MAX_SIDE, limits)[..., ::-1],
        extent=(0, width, height, 0),
        interpolation='antialiased',
        interpolation_stage='rgba',
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    if title:
        axes.set_title(title, fontsize=fontsize, loc='left', pad=3)
    axes.apply_aspect()  # now, not when it is saved: what is drawn later asks how large it is


def draw_boxes(
    axes: Axes,
    boxes: NDArray,
    colour: str,
    *,
    dashed: bool = False,
    width: float = 1.5,
    names: Sequence[str] | NDArray = (),
    fill: float = 0.0,
) -> None:
    """Draw boxes with a dark halo, so that they show on any image.

    Args:
        axes (Axes): Where to draw.
        boxes (np.ndarray): (n, 4) xyxy in data coordinates, or (n, 8) corners of rotated ones.
        colour (str): Colour of lines and names.
        dashed (bool): Dashed lines. Defaults to False.
        width (float): Line width, points. Defaults to 1.5.
        names (Sequence[str] | NDArray): Text above each box, in it at the top of the image.
            Defaults to (), no text.
        fill (float): Opacity of the box's inside. Defaults to 0.
    """
    # Its types ask for a sequence, and an array is drawn faster.
    outlines: Any = (boxes if boxes.shape[1] == 8 else box_corners(boxes)).reshape(-1, 4, 2)
    if fill:
        axes.add_collection(PolyCollection(outlines, facecolor=colour, alpha=fill, linewidth=0))
    # One artist for all boxes: scenes of 20,000 px have thousands.
    axes.add_collection(
        PolyCollection(
            outlines,
            facecolor='none',
            edgecolor=colour,
            linewidth=width,
            joinstyle='miter',
            linestyle='--' if dashed else '-',
            path_effects=[withStroke(linewidth=width + 1.2, foreground=(0, 0, 0, 0.55))],
        )
    )
    for name, (x, y) in zip(names, outlines.min(axis=1), strict=len(names) > 0):
        room = _points(axes, axes.bbox.y1 - axes.transData.transform((x, y))[1])
        shift = (0, 2) if room > _PLATE else (1, -_PLATE)
        _write_on_plate(axes, name, (x, y), shift, colour, pad=0.6, clip_on=True)


def _write_on_plate(
    axes: Axes,
    text: str,
    corner: tuple[float, float],
    shift: tuple[float, float],
    colour: str,
    pad: float,
    **style: Any,
) -> None:
    """Write at a point in data coordinates, shifted by points, on a coloured plate."""
    axes.annotate(
        text,
        corner,
        shift,
        textcoords='offset points',
        fontsize=6,
        annotation_clip=True,
        bbox={'facecolor': colour, 'alpha': 0.85, 'pad': pad, 'linewidth': 0},
        **style,
    )


def draw_dots(axes: Axes, points: NDArray, colours: Sequence[str], sizes: ArrayLike) -> None:
    """Draw dots at (n, 2) data coordinates, above all else and later ones above earlier ones.

    ``sizes`` (n,) are diameters in points; where so many would hide the picture, all are smaller.
    """
    sizes = np.asarray(sizes, np.float64)
    picture = np.prod(_points(axes, axes.bbox.size))
    shrink = min(1.0, np.sqrt(_COVERED * picture / max(np.square(sizes).sum(), 1.0)))
    # One artist for all dots. scatter() would also change which part of the image is shown.
    axes.add_collection(
        CircleCollection(
            np.pi / 4 * np.square(sizes * shrink),
            offsets=np.reshape(points, (-1, 2)),
            offset_transform=axes.transData,
            facecolors=to_rgba_array(list(colours)),
            edgecolors='black',
            linewidths=_RIM * shrink,
            zorder=4,
        ),
        autolim=False,
    )


def draw_tags(axes: Axes, boxes: NDArray, texts: Sequence[str], colours: Sequence[str]) -> None:
    """Write on plates above the top left corners of boxes (n, 4), below them at the image's top.

    A plate that would lie on an earlier one is moved to the right of it. On a narrow box stands the
    last word of its text only.
    """
    corners, ends = (_points(axes, axes.transData.transform(boxes[:, i : i + 2])) for i in (0, 2))
    inside = _points(axes, axes.bbox.y1) - corners[:, 1] < 12
    taken: NDArray = np.zeros((0, 4))
    for i, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        text = text.split()[-1] if ends[i, 0] - corners[i, 0] < 60 else text
        size = np.array([3.4 * len(text) + 2, 9.0])
        shift = np.array([2.0, -12.0 if inside[i] else 3.0])
        while (blocking := _meeting(taken, corners[i] + shift, size)).any():
            shift[0] = taken[blocking, 2].max() - corners[i, 0] + 0.5
        start = corners[i] + shift
        taken = np.vstack([taken, [*start, *(start + size)]])
        _write_on_plate(axes, text, tuple(boxes[i, :2]), tuple(shift), colour, pad=0.8)


def _meeting(taken: NDArray, start: NDArray, size: NDArray) -> NDArray[np.bool_]:
    """Which of the rectangles ``taken`` (n, 4) have points in common with another one."""
    return ((taken[:, :2] < start + size) & (taken[:, 2:] > start)).all(axis=1)


def _points(axes: Axes, pixels: ArrayLike) -> NDArray[np.float64]:
    """Pixels of the figure in points."""
    return np.asarray(pixels, np.float64) * 72 / axes.figure.dpi


def draw_legend(figure: Figure, entries: Sequence[Artist], width: float = 2.6) -> None:
    """Put a legend along the bottom of a figure, each entry ``width`` inches wide."""
    columns = max(1, min(len(entries), int(figure.get_figwidth() / width)))
    dots = [len(one.get_facecolor()) for one in entries if isinstance(one, CircleCollection)]
    figure.legend(
        handles=list(entries),
        loc='lower center',
        ncols=columns,
        fontsize=8,
        frameon=False,
        borderaxespad=0.3,
        scatterpoints=max(dots, default=1),
        scatteryoffsets=[0.5],
    )


def legend_entry(colour: str, label: str, dashed: bool = False, fill: float = 0.0) -> Patch:
    """A legend's entry for boxes drawn by :func:`draw_boxes`."""
    return Patch(
        facecolor=(colour, fill),
        edgecolor=colour,
        linewidth=2,
        linestyle='--' if dashed else '-',
        label=label,
    )


def legend_dots(colours: Sequence[str], label: str) -> CircleCollection:
    """A legend's entry for dots drawn by :func:`draw_dots`, with one of each colour."""
    return CircleCollection(
        [16.0],
        facecolors=to_rgba_array(list(colours)),
        edgecolors='black',
        linewidths=_RIM,
        label=label,
    )
