"""What SNIPER's training and inference do differently: label assignment and merging of levels."""

from .assigners import ValidRangeAssigner, ignore_near_invalid, split_ignored
from .level_range import LevelRange
from .roi_heads import SNIPERCascadeRoIHead, SNIPERRoIHead, SNIPERRoIMixin
from .tta import SNIPERTTAModel

__all__ = [
    'LevelRange',
    'SNIPERCascadeRoIHead',
    'SNIPERRoIHead',
    'SNIPERRoIMixin',
    'SNIPERTTAModel',
    'ValidRangeAssigner',
    'ignore_near_invalid',
    'split_ignored',
]
