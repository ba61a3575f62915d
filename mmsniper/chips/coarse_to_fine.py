"""Where to look in an image, coarse to fine: a finer level where the coarser ones found most."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmsniper.chips.level_cells import LevelCells
from mmsniper.chips.plan import ChipPlan
from mmsniper.chips.pyramid import ScalePyramid, box_sizes
from mmsniper.chips.rectangles import Floats, Ints
from mmsniper.chips.seeding import uniform
from mmsniper.chips.windows import LevelWindows, Window

# Tell the draws of how many windows from those of where they are.
_NUMBER, _PLACE = 7, 8


class CoarseToFineWindows:
    """The coarsest level of images whole, and of each finer one the most promising windows.

    Every finer level may have as many pixels as the share of the finest level's. It is divided
    into :class:`~mmsniper.chips.level_cells.LevelCells`, of which those are seen that have the
    highest sum of scores of what the coarser levels found in them. Cells whose centre is in a chip
    that was seen come last, and at equal scores it is drawn. With a single level all is drawn.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Image sizes in original pixels, shape (n,).
        share (float): Share of the pixels of the finest level, more than 0 and at most 1.
        window_size (int): Longest side of a window of the coarsest level, its pixels.
        seen (ChipPlan): Chips that were seen, of images 0 to n - 1, ascending.
        key (tuple[int, ...]): What draws depend on beside image and level: seed and epoch.
        image (ArrayLike | None): Index that the windows of each image carry, and by which they are
            drawn, shape (n,). Defaults to None, 0 to n - 1.

    Attributes:
        count (Ints): Number of windows, shape (n, num_levels).
        pixels (Ints): Pixels of all windows of each image, at their levels, shape (n,).
    """

    def __init__(
        self,
        pyramid: ScalePyramid,
        width: ArrayLike,
        height: ArrayLike,
        share: float,
        window_size: int,
        seen: ChipPlan,
        key: tuple[int, ...],
        image: ArrayLike | None = None,
    ) -> None:
        self.pyramid = pyramid
        self._whole = LevelWindows(pyramid, width, height, window_size, image)
        self._cells = LevelCells(pyramid, width, height)
        self._seen, self._key = seen, key
        draw = uniform(*key, self.image[:, None], np.arange(pyramid.num_levels), _NUMBER)
        number = np.floor(share * self._cells.chips[:, :1] + draw).astype(np.int64)
        self.count = np.minimum(number, self._cells.count)
        pixels = self.count * self._cells.shape.prod(axis=2)
        if pyramid.num_levels > 1:
            self.count[:, -1] = self._whole.count[:, -1]
            pixels[:, -1] = self.count[:, -1] * self._whole.shape[:, -1].prod(axis=1)
        self.pixels = pixels.sum(axis=1)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def image(self) -> Ints:
        """Index that the windows of each image carry, shape (n,)."""
        return self._whole.image

    def of_level(self, i: int, level: int, boxes: Floats, scores: Floats) -> list[Window]:
        """The windows of the image at a position, at a level.

        Args:
            i (int): The image's position.
            level (int): The level.
            boxes (Floats): What the coarser levels found, xyxy in original pixels, shape (m, 4).
                Those count that are in the level's valid range, and whose centre is in no chip of
                the level that was seen.
            scores (Floats): Their scores, shape (m,).
        """
        if level == self.pyramid.num_levels - 1 > 0:
            return list(self._whole.of_level(i, level))
        image, count = int(self.image[i]), int(self._cells.count[i, level])
        cores, chips = self._cells.at(i, level, np.arange(count))
        rank = self._promise(i, level, boxes, scores, count)
        rank[self._is_seen(i, level, (cores[:, :2] + cores[:, 2:]) / 2)] = -1.0
        drawn = uniform(*self._key, image, level, np.arange(count), _PLACE)
        best = np.sort(np.lexsort((drawn, -rank))[: self.count[i, level]])
        height, width = self._cells.shape[i, level].tolist()
        return [
            Window(image, level, tuple(chip), tuple(core), (height, width))
            for chip, core in zip(chips[best].tolist(), cores[best].tolist())
        ]

    def _promise(self, i: int, level: int, boxes: Floats, scores: Floats, count: int) -> Floats:
        """Sum of the scores of what was found in each cell."""
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        counts = self.pyramid.in_range(box_sizes(boxes), level) & ~self._is_seen(i, level, centres)
        cells = self._cells.containing(i, level, centres[counts])
        return np.asarray(np.bincount(cells, scores[counts], minlength=count), np.float64)

    def _is_seen(self, i: int, level: int, points: Floats) -> np.ndarray:
        """Whether points of an image, (m, 2) in original pixels, are in a chip that was seen."""
        first, last = np.searchsorted(self._seen.image, [i, i + 1])
        chips = self._seen.box[first:last][self._seen.level[first:last] == level]
        low, high = chips[:, None, :2], chips[:, None, 2:]
        return ((points >= low) & (points <= high)).all(axis=2).any(axis=0)
