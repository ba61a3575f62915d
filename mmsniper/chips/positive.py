"""Positive chips: every object is inside a chip at the levels where it is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.cover import Cover, grid_cover, minimum_cover
from mmsniper.chips.plan import POSITIVE, Arrays, ChipPlan
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.rectangles import Floats, Ints, ordinal
from mmsniper.chips.seeding import uniform
from mmsniper.chips.targets import Targets, grid_lines, iter_targets

STRATEGIES = ('minimum', 'grid')
# Chips placed together, in some 50 MB of temporary memory: plans of millions need no more.
_CHIPS = 1 << 18

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Chips(Arrays):
    """Chips, in the order of the images, and where their origins may lie: 21 bytes each."""

    image: NDArray[np.int32]
    level: NDArray[np.int8]
    lo: NDArray[np.float32]
    hi: NDArray[np.float32]

    @classmethod
    def empty(cls) -> _Chips:
        corners = np.zeros((0, 2), np.float32)
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int8), corners, corners)


class FoundChips(NamedTuple):
    """The fewest chips that enclose all boxes, for all epochs.

    Attributes:
        chips: The chips, as arrays.
        unproven: Pairs (image, level) whose number of chips is not proven minimal.
    """

    chips: _Chips
    unproven: int

    @classmethod
    def joined(cls, shares: Sequence[FoundChips]) -> FoundChips:
        """What was found in shares, at least one, in their order."""
        chips = _Chips.joined([share.chips for share in shares])
        return cls(chips, sum(share.unproven for share in shares))


class PositiveChipPlanner:
    """Plan the positive chips of a data set, epoch by epoch (SNIPER section 3.2).

    Every box that is valid at a level and fits into a chip there is enclosed by a chip.

    - ``'minimum'``: by the fewest chips, found once, at the first plan. Each epoch places them
      anew, uniformly within the slack that keeps their boxes inside.
    - ``'grid'``: the paper's greedy choice among chips at every ``stride`` scaled pixels, and
      flush with the image's right and bottom edges. It may miss boxes that are within a stride of
      ``chip_size``.

    An image's chips depend on its own boxes and (seed, epoch, image index) only.

    Args:
        table (AnnotationTable): Image sizes and boxes.
        pyramid (ScalePyramid): The scale pyramid.
        strategy (str): One of the above. Defaults to 'minimum'.
        stride (int | tuple[int, int]): Stride of the grid in scaled pixels, or a pair (min, max)
            from which each epoch draws one, the authors' release (56, 59). Defaults to 32.
        seed (int): Seed of all draws. Defaults to 0.
        image_ids (ArrayLike | None): For a table that is a part of a data set, the index of each of
            its images in the whole, for draws and plans. Defaults to 0, 1, ...
        progress (Progress | None): Gets the numbers of images done and in all. Defaults to None.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        table: AnnotationTable,
        pyramid: ScalePyramid,
        strategy: str = 'minimum',
        stride: int | tuple[int, int] = 32,
        seed: int = 0,
        *,
        image_ids: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f'strategy must be one of {STRATEGIES}, got {strategy!r}')
        self.table = table
        self.pyramid = pyramid
        self.strategy = strategy
        self.stride = _check_stride(stride)
        self.seed = seed
        ids = np.arange(len(table)) if image_ids is None else image_ids
        self.image_ids = np.asarray(ids, np.int32)
        if self.image_ids.shape != (len(table),):
            shape = self.image_ids.shape
            raise ValueError(f'{len(table)} images need as many image_ids, got shape {shape}')
        self.progress = progress
        self.found: FoundChips | None = None
        """Chips of ``'minimum'``, from the first plan on. They may be found in shares by several
        processes, see :meth:`find`, and put here."""
        self.unproven = 0
        """Pairs (image, level) of the last plan whose number of chips is not proven minimal: only
        for ``'minimum'``, in scenes of thousands of boxes, where the search is cut off."""

    def plan(
        self,
        epoch: int = 0,
        index: NDArray[np.integer] | None = None,
        again: NDArray[np.integer] | None = None,
    ) -> ChipPlan:
        """The chips of an epoch, in the order of the images and of levels within an image.

        Args:
            epoch (int): The epoch. Defaults to 0.
            index (NDArray[np.integer] | None): Positions in the plan of those that are wanted.
                Defaults to None, all.
            again (NDArray[np.integer] | None): How many times the epoch has each of them before: a
                chip that comes again is placed anew. Defaults to None, never.
        """
        if self.strategy == 'grid':
            chips, self.unproven = self.find(epoch=epoch)
        else:
            chips = self.chips
        return self._place(chips, epoch, index, again)

    def certain(self) -> ChipPlan:
        """What each chip of ``'minimum'`` shows wherever an epoch places it."""
        chips = self.chips
        box = np.empty((len(chips), 4), np.float32)
        for first in range(0, len(chips), _CHIPS):
            part = chips.take(slice(first, first + _CHIPS))
            shown = box[first : first + _CHIPS]
            shown[:, :2] = part.hi
            shown[:, 2:] = self._windows(part, part.lo.astype(np.float64))[:, 2:]
        return ChipPlan.of_kind(POSITIVE, chips.image, chips.level, box)

    @property
    def chips(self) -> _Chips:
        """Image and level of all chips of ``'minimum'``, which are the same in each epoch."""
        if self.found is None:
            self.found = self.find()
        chips, self.unproven = self.found
        return chips

    def find(self, share: tuple[int, int] = (0, 1), epoch: int = 0) -> FoundChips:
        """Find the chips of share k of n of the images; shares are joined in their order.

        Args:
            share (tuple[int, int]): k and n. Defaults to (0, 1), all images.
            epoch (int): The epoch, for ``'grid'``. Defaults to 0.
        """
        chips, unproven, first = [_Chips.empty()], 0, None
        for images, part in iter_targets(self.table, self.pyramid, share):
            group = part.group(self.pyramid.num_levels)
            if self.strategy == 'minimum':
                cover = minimum_cover(*part.origins(), group)
            else:
                cover = self._grid_cover(part, group, epoch)
            image, level = np.divmod(cover.group, self.pyramid.num_levels)
            lo, hi = cover.lo.astype(np.float32), cover.hi.astype(np.float32)
            chips.append(_Chips(image.astype(np.int32), level.astype(np.int8), lo, hi))
            unproven += len(cover.unproven)
            first = images.start if first is None else first
            if self.progress is not None:  # as if all shares were as far
                done = (images.stop - first) * share[1]
                self.progress(min(done, len(self.table)), len(self.table))
        return FoundChips(_Chips.joined(chips), unproven)

    def _grid_cover(self, part: Targets, group: Ints, epoch: int) -> Cover:
        min_stride, max_stride = self.stride
        stride = min_stride + int(uniform(self.seed, epoch) * (max_stride - min_stride + 1))
        step = stride / part.scale
        edge = np.maximum(part.image_wh - part.side, 0)
        first, last = grid_lines(part, step, edge)
        image = self.image_ids[part.image]
        draws = uniform(self.seed, epoch, part.level, image, ordinal(group))
        cover = grid_cover(first, last, group, draws)
        first_target = np.searchsorted(group, cover.group)
        origin = np.minimum(cover.lo * step[first_target], edge[first_target])
        return Cover(cover.assignment, origin, origin, cover.group, cover.unproven)

    def _place(
        self,
        chips: _Chips,
        epoch: int,
        index: NDArray[np.integer] | None,
        again: NDArray[np.integer] | None,
    ) -> ChipPlan:
        wanted = chips if index is None else chips.take(index)
        box = np.empty((len(wanted), 4), np.float32)
        for first in range(0, len(wanted), _CHIPS):
            stop = min(first + _CHIPS, len(wanted))
            part = wanted.take(slice(first, stop))
            at = np.arange(first, stop) if index is None else index[first:stop]
            number = at - np.searchsorted(chips.image, part.image)
            if again is not None:
                number += again[first:stop] * len(chips)  # which no chip of an epoch has
            box[first:stop] = self._boxes(part, number, epoch)
        return ChipPlan.of_kind(POSITIVE, self.image_ids[wanted.image], wanted.level, box)

    def _boxes(self, chips: _Chips, number: Ints, epoch: int) -> Floats:
        """What chips show, at places that are drawn by their number in their image."""
        key = self.image_ids[chips.image][:, None], number[:, None], np.arange(2)
        lo, hi = chips.lo.astype(np.float64), chips.hi.astype(np.float64)
        return self._windows(chips, lo + uniform(self.seed, epoch, *key) * (hi - lo))

    def _windows(self, chips: _Chips, origin: Floats) -> Floats:
        """What chips show whose corners, left and top, are at ``origin``, shape (n, 2)."""
        width, height = self.table.width[chips.image], self.table.height[chips.image]
        scales = self.pyramid.scales(width, height)[np.arange(len(chips)), chips.level]
        end = origin + (self.pyramid.chip_size / scales)[:, None]
        return np.concatenate([origin, np.minimum(end, np.stack([width, height], axis=1))], axis=1)


