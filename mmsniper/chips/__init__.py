"""Which chips: pyramid, cover, plans of positive and negative chips. Pure NumPy and SciPy."""

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.coco_file import CocoFile, CocoUse, nearest_name
from mmsniper.chips.cover import Cover, grid_cover, minimum_cover
from mmsniper.chips.focus import (
    FocusMap,
    focus_chips,
    focus_rectangles,
    focus_sizes,
    merge_rectangles,
)
from mmsniper.chips.gaps import RangeGaps, range_gaps
from mmsniper.chips.negative import (
    COVERED,
    MIN_PROPOSALS,
    NegativeChipPlanner,
    NegativeChips,
    NegativeStatistics,
    draw_negative_chips,
    plan_negative_chips,
)
from mmsniper.chips.negative_pool import NegativeChipPool
from mmsniper.chips.plan import KINDS, NEGATIVE, POSITIVE, ChipPlan
from mmsniper.chips.positive import STRATEGIES, PositiveChipPlanner, plan_positive_chips
from mmsniper.chips.pyramid import Level, ResizeRule, ScalePyramid
from mmsniper.chips.pyramid_text import describe_range, describe_rule, pyramid_config
from mmsniper.chips.scale_agreement import SCALE_TOLERANCE, ScaleDisagreement, scale_disagreement
from mmsniper.chips.statistics import (
    PlanStatistics,
    decoded_megapixels,
    finest_ratio,
    how_to_decode,
    learned_levels,
    pixel_ratio,
    plan_numbers,
    plan_statistics,
    shown_area,
    what_to_expect,
)
from mmsniper.chips.suggestion import (
    GOOD_SIZE_RANGE,
    SizeShares,
    Suggestion,
    network_sizes,
    size_shares,
    suggest_pyramid,
)
from mmsniper.chips.windows import chip_window

__all__ = [
    'COVERED',
    'GOOD_SIZE_RANGE',
    'KINDS',
    'MIN_PROPOSALS',
    'NEGATIVE',
    'POSITIVE',
    'SCALE_TOLERANCE',
    'STRATEGIES',
    'AnnotationTable',
    'ChipPlan',
    'CocoFile',
    'CocoUse',
    'Cover',
    'FocusMap',
    'Level',
    'NegativeChipPlanner',
    'NegativeChipPool',
    'NegativeChips',
    'NegativeStatistics',
    'PlanStatistics',
    'PositiveChipPlanner',
    'RangeGaps',
    'ResizeRule',
    'ScaleDisagreement',
    'ScalePyramid',
    'SizeShares',
    'Suggestion',
    'chip_window',
    'decoded_megapixels',
    'describe_range',
    'describe_rule',
    'draw_negative_chips',
    'finest_ratio',
    'focus_chips',
    'focus_rectangles',
    'focus_sizes',
    'grid_cover',
    'how_to_decode',
    'learned_levels',
    'merge_rectangles',
    'minimum_cover',
    'nearest_name',
    'network_sizes',
    'pixel_ratio',
    'plan_negative_chips',
    'plan_numbers',
    'plan_positive_chips',
    'plan_statistics',
    'pyramid_config',
    'range_gaps',
    'scale_disagreement',
    'shown_area',
    'size_shares',
    'suggest_pyramid',
    'what_to_expect',
]
