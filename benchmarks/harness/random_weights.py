"""Random weights that find something, for what is around a detector: its costs, and tests."""

from __future__ import annotations

from pathlib import Path

import torch
from mmdet.registry import MODELS

from mmsniper.convert import load_config


def random_weights(config: Path, folder: Path, focus_bias: float = 0.0) -> Path:
    """Write weights of an AutoFocus at random, the same every time.

    Args:
        config (Path): Config of an AutoFocus with a two-stage detector.
        folder (Path): Where the checkpoint goes.
        focus_bias (float): Of the logit of a FocusPixel: the lower, the fewer there are. Defaults
            to 0.

    Returns:
        Path: The checkpoint, ``autofocus.pth``.
    """
    torch.manual_seed(0)
    model = MODELS.build(load_config(config).model)
    with torch.no_grad():  # scores and FocusPixels that differ from place to place
        model.roi_head.bbox_head.fc_cls.weight.mul_(30)
        model.focus_head.cls.weight.mul_(30)
        model.focus_head.cls.bias[1::2] += focus_bias  # background, FocusPixel of each level
    path = folder / 'autofocus.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path
