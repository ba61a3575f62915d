"""Which chips: pyramid, cover, plan. Pure NumPy and SciPy."""

from .cover import Cover, grid_cover, minimum_cover
from .plan import KINDS, NEGATIVE, POSITIVE, AnnotationTable, ChipPlan
from .positive import STRATEGIES, PositiveChipPlanner, plan_positive_chips
from .pyramid import Level, ResizeRule, ScalePyramid
from .statistics import PlanStatistics, pixel_ratio, plan_statistics

__all__ = [
    'KINDS',
    'NEGATIVE',
    'POSITIVE',
    'STRATEGIES',
    'AnnotationTable',
    'ChipPlan',
    'Cover',
    'Level',
    'PlanStatistics',
    'PositiveChipPlanner',
    'ResizeRule',
    'ScalePyramid',
    'grid_cover',
    'minimum_cover',
    'pixel_ratio',
    'plan_positive_chips',
    'plan_statistics',
]
