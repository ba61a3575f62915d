"""Random weights that find something, for tests of what is around a detector."""

from pathlib import Path

import torch
from mmdet.registry import MODELS

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[1]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'


def autofocus_checkpoint(folder: Path) -> Path:
    """Weights of the toy scenes' AutoFocus config, at random, but the same every time."""
    torch.manual_seed(0)
    model = MODELS.build(load_config(AUTOFOCUS).model)
    with torch.no_grad():  # scores and FocusPixels that differ from place to place
        model.roi_head.bbox_head.fc_cls.weight.mul_(30)
        model.focus_head.cls.weight.mul_(30)
    path = folder / 'autofocus.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path
