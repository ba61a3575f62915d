"""Which chips: pyramid, cover, plan. Pure NumPy and SciPy."""

from .cover import Cover, minimum_cover
from .plan import KINDS, NEGATIVE, POSITIVE, AnnotationTable, ChipPlan
from .positive import PositiveChipPlanner, plan_positive_chips
from .pyramid import Level, ResizeRule, ScalePyramid

__all__ = [
    'KINDS',
    'NEGATIVE',
    'POSITIVE',
    'AnnotationTable',
    'ChipPlan',
    'Cover',
    'Level',
    'PositiveChipPlanner',
    'ResizeRule',
    'ScalePyramid',
    'minimum_cover',
    'plan_positive_chips',
]
