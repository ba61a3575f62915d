"""What SNIPER's training and inference do differently: label assignment, all levels in testing."""

from mmsniper.models.assigners import (
    IgnoreInvalidAssigner,
    ValidRangeAssigner,
    ignore_near_invalid,
    split_ignored,
)
from mmsniper.models.autofocus import AutoFocus
from mmsniper.models.co_detr import SNIPERCoATSSHead, SNIPERCoDINOHead, SNIPERCoRoIHead
from mmsniper.models.data_preprocessor import BandDataPreprocessor
from mmsniper.models.dense_heads import (
    SNIPERCenterNetUpdateHead,
    SNIPERFCOSHead,
    SNIPERFoveaHead,
    SNIPERFreeAnchorRetinaHead,
    SNIPERNASFCOSHead,
    SNIPERPAAHead,
    SNIPERPointsMixin,
    SNIPERRPNHead,
    SNIPERRTMDetInsHead,
    SNIPERRTMDetInsMixin,
    SNIPERRTMDetInsSepBNHead,
    SNIPERVFNetHead,
    SNIPERYOLOXHead,
)
from mmsniper.models.focus_head import FocusHead, PyramidFocusHead, focus_targets
from mmsniper.models.grounding_dino import SNIPERGroundingDINO, SNIPERGroundingDINOHead
from mmsniper.models.guided_anchoring import (
    SNIPERGARetinaHead,
    SNIPERGARPNHead,
    SNIPERGuidedAnchorMixin,
)
from mmsniper.models.level_range import LevelRange
from mmsniper.models.necks import ConcatNeck
from mmsniper.models.pyramid_detector import PyramidDetector
from mmsniper.models.roi_heads import SNIPERRoIHead, SNIPERRoIMixin, SNIPERSparseRoIHead
from mmsniper.models.set_prediction_heads import (
    SNIPERConditionalDETRHead,
    SNIPERDABDETRHead,
    SNIPERDDQDETRHead,
    SNIPERDeformableDETRHead,
    SNIPERDETRHead,
    SNIPERDINOHead,
    SNIPERMask2FormerHead,
    SNIPERSetPredictionMixin,
)
from mmsniper.models.tta import SNIPERTTAModel

__all__ = [
    'AutoFocus',
    'BandDataPreprocessor',
    'ConcatNeck',
    'FocusHead',
    'IgnoreInvalidAssigner',
    'LevelRange',
    'PyramidDetector',
    'PyramidFocusHead',
    'SNIPERCenterNetUpdateHead',
    'SNIPERCoATSSHead',
    'SNIPERCoDINOHead',
    'SNIPERCoRoIHead',
    'SNIPERConditionalDETRHead',
    'SNIPERDABDETRHead',
    'SNIPERDDQDETRHead',
    'SNIPERDETRHead',
    'SNIPERDINOHead',
    'SNIPERDeformableDETRHead',
    'SNIPERFCOSHead',
    'SNIPERFoveaHead',
    'SNIPERFreeAnchorRetinaHead',
    'SNIPERGARPNHead',
    'SNIPERGARetinaHead',
    'SNIPERGroundingDINO',
    'SNIPERGroundingDINOHead',
    'SNIPERGuidedAnchorMixin',
    'SNIPERMask2FormerHead',
    'SNIPERNASFCOSHead',
    'SNIPERPAAHead',
    'SNIPERPointsMixin',
    'SNIPERRPNHead',
    'SNIPERRTMDetInsHead',
    'SNIPERRTMDetInsMixin',
    'SNIPERRTMDetInsSepBNHead',
    'SNIPERRoIHead',
    'SNIPERRoIMixin',
    'SNIPERSetPredictionMixin',
    'SNIPERSparseRoIHead',
    'SNIPERTTAModel',
    'SNIPERVFNetHead',
    'SNIPERYOLOXHead',
    'ValidRangeAssigner',
    'focus_targets',
    'ignore_near_invalid',
    'split_ignored',
]
