"""Pools of what ``plan_negative_chips`` has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmsniper.chips import AnnotationTable, ChipPlan, NegativeChipPool, ScalePyramid


def pool_of(
    pyramid: ScalePyramid,
    paths: Sequence[str],
    table: AnnotationTable,
    found: Any,
    uncovered: ChipPlan | None = None,
    **more: Any,
) -> NegativeChipPool:
    """The pool of the chips that were found in images; ``uncovered`` instead of the found's."""
    uncovered = found.uncovered if uncovered is None else uncovered
    return NegativeChipPool(
        pyramid=pyramid,
        img_path=np.array(paths, np.str_),
        width=table.width,
        height=table.height,
        chips=found.chips,
        proposals_per_chip=found.proposals_per_chip,
        statistics=found.statistics,
        uncovered_image=uncovered.image.astype(np.int32),
        uncovered_level=uncovered.level.astype(np.int8),
        uncovered_box=uncovered.box.astype(np.float32),
        **more,
    )
