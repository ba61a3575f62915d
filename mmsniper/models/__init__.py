"""What SNIPER's training and inference do differently: label assignment and merging of levels."""

from .assigners import (
    IgnoreInvalidAssigner,
    ValidRangeAssigner,
    ignore_near_invalid,
    split_ignored,
)
from .dense_heads import (
    SNIPERDeformableDETRHead,
    SNIPERDINOHead,
    SNIPERFCOSHead,
    SNIPERSetPredictionMixin,
)
from .level_range import LevelRange
from .roi_heads import SNIPERCascadeRoIHead, SNIPERRoIHead, SNIPERRoIMixin
from .tta import SNIPERTTAModel

__all__ = [
    'IgnoreInvalidAssigner',
    'LevelRange',
    'SNIPERCascadeRoIHead',
    'SNIPERDINOHead',
    'SNIPERDeformableDETRHead',
    'SNIPERFCOSHead',
    'SNIPERRoIHead',
    'SNIPERRoIMixin',
    'SNIPERSetPredictionMixin',
    'SNIPERTTAModel',
    'ValidRangeAssigner',
    'ignore_near_invalid',
    'split_ignored',
]
