"""What the tests of several tools share."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights of the toy scenes' AutoFocus config, at random, but the same every time."""
    register_all_modules()
    torch.manual_seed(0)
    config = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
    model = MODELS.build(load_config(config).model)
    with torch.no_grad():  # scores and FocusPixels that differ from place to place
        model.roi_head.bbox_head.fc_cls.weight.mul_(30)
        model.focus_head.cls.weight.mul_(30)
    path = tmp_path_factory.mktemp('weights') / 'autofocus.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path