def plan_positive_chips(
    table: AnnotationTable,
    pyramid: ScalePyramid,
    strategy: str = 'minimum',
    seed: int = 0,
    epoch: int = 0,
    stride: int | tuple[int, int] = 32,
    image_ids: ArrayLike | None = None,
    progress: Progress | None = None,
) -> ChipPlan:
    """Plan the positive chips of one epoch, with the arguments of :class:`PositiveChipPlanner`.

    Example:
        >>> table = AnnotationTable.from_images([(640, 480, [[10, 20, 40, 50]], None)])
        >>> level = dict(resize=dict(factor=2.0), valid_range=(0, None))
        >>> pyramid = ScalePyramid.from_config(dict(chip_size=512, levels=[level]))
        >>> plan_positive_chips(table, pyramid).box.shape
        (1, 4)
    """
    planner = PositiveChipPlanner(
        table, pyramid, strategy, stride, seed, image_ids=image_ids, progress=progress
    )
    return planner.plan(epoch)


def _check_stride(stride: int | tuple[int, int]) -> tuple[int, int]:
    pair = (stride, stride) if isinstance(stride, (int, np.integer)) else stride
    try:
        lo, hi = pair
        good = 1 <= lo <= hi and all(int(v) == v for v in pair)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f'stride must be a positive number of scaled pixels or a pair (min, max) of such, got '
            f'{stride!r}'
        )
    return int(lo), int(hi)
