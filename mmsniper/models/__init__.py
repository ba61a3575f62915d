"""What SNIPER's training and inference do differently: label assignment and merging of levels."""

from .assigners import (
    IgnoreInvalidAssigner,
    ValidRangeAssigner,
    ignore_near_invalid,
    split_ignored,
)
from .autofocus import AutoFocus
from .dense_heads import (
    SNIPERDeformableDETRHead,
    SNIPERDINOHead,
    SNIPERFCOSHead,
    SNIPERSetPredictionMixin,
)
from .focus_head import FocusHead, PyramidFocusHead, focus_targets
from .level_range import LevelRange
from .roi_heads import SNIPERCascadeRoIHead, SNIPERRoIHead, SNIPERRoIMixin
from .tta import SNIPERTTAModel

__all__ = [
    'AutoFocus',
    'FocusHead',
    'IgnoreInvalidAssigner',
    'LevelRange',
    'PyramidFocusHead',
    'SNIPERCascadeRoIHead',
    'SNIPERDINOHead',
    'SNIPERDeformableDETRHead',
    'SNIPERFCOSHead',
    'SNIPERRoIHead',
    'SNIPERRoIMixin',
    'SNIPERSetPredictionMixin',
    'SNIPERTTAModel',
    'ValidRangeAssigner',
    'focus_targets',
    'ignore_near_invalid',
    'split_ignored',
]
