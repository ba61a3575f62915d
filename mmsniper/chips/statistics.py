"""What a plan costs and what it covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .plan import AnnotationTable, ChipPlan
from .pyramid import ScalePyramid
from .targets import Windows, targets


@dataclass(frozen=True)
class PlanStatistics:
    """Numbers about a plan.

    Attributes:
        images: Images of the data set, with or without chips.
        boxes: Boxes that are not to be ignored.
        chips: Chips of the plan.
        chips_per_level: Chips at each level, fine to coarse.
        pairs: Pairs (box, level) that are valid and fit.
        covered: Those of them that a chip of the level encloses.
        orphans: Boxes that fit into a chip at no level where they are valid.
    """

    images: int
    boxes: int
    chips: int
    chips_per_level: list[int]
    pairs: int
    covered: int
    orphans: int

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
        table: Image sizes and boxes.
        pyramid: The scale pyramid.
        plan: Chips of the table's images, which ``plan.image`` indexes.
    """
    windows = Windows.of(plan, pyramid.num_levels)
    boxes, pairs, covered, reached = int((~table.ignore).sum()), 0, 0, 0
    for _, part in targets(table, pyramid):
        pairs += len(part.image)
        covered += int(windows.enclose(part).sum())
        reached += len(np.unique(part.index))
    return PlanStatistics(
        images=len(table), boxes=boxes, chips=len(plan),
        chips_per_level=plan.count_per_level(pyramid.num_levels).tolist(), pairs=pairs,
        covered=covered, orphans=boxes - reached,
    )


def pixel_ratio(
    table: AnnotationTable, pyramid: ScalePyramid, chips: int,
    scale: tuple[int, int] = (1333, 800),
) -> float:
    """Pixels of so many chips over those of all images, each resized as a whole.

    Args:
        table: Image sizes.
        pyramid: The scale pyramid.
        chips: Number of chips.
        scale: Limits for the longer and the shorter side, as in MMDetection's
            ``Resize(scale=..., keep_ratio=True)``. Default: (1333, 800).
    """
    wh = np.stack([table.width, table.height], axis=1).astype(np.float64)
    factor = np.minimum(max(scale) / wh.max(axis=1), min(scale) / wh.min(axis=1))
    pixels = np.floor(wh * factor[:, None] + 0.5).prod(axis=1).sum()
    return float(chips * pyramid.chip_size**2 / pixels)
