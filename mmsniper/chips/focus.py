"""FocusChips: where to look again at the next finer level (AutoFocus section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmsniper.chips.pyramid import ScalePyramid, as_boxes
from mmsniper.chips.rectangles import Floats, common, neighbours


@dataclass(frozen=True, eq=False)
class FocusMap:
    """How likely each cell of a window shows an object that is small at the window's scale.

    Attributes:
        probability: Shape (rows, columns). Cells that begin beyond the window do not count.
        box: The window (x1, y1, x2, y2) in original pixels.
        cell: Width and height of a cell in original pixels, or both as one number.
    """

    probability: NDArray
    box: tuple[float, float, float, float]
    cell: float | tuple[float, float]

    def __post_init__(self) -> None:
        if np.ndim(self.probability) != 2:
            raise ValueError(
                f'a FocusPixel map has rows and columns, got shape {np.shape(self.probability)}'
            )
        if not np.min(self.cell) > 0:
            raise ValueError(f'the side of a cell must be positive, got {self.cell!r}')
        x1, y1, x2, y2 = self.box
        if not (x2 > x1 and y2 > y1):
            raise ValueError(f'the window of a FocusPixel map is empty: {self.box}')


def focus_sizes(pyramid: ScalePyramid, *, test: bool = False) -> Floats:
    """Which objects of each level are to be looked at again at the next finer one.

    Those below a level's own range *must* be: the level does not have them. Those from there up to
    the end of the next finer level's range *may* be: both levels have them. With COCO's pyramid
    these are about the paper's 64 and 90 px.

    Args:
        pyramid (ScalePyramid): The pyramid.
        test (bool): Use the test ranges. Defaults to False.

    Returns:
        Floats: Sizes (sqrt of area, original pixels) below which an object must, and may be looked
        at again, shape (num_levels, 2). At the finest level both are 0.
    """
    ranges = pyramid.ranges(test=test)
    may = np.append(0.0, ranges[:-1, 1])
    return np.stack([np.minimum(ranges[:, 0], may), may], axis=1)


def focus_rectangles(focus: FocusMap, threshold: float, dilation: int = 3) -> Floats:
    """Rectangles around the connected FocusPixels of a map.

    Those that are connected after a dilation, by an edge or a corner, are enclosed together.

    Args:
        focus (FocusMap): The map.
        threshold (float): Least probability of a FocusPixel; 0 takes all cells, more than 1 none.
        dilation (int): Side in cells of the square to dilate with, odd. Defaults to 3.

    Returns:
        Floats: Rectangles (x1, y1, x2, y2) in original pixels, inside the window, shape (n, 4).

    Raises:
        ValueError: If ``dilation`` is not an odd positive number.
    """
    if not (isinstance(dilation, int) and dilation >= 1 and dilation % 2):
        raise ValueError(f'dilation must be an odd number of cells, got {dilation!r}')
    x1, y1, x2, y2 = focus.box
    cell = np.broadcast_to(focus.cell, 2)
    # A cell that begins within rounding of the window's end shows nothing of it.
    columns, rows = np.ceil(np.round(np.array([x2 - x1, y2 - y1]) / cell, 6)).astype(int)
    pixels = np.asarray(focus.probability)[:rows, :columns] >= threshold
    if not pixels.any():
        return np.empty((0, 4))
    pixels = ndimage.maximum_filter(pixels, size=dilation, mode='constant')
    labels, _ = ndimage.label(pixels, structure=np.ones((3, 3), bool))
    spans = [(c.start, r.start, c.stop, r.stop) for r, c in ndimage.find_objects(labels)]
    corner = np.array([x1, y1, x1, y1])
    return np.clip(np.array(spans) * np.tile(cell, 2) + corner, corner, np.array([x2, y2, x2, y2]))


def merge_rectangles(rectangles: ArrayLike, min_side: float, width: float, height: float) -> Floats:
    """Grow rectangles to a least side, keep them inside the image, and merge those that overlap.

    Repeated until nothing changes; the order of the rectangles does not matter.

    Args:
        rectangles (ArrayLike): Shape (n, 4), xyxy in original pixels, inside the image.
        min_side (float): Least width and height, or that of the image if it is smaller. A
            rectangle grows on both sides alike and is then moved into the image.
        width, height (float): Size of the image.

    Returns:
        Floats: Rectangles, shape (m, 4), sorted by their corners. Some may touch, none overlap.
    """
    boxes = as_boxes(rectangles)
    while len(boxes):
        grown = _grown(boxes, min_side, width, height)
        low, high = grown[:, :2], grown[:, 2:]
        i, j = neighbours(low, high, np.zeros(len(grown), np.int64))
        overlap = np.all((low[i] < high[j]) & (low[j] < high[i]), axis=1)
        graph = coo_array((overlap[overlap], (i[overlap], j[overlap])), shape=(len(grown),) * 2)
        # Enclosing is intersecting, of the negative.
        corners = common(-low, -high, connected_components(graph, directed=False)[1])
        merged = _sorted(-np.concatenate(corners, axis=1))
        if np.array_equal(merged, _sorted(boxes)):
            break
        boxes = merged
    return _sorted(boxes)


def focus_chips(
    maps: Sequence[FocusMap],
    threshold: float,
    width: float,
    height: float,
    min_side: float,
    dilation: int = 3,
) -> Floats:
    """The FocusChips of an image: what to look at again at the next finer level.

    Args:
        maps (Sequence[FocusMap]): Of the image's windows at this level.
        threshold, dilation: As in :func:`focus_rectangles`.
        width, height, min_side: As in :func:`merge_rectangles`.

    Returns:
        Floats: Chips (x1, y1, x2, y2) in original pixels, shape (n, 4), sorted, no two of which
        overlap. Each FocusPixel is inside of one.

    Example:
        >>> probability = np.zeros((4, 4))
        >>> probability[1, 1] = 0.9
        >>> maps = [FocusMap(probability, (0, 0, 64, 64), 16)]
        >>> focus_chips(maps, 0.5, 64, 64, min_side=32)
        array([[ 0.,  0., 48., 48.]])
    """
    found = [focus_rectangles(focus, threshold, dilation) for focus in maps]
    return merge_rectangles(np.concatenate(found or [np.empty((0, 4))]), min_side, width, height)


def _grown(boxes: Floats, min_side: float, width: float, height: float) -> Floats:
    size = np.array([width, height], np.float64)
    low, high = boxes[:, :2], boxes[:, 2:]
    side = np.minimum(np.maximum(high - low, min_side), size)
    start = np.clip((low + high - side) / 2, 0, size - side)
    # What is large enough stays as it is, to the last bit: growing must come to an end.
    enough = high - low >= side
    start = np.where(enough, low, start)
    return np.concatenate([start, np.where(enough, high, start + side)], axis=1)


def _sorted(boxes: Floats) -> Floats:
    return boxes[np.lexsort(boxes.T[::-1])]
