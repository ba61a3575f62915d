"""Positive chips: chips that enclose every object at the levels where it is learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cover import minimum_cover
from .plan import POSITIVE, AnnotationTable, ChipPlan
from .pyramid import ScalePyramid
from .seeding import uniform

STRATEGIES = ('minimum', 'grid')
_CHUNK = 1 << 16
_TOLERANCE = 1e-9


class PositiveChipPlanner:
    """x"""

    def __init__(self, table, pyramid, strategy='minimum', stride=32, seed=0, image_ids=None):
        self.table = table
        self.pyramid = pyramid
        self.strategy = strategy
        self.seed = seed
        self.stride = stride
        self.image_ids = image_ids
        self._cover = None

    def plan(self, epoch: int = 0) -> ChipPlan:
        if self._cover is None:
            self._cover = self._make()
        image, level, lo, hi = self._cover
        ids = image if self.image_ids is None else np.asarray(self.image_ids, np.int32)[image]
        first = np.searchsorted(image, image)
        ordinal = np.arange(len(image)) - first
        u = uniform(self.seed, epoch, ids[:, None], ordinal[:, None], np.arange(2))
        origin = lo + u * (hi.astype(np.float64) - lo)
        size = np.stack([self.table.width, self.table.height], 1)[image]
        side = self.pyramid.chip_size / self.pyramid.scales(size[:, 0], size[:, 1])[
            np.arange(len(image)), level]
        end = np.minimum(origin + side[:, None], size)
        return ChipPlan(ids, level, np.concatenate([origin, end], 1).astype(np.float32),
                        np.full(len(image), POSITIVE, np.int8))

    def _make(self):
        t, p = self.table, self.pyramid
        parts = []
        bounds = np.unique(np.append(np.searchsorted(t.offset, np.arange(0, len(t.boxes), _CHUNK)), len(t)))
        for a, b in zip(bounds[:-1], bounds[1:]):
            boxes = t.boxes[t.offset[a]:t.offset[b]]
            image = np.repeat(np.arange(a, b), np.diff(t.offset[a:b + 1]))
            valid, fits = p.valid_and_fits(boxes, t.width[image], t.height[image])
            use = valid & fits & ~t.ignore[t.offset[a]:t.offset[b], None]
            box, level = np.nonzero(use)
            boxes, image = boxes[box].astype(np.float64), image[box]
            size = np.stack([t.width, t.height], 1)[image]
            side = (p.chip_size / p.scales(size[:, 0], size[:, 1]))[np.arange(len(image)), level][:, None]
            side = side * (1 + _TOLERANCE)
            hi = np.minimum(boxes[:, :2], np.maximum(size - side, 0))
            lo = np.minimum(np.maximum(boxes[:, 2:] - side, 0), hi)
            c = minimum_cover(lo, hi, image * p.num_levels + level)
            parts.append((c.group // p.num_levels, c.group % p.num_levels, c.lo, c.hi))
        if not parts:
            parts = [(np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2)))]
        image, level, lo, hi = (np.concatenate(x) for x in zip(*parts))
        return image.astype(np.int32), level.astype(np.int8), lo.astype(np.float32), hi.astype(np.float32)


def plan_positive_chips(table, pyramid, strategy='minimum', seed=0, epoch=0, stride=32, image_ids=None, progress=None):
    return PositiveChipPlanner(table, pyramid, strategy, stride, seed, image_ids).plan(epoch)
