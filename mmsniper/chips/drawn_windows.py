"""Windows drawn at random: a share of what the network could see, where no chip has been."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from mmsniper.chips.plan import NEGATIVE, ChipPlan
from mmsniper.chips.pyramid import TOLERANCE, ScalePyramid
from mmsniper.chips.rectangles import Ints, expand, piercings
from mmsniper.chips.seeding import uniform
from mmsniper.chips.windows import Window, round_up

# Tell the draws of how many windows from those of where they are.
_NUMBER, _PLACE = 5, 6


class DrawnWindows:
    """Windows of a chip's size at random places of images, at every level of a pyramid.

    At each level an image is divided into equal cells, the fewest that a chip covers. As many are
    drawn as have the share of the level's pixels, spread evenly and rounded at random; of each, the
    chip around its centre is seen. Cells whose centre is in a chip that was seen already are left
    out.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Image sizes in original pixels, shape (n,).
        share (float): Share of the pixels of a level, more than 0 and at most 1.
        seen (ChipPlan): Chips that were seen, of images 0 to n - 1.
        key (tuple[int, ...]): What the draw depends on beside image and level: seed and epoch.
        image (ArrayLike | None): Index that the windows of each image carry, and by which they are
            drawn, shape (n,). Defaults to None, 0 to n - 1.

    Attributes:
        chips (ChipPlan): The windows, as negative chips of images 0 to n - 1.
        count (Ints): Number of windows, shape (n, num_levels).
        pixels (Ints): Pixels of all windows of each image, at their levels, shape (n,).
    """

    def __init__(
        self,
        pyramid: ScalePyramid,
        width: ArrayLike,
        height: ArrayLike,
        share: float,
        seen: ChipPlan,
        key: tuple[int, ...],
        image: ArrayLike | None = None,
    ) -> None:
        size = np.stack([np.asarray(width), np.asarray(height)], axis=1).astype(np.float64)
        n, levels = len(size), pyramid.num_levels
        self.image = np.arange(n) if image is None else np.asarray(image, np.int64)
        # Of every level of every image, in a row: its size in chips, and the cells along each axis.
        group: Ints = np.arange(n * levels)
        row, level = np.divmod(group, levels)
        scale = pyramid.scales(*size.T).ravel()[:, None]
        chips = np.maximum(size[row] * scale / pyramid.chip_size, 1)
        cells = np.ceil(chips - TOLERANCE).astype(np.int64)
        draw: tuple[ArrayLike, ...] = (*key, self.image[row], level)
        number = np.floor(share * chips.prod(axis=1) + uniform(*draw, _NUMBER)).astype(np.int64)
        number = np.minimum(number, cells.prod(axis=1))
        # Every so many cells, from a random one on.
        group, j = expand(np.zeros_like(number), number)
        offset = uniform(*draw, _PLACE)[group]
        position = np.floor((j + offset) * cells[group].prod(axis=1) / number[group])
        y, x = np.divmod(position, cells[group, 0])
        cell = size[row[group]] / cells[group]
        low = np.stack([x, y], axis=1) * cell
        centre = low + cell / 2
        seen_low, seen_high = np.hsplit(seen.box.astype(np.float64), 2)
        _, known = piercings(seen_low, seen_high, seen.group(levels), centre, group)
        new = np.setdiff1d(np.arange(len(group)), known)
        group, low, cell, centre = group[new], low[new], cell[new], centre[new]
        side = np.minimum(pyramid.chip_size / scale[group], size[row[group]])
        start = np.clip(centre - side / 2, 0, size[row[group]] - side)
        shape = round_up(side * scale[group])[:, ::-1]
        box = np.hstack([start, start + side])
        self.chips = ChipPlan.of_kind(NEGATIVE, row[group], level[group], box)
        self._box = box
        self._core = np.hstack([low, low + cell])
        self._shape = shape
        self._first = np.searchsorted(row[group], np.arange(n + 1))
        self.count = np.bincount(group, minlength=n * levels).reshape(n, levels)
        total = np.concatenate([[0], np.cumsum(shape.prod(axis=1))])
        self.pixels = np.diff(total[self._first])

    def __len__(self) -> int:
        return len(self.image)

    def of_image(self, i: int) -> Iterator[Window]:
        """The windows of the image at a position, finest level first."""
        for k in range(self._first[i], self._first[i + 1]):
            yield Window(
                int(self.image[i]),
                int(self.chips.level[k]),
                tuple(self._box[k].tolist()),
                tuple(self._core[k].tolist()),
                tuple(self._shape[k].tolist()),
            )
