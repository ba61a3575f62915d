"""Pictures of chips and detections, from plain arrays to PNG files."""

from mmsniper.visualization.chips import CROWD, INVALID, VALID, ChipView, boxes_in_chips, draw_chips
from mmsniper.visualization.detections import draw_detections, match_detections
from mmsniper.visualization.false_positives import FalsePositive, draw_false_positives, surroundings
from mmsniper.visualization.figure import save_figure
from mmsniper.visualization.focus import draw_focus, draw_focus_curve
from mmsniper.visualization.picture import as_picture
from mmsniper.visualization.sizes import draw_sizes

__all__ = [
    'CROWD',
    'INVALID',
    'VALID',
    'ChipView',
    'FalsePositive',
    'as_picture',
    'boxes_in_chips',
    'draw_chips',
    'draw_detections',
    'draw_false_positives',
    'draw_focus',
    'draw_focus_curve',
    'draw_sizes',
    'match_detections',
    'save_figure',
    'surroundings',
]
