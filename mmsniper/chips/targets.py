"""Boxes at the levels where they count: what chips are to enclose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.plan import Arrays, ChipPlan
from mmsniper.chips.pyramid import TOLERANCE, ScalePyramid
from mmsniper.chips.rectangles import Floats, Ints, blocks, expand

# Boxes looked at together: some MB of temporary memory, under a second between reports of progress.
# Fewer take longer: each time costs as much as a hundred boxes.
_BOXES = 1 << 14
# A box counts as enclosed if it sticks out by less than this: what float32 rounds off the windows
# of a plan (relative), and a thousandth of an original pixel, which nobody sees (absolute).
_RELATIVE, _ABSOLUTE = 2.0**-23, 1e-3

# Of boxes and chips, shape (n, 4) each, for both axes: shape (n, 2).
_Test = Callable[[Floats, NDArray[np.float32]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Targets(Arrays):
    """What must be enclosed: boxes at levels where they are valid and fit, not those to ignore.

    Ordered by image and level; in original pixels.
    """

    image: Ints
    level: Ints
    index: Ints  # of the box in the table
    box: Floats  # xyxy, shape (n, 4)
    image_wh: Floats  # shape (n, 2)
    scale: Floats  # scaled pixels per original pixel, shape (n, 1)
    side: Floats  # of a chip, shape (n, 1)

    def group(self, num_levels: int) -> Ints:
        """A number for each (image, level), shape (n,)."""
        return self.image * num_levels + self.level

    def origins(self) -> tuple[Floats, Floats]:
        """Smallest and largest origin (left, top) of a chip that encloses each box, (n, 2) each."""
        side = self.side * (1 + TOLERANCE)
        hi = np.minimum(self.box[:, :2], np.maximum(self.image_wh - side, 0))
        return np.clip(self.box[:, 2:] - side, 0, hi), hi


def iter_targets(
    table: AnnotationTable, pyramid: ScalePyramid, share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[range, Targets]]:
    """Chunks of images in order and what must be enclosed in them; at least one chunk in all.

    ``share=(k, n)`` has share k of n of the chunks, those that follow share k - 1.
    """
    starts = np.searchsorted(table.offset, np.arange(0, len(table.boxes), _BOXES))
    cuts = np.unique([0, *starts, len(table)]).tolist()
    chunks, (k, n) = list(zip(cuts, cuts[1:])) or [(0, 0)], share
    for first, last in chunks[k * len(chunks) // n : (k + 1) * len(chunks) // n]:
        yield range(first, last), _targets(table, pyramid, first, last)


def _targets(table: AnnotationTable, pyramid: ScalePyramid, first: int, last: int) -> Targets:
    part = slice(table.offset[first], table.offset[last])
    image = np.repeat(np.arange(first, last), np.diff(table.offset[first : last + 1]))
    image_wh = np.stack([table.width[image], table.height[image]], axis=1).astype(np.float64)
    sizes = table.sizes_of(part)
    valid, fits = pyramid.valid_and_fits(table.boxes[part], *image_wh.T, sizes=sizes)
    i, level = np.nonzero(valid & fits & ~table.ignore[part, None])
    order = np.lexsort((level, image[i]))
    i, level = i[order], level[order]
    scale = pyramid.scales(*image_wh[i].T)[np.arange(len(i)), level][:, None]
    return Targets(
        image[i],
        level,
        part.start + i,
        table.boxes[part][i].astype(np.float64),
        image_wh[i],
        scale,
        pyramid.chip_size / scale,
    )


def grid_lines(
    part: Targets, step: Floats, edge: Floats, shift: Floats | float = 0.0
) -> tuple[Ints, Ints]:
    """First and last line of the grid of chip origins with which a chip encloses each box.

    Lines 0, 1, ... are a step apart (original px), see :func:`grid_origins`; an image's last is at
    its ``edge``, where a chip is flush with the image's end. The grid is ``shift`` steps, from
    [0, 1), to the left of and above the image's corner; its first line is at the corner all the
    same.
    """
    number = np.ceil(edge / step + shift - TOLERANCE)
    slip = TOLERANCE * part.side
    lo, hi = part.box[:, 2:] - part.side - slip, part.box[:, :2] + slip
    first = np.where(lo <= 0, 0, np.clip(np.ceil(lo / step + shift), 0, number))
    last = np.where(hi >= edge, number, np.floor(hi / step + shift))
    return first.astype(np.int64), last.astype(np.int64)


def grid_origins(lines: Ints, step: Floats, edge: Floats, shift: Floats | float = 0.0) -> Floats:
    """Where the lines of :func:`grid_lines` are, in original pixels."""
    return np.clip((lines - shift) * step, 0, edge)


@dataclass(frozen=True)
class ChipLookup:
    """A plan's chips sorted by image and level, to be asked which boxes they enclose or touch."""

    num_levels: int
    group: Ints
    box: NDArray[np.float32]
    chip: Ints  # index of each in the plan

    @classmethod
    def from_plan(cls, plan: ChipPlan, num_levels: int) -> ChipLookup:
        """Sort the chips of a plan."""
        group = plan.group(num_levels)
        order = np.argsort(group, kind='stable')
        return cls(num_levels, group[order], plan.box[order], order)

    def enclose(self, part: Targets) -> NDArray[np.bool_]:
        """Which targets lie whole in a chip of their image and level, shape (n,)."""
        return self._any_chip(part, _inside)

    def enclosing(self, part: Targets) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of a target and a chip in which it lies whole, by its index in the plan.

        They come in parts of bounded size.
        """
        return self._pairs(part, _inside)

    def touch(self, part: Targets) -> NDArray[np.bool_]:
        """Which targets have an area in common with a chip of their image and level, (n,)."""

        def meet(box: Floats, chip: NDArray[np.float32]) -> NDArray[np.bool_]:
            slip = _ABSOLUTE + _RELATIVE * box
            return (box[:, :2] < chip[:, 2:] - slip[:, :2]) & (
                box[:, 2:] > chip[:, :2] + slip[:, 2:]
            )

        return self._any_chip(part, meet)

    def _any_chip(self, part: Targets, test: _Test) -> NDArray[np.bool_]:
        """Which targets pass a test, of shape (n, 2) for both axes, with a chip of theirs."""
        found = np.zeros(len(part), bool)
        for target, _ in self._pairs(part, test):
            found[target] = True
        return found

    def _pairs(self, part: Targets, test: _Test) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of a target and a chip that pass a test, in parts of bounded size."""
        group = part.group(self.num_levels)
        start, stop = (np.searchsorted(self.group, group, side) for side in ('left', 'right'))
        for block in blocks(start, stop):
            i, k = expand(start[block], stop[block])
            i += block.start
            passed = test(part.box[i], self.box[k]).all(axis=1)
            yield i[passed], self.chip[k[passed]]


def _inside(box: Floats, chip: NDArray[np.float32]) -> NDArray[np.bool_]:
    slip = _ABSOLUTE + _RELATIVE * box
    return (box[:, :2] >= chip[:, :2] - slip[:, :2]) & (box[:, 2:] <= chip[:, 2:] + slip[:, 2:])
