"""What a plan costs and what it covers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.plan import ChipPlan
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.rectangles import run_starts
from mmsniper.chips.targets import ChipLookup, iter_targets
from mmsniper.utils.words import numbered

# In float64 all boxes of Objects365 would be 0.8 GB.
_BOXES_AT_A_TIME = 2**18


@dataclass(frozen=True)
class PlanStatistics:
    """Numbers about a plan.

    Attributes:
        images: Images of the data set, with or without chips.
        boxes: Boxes that are not to be ignored.
        chips: Chips of the plan.
        chips_per_level: Chips at each level, fine to coarse.
        pairs: Pairs (box, level) that are valid and fit.
        covered: Pairs that a chip of the level encloses.
        orphans: Boxes that fit into a chip at no level where they are valid.
        covered_per_level: ``covered`` of each level, fine to coarse: the objects that it learns.
        too_small: Boxes that are invalid at each level, since they are below its valid range.
        too_large: Those that are above it.
    """

    images: int
    boxes: int
    chips: int
    chips_per_level: list[int]
    pairs: int
    covered: int
    orphans: int
    covered_per_level: list[int]
    too_small: list[int]
    too_large: list[int]

    @property
    def chips_per_image(self) -> float:
        """Mean number of chips."""
        return self.chips / max(self.images, 1)

    @property
    def coverage(self) -> float:
        """Covered fraction of the pairs; 1 where there are none."""
        return self.covered / self.pairs if self.pairs else 1.0


def plan_statistics(
    table: AnnotationTable, pyramid: ScalePyramid, plan: ChipPlan
) -> PlanStatistics:
    """Count a plan's chips and check which boxes they enclose.

    Args:
        table (AnnotationTable): Image sizes and boxes.
        pyramid (ScalePyramid): The scale pyramid.
        plan (ChipPlan): Chips of the table's images.
    """
    levels = pyramid.num_levels
    chips = ChipLookup.from_plan(plan, levels)
    (low, high), boxes = pyramid.ranges().T, int((~table.ignore).sum())
    too_small, too_large = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
    for start in range(0, len(table.boxes), _BOXES_AT_A_TIME):
        some = slice(start, start + _BOXES_AT_A_TIME)
        sizes = table.sizes_of(some)[~table.ignore[some], None]
        too_small += (sizes < low).sum(axis=0)
        too_large += (sizes >= high).sum(axis=0)
    pairs, covered, reached = 0, np.zeros(levels, np.int64), 0
    for _, part in iter_targets(table, pyramid):
        pairs += len(part.image)
        covered += np.bincount(part.level[chips.enclose(part)], minlength=levels)
        reached += len(np.unique(part.index))
        if pyramid.adopt_orphans:  # valid though out of range
            sizes = table.sizes_of(part.index)
            too_small -= np.bincount(part.level[sizes < low[part.level]], minlength=levels)
            too_large -= np.bincount(part.level[sizes >= high[part.level]], minlength=levels)
    return PlanStatistics(
        images=len(table),
        boxes=boxes,
        chips=len(plan),
        chips_per_level=plan.count_per_level(levels).tolist(),
        pairs=pairs,
        covered=int(covered.sum()),
        orphans=boxes - reached,
        covered_per_level=covered.tolist(),
        too_small=too_small.tolist(),
        too_large=too_large.tolist(),
    )


def what_levels_learn(
    found: PlanStatistics, table: AnnotationTable, pyramid: ScalePyramid
) -> list[str]:
    """What a plan has each level learn, a sentence for each level, fine to coarse.

    Args:
        found (PlanStatistics): Of the plan.
        table (AnnotationTable): Image sizes.
        pyramid (ScalePyramid): The scale pyramid.

    Returns:
        list[str]: Such as 'level 0 (scale 3, objects of 0 to 80 px): 120 objects in 70 chips, 35%
        of the pixels of an epoch; too small here and ignored: 0, too large: 40'. The scale
        is the median of the images.
    """
    scales = np.median(pyramid.scales(table.width, table.height), axis=0)
    lines = []
    for level, (low, high) in enumerate(pyramid.ranges().tolist()):
        sizes = f'{low:g} to {high:g} px' if math.isfinite(high) else f'{low:g} px and more'
        chips = found.chips_per_level[level]
        lines.append(
            f'level {level} (scale {scales[level]:.3g}, objects of {sizes}): '
            f'{numbered(found.covered_per_level[level], "object")} in {numbered(chips, "chip")}, '
            f'{chips / max(found.chips, 1):.0%} of the pixels of an epoch; too small here and '
            f'ignored: {found.too_small[level]}, too large: {found.too_large[level]}'
        )
    return lines


def learned_levels(table: AnnotationTable, pyramid: ScalePyramid) -> NDArray[np.bool_]:
    """At which levels each box is learned: where it is valid and fits into a chip.

    Args:
        table (AnnotationTable): Image sizes and boxes.
        pyramid (ScalePyramid): The scale pyramid.

    Returns:
        np.ndarray: (num_boxes, num_levels) bool, fine to coarse. Orphans, and boxes to ignore, have
        no level.
    """
    learned = np.zeros((len(table.boxes), pyramid.num_levels), bool)
    for _, part in iter_targets(table, pyramid):
        learned[part.index, part.level] = True
    return learned


def shown_area(table: AnnotationTable, plan: ChipPlan, num_levels: int) -> list[float]:
    """Area in the chips of each level over that of all images, fine to coarse.

    The rest is background that training never sees there: the room of negative chips.

    Args:
        table (AnnotationTable): Image sizes.
        plan (ChipPlan): Chips of the table's images.
        num_levels (int): Levels of the pyramid.
    """
    group = plan.group(num_levels)
    order = np.argsort(group, kind='stable')
    level, box = plan.level[order], plan.box[order].astype(np.float64)
    starts = run_starts(group[order])
    stops = np.append(starts[1:], len(order))
    area = (box[:, 2:] - box[:, :2]).prod(axis=1)[starts]
    for g in np.flatnonzero(stops - starts > 1):
        area[g] = _union_area(box[starts[g] : stops[g]])
    total = (table.width.astype(np.float64) * table.height).sum()
    return (np.bincount(level[starts], area, num_levels) / max(total, 1)).tolist()


def _union_area(boxes: NDArray[np.float64]) -> float:
    """Area that is in any of the boxes, in memory proportional to their number.

    A line sweeps over the image in x; what is counted is how many boxes it crosses between each
    two neighbouring coordinates in y.
    """
    x1, y1, x2, y2 = boxes.T
    y = np.unique(boxes[:, [1, 3]])
    height, crossed = np.diff(y), np.zeros(len(y) - 1, np.int64)
    ends = np.concatenate([x1, x2])
    order = np.argsort(ends, kind='stable')
    first, last = (np.tile(np.searchsorted(y, v), 2)[order].tolist() for v in (y1, y2))
    step = np.repeat([1, -1], len(boxes))[order].tolist()
    area, covered, before = 0.0, 0.0, 0.0
    for x, i, k, sign in zip(ends[order].tolist(), first, last, step):
        area += covered * (x - before)
        before, count = x, crossed[i:k]
        # What changes is where no box was, or is any more.
        if sign < 0:
            count -= 1
        covered += sign * float(height[i:k] @ (count == 0))
        if sign > 0:
            count += 1
    return area


def pixel_ratio(
    table: AnnotationTable, pyramid: ScalePyramid, chips: int, scale: tuple[int, int] = (1333, 800)
) -> float:
    """Pixels of so many chips over those of all images, each resized as a whole.

    Args:
        table (AnnotationTable): Image sizes.
        pyramid (ScalePyramid): The scale pyramid.
        chips (int): Number of chips.
        scale (tuple[int, int]): Limits for the longer and the shorter side, as in MMDetection's
            ``Resize(scale=..., keep_ratio=True)``. Defaults to (1333, 800).
    """
    wh = np.stack([table.width, table.height], axis=1).astype(np.float64)
    factor = np.minimum(max(scale) / wh.max(axis=1), min(scale) / wh.min(axis=1))
    pixels = np.floor(wh * factor[:, None] + 0.5).prod(axis=1).sum()
    return float(chips * pyramid.chip_size**2 / pixels)


def finest_ratio(table: AnnotationTable, pyramid: ScalePyramid, chips: int) -> float:
    """Pixels of so many chips over those of all images, each whole at the finest level.

    What chips save, to see small objects as large: the lower it is, the more is to be gained
    (:func:`what_to_expect`).

    Args:
        table (AnnotationTable): Image sizes.
        pyramid (ScalePyramid): The scale pyramid.
        chips (int): Number of chips.
    """
    scale = pyramid.scales(table.width, table.height)[:, 0]
    pixels = (table.width * scale * table.height * scale).sum()
    return float(chips * pyramid.chip_size**2 / max(pixels, 1))


def decoded_megapixels(table: AnnotationTable, plan: ChipPlan) -> float:
    """Megapixels of a chip's image, mean over chips: what is decoded for each unless it is kept."""
    if not len(plan):
        return 0.0
    pixels = np.multiply(table.width, table.height, dtype=np.float64)
    return float(pixels[plan.image].mean() / 1e6)


