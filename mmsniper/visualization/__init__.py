"""Pictures of chips and detections, from plain arrays to PNG files."""

from .chips import CROWD, INVALID, VALID, ChipView, boxes_in_chips, draw_chips
from .detections import draw_detections, match_detections
from .figure import save_figure
from .focus import draw_focus, draw_focus_curve
from .sizes import draw_sizes

__all__ = [
    'CROWD', 'INVALID', 'VALID', 'ChipView', 'boxes_in_chips', 'draw_chips', 'draw_detections',
    'draw_focus', 'draw_focus_curve', 'draw_sizes', 'match_detections', 'save_figure',
]
