"""Chips drawn at random: a share of what the network could see, where no chip has been."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmsniper.chips.level_cells import LevelCells
from mmsniper.chips.plan import NEGATIVE, ChipPlan
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.rectangles import expand, piercings
from mmsniper.chips.seeding import uniform

# Tell the draws of how many chips from those of where they are.
_NUMBER, _PLACE = 5, 6


def drawn_chips(
    pyramid: ScalePyramid,
    width: ArrayLike,
    height: ArrayLike,
    share: float,
    seen: ChipPlan,
    key: tuple[int, ...],
) -> ChipPlan:
    """Chips at random places of images, at every level of a pyramid.

    Of the :class:`~mmsniper.chips.level_cells.LevelCells` of a level as many are drawn as have the
    share of its pixels, spread evenly and rounded at random; of each, the chip around it is taken.
    Cells whose centre is in a chip that was seen already are left out.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Image sizes in original pixels, shape (n,).
        share (float): Share of the pixels of a level, more than 0 and at most 1.
        seen (ChipPlan): Chips that were seen.
        key (tuple[int, ...]): What the draw depends on beside image and level: seed and epoch.

    Returns:
        ChipPlan: Negative chips of images 0 to n - 1.
    """
    cells = LevelCells(pyramid, width, height)
    levels = pyramid.num_levels
    # Of every level of every image, in a row.
    row, level = np.divmod(np.arange(cells.count.size), levels)
    chips, count = cells.chips.ravel(), cells.count.ravel()
    draw: tuple[ArrayLike, ...] = (*key, row, level)
    number = np.floor(share * chips + uniform(*draw, _NUMBER)).astype(np.int64)
    number = np.minimum(number, count)
    # Every so many cells, from a random one on.
    group, j = expand(np.zeros_like(number), number)
    offset = uniform(*draw, _PLACE)[group]
    position = np.floor((j + offset) * count[group] / number[group]).astype(np.int64)
    core, box = cells.at(row[group], level[group], position)
    centre = (core[:, :2] + core[:, 2:]) / 2
    seen_low, seen_high = np.hsplit(seen.box.astype(np.float64), 2)
    _, known = piercings(seen_low, seen_high, seen.group(levels), centre, group)
    new = np.setdiff1d(np.arange(len(group)), known)
    return ChipPlan.of_kind(NEGATIVE, row[group[new]], level[group[new]], box[new])