def plan_numbers(table: AnnotationTable, pyramid: ScalePyramid, plan: ChipPlan) -> dict[str, Any]:
    """All of the above about a plan, as the tools tell it.

    Args:
        table (AnnotationTable): Image sizes and boxes.
        pyramid (ScalePyramid): The scale pyramid.
        plan (ChipPlan): Chips of the table's images.

    Returns:
        dict: ``images``, ``chips``, ``chips_per_image``, ``chips_per_level``,
        ``pixel_ratio_800x1333``, ``pixel_ratio_finest``, ``decoded_megapixels`` (of the image, mean
        over chips), ``coverage``, ``orphans``, ``boxes`` and ``shown_area``.
    """
    found = plan_statistics(table, pyramid, plan)
    return dict(
        images=found.images,
        chips=found.chips,
        chips_per_image=found.chips_per_image,
        chips_per_level=found.chips_per_level,
        pixel_ratio_800x1333=pixel_ratio(table, pyramid, len(plan)),
        pixel_ratio_finest=finest_ratio(table, pyramid, len(plan)),
        decoded_megapixels=decoded_megapixels(table, plan),
        coverage=found.coverage,
        orphans=found.orphans,
        boxes=found.boxes,
        shown_area=shown_area(table, plan, pyramid.num_levels),
    )


