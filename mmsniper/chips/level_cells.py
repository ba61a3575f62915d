"""Every level of an image in equal cells, the fewest that chips cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmsniper.chips.pyramid import TOLERANCE, ScalePyramid
from mmsniper.chips.rectangles import Floats, Ints
from mmsniper.chips.windows import round_up


class LevelCells:
    """The cells of images; around the centre of each, a chip shows all of it.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        width, height (ArrayLike): Image sizes in original pixels, shape (n,).

    Attributes:
        chips (Floats): Pixels of each level, as a number of chips, one at least, shape
            (n, num_levels).
        count (Ints): Number of cells, shape (n, num_levels).
        shape (Ints): Height and width of a cell's chip, pixels of the level, shape
            (n, num_levels, 2).
    """

    def __init__(self, pyramid: ScalePyramid, width: ArrayLike, height: ArrayLike) -> None:
        self._size = np.stack([np.asarray(width), np.asarray(height)], axis=1).astype(np.float64)
        scale = pyramid.scales(*self._size.T)[:, :, None]
        in_chips = np.maximum(self._size[:, None] * scale / pyramid.chip_size, 1)
        self._axes = np.ceil(in_chips - TOLERANCE).astype(np.int64)
        self._side = np.minimum(pyramid.chip_size / scale, self._size[:, None])
        self.chips = in_chips.prod(axis=2)
        self.count = self._axes.prod(axis=2)
        self.shape = round_up(self._side * scale)[..., ::-1]

    def at(self, image: ArrayLike, level: ArrayLike, position: ArrayLike) -> tuple[Floats, Floats]:
        """Cells and the chips around them, both xyxy in original pixels, shape (m, 4).

        Args:
            image, level, position (ArrayLike): Index of the image, the level, and which of its
                cells, row by row. They broadcast to shape (m,).
        """
        image, level, position = np.broadcast_arrays(image, level, position)
        y, x = np.divmod(position, self._axes[image, level, 0])
        step = self._size[image] / self._axes[image, level]
        low = np.stack([x, y], axis=1) * step
        side = self._side[image, level]
        start = np.clip(low + step / 2 - side / 2, 0, self._size[image] - side)
        return np.hstack([low, low + step]), np.hstack([start, start + side])

    def containing(self, image: int, level: int, points: Floats) -> Ints:
        """Positions of the cells that hold points of an image, (m, 2) in original pixels."""
        axes = self._axes[image, level]
        x, y = np.clip(np.floor(points / self._size[image] * axes), 0, axes - 1).astype(np.int64).T
        return y * axes[0] + x