MEASURED = (('toy scenes', 0.11), ('HIT-UAV', 0.15), ('BCCD', 0.61))
"""Data sets on which SNIPER was compared with whole images at equal training pixels, and their
:func:`finest_ratio`: it was far ahead on the first two, level on the last (docs/benchmarks.md)."""

FAR_AHEAD, LEVEL = 0.25, 0.5
"""Up to the one, and from the other on, :func:`what_to_expect` says what was measured. They lie
between the values of ``MEASURED``."""


MANY_ORPHANS = 0.05
"""Share of the boxes from which on :func:`what_to_expect` speaks of orphans only."""


def what_to_expect(ratio: float, orphans: float = 0.0) -> str:
    """For whose data SNIPER is, in a line that begins with the ratio.

    Args:
        ratio (float): :func:`finest_ratio`.
        orphans (float): Share of the boxes that are learned at no level: few pixels are no merit
            where they are few because objects are left out. Defaults to 0.0.
    """
    if orphans >= MANY_ORPHANS:
        what = (
            f'this says little, since {orphans:.0%} of the boxes are orphans, learned at no level. '
            f'Change the valid ranges or the chip size first, or set adopt_orphans=True for long '
            f'thin objects.'
        )
    elif ratio <= FAR_AHEAD:
        what = 'objects are sparse: chips save most of the pixels, which is what SNIPER is for.'
    elif ratio < LEVEL:
        what = 'chips save some of the pixels: compare with whole images at one scale.'
    else:
        what = (
            'objects are all over the images, so that chips save little: expect no more than from '
            'whole images at one scale.'
        )
    return f'{ratio:.3f} of the pixels of whole images at the finest level: {what}'


MUCH_TO_DECODE = 4.0
"""Megapixels from which on decoding a JPEG takes several times the rest of a chip's pipeline."""


def how_to_decode(megapixels: float, chips_per_image: float) -> str | None:
    """What to do about :func:`decoded_megapixels`, None if it is little or comes only once."""
    if megapixels < MUCH_TO_DECODE or chips_per_image < 1.5:
        return None
    return (
        f'an image of {megapixels:.3g} megapixels is decoded for each of its chips, of which it '
        f'has {chips_per_image:.2g}: if the loader is what limits, keep it between them by '
        f'sniper = dict(cache_mb=...), {3 * megapixels:.2g} MB for each chip of a batch '
        f'(docs/large_images.md)'
    )
