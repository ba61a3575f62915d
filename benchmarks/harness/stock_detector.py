"""The detector that is trained by SNIPER, as stock MMDetection would train and test it."""

from __future__ import annotations

from copy import deepcopy
from inspect import signature
from typing import Any

from mmengine.config import ConfigDict

from mmsniper.convert.model import DENSE_HEADS, ROI_HEADS
from mmsniper.models import AutoFocus, PyramidDetector

# What these have beside their detector.
_OURS = {
    name
    for kind in (PyramidDetector, AutoFocus)
    for name in signature(kind.__init__).parameters
    if name not in ('self', 'kwargs')
}
_STOCK_TYPES = {ours: stock for stock, ours in {**ROI_HEADS, **DENSE_HEADS}.items()}
_STOCK_TYPES |= {'ValidRangeAssigner': 'MaxIoUAssigner', 'SNIPERRPNHead': 'RPNHead'}
_OF_OUR_PARTS = ('pyramid', 'ignore_iou_thr', 'head')


def stock_detector(model: ConfigDict) -> ConfigDict:
    """The config of the detector that a ``PyramidDetector`` or an ``AutoFocus`` is.

    The weights fit, but for those of AutoFocus's branch, ``focus_head.*``. It tests images at the
    one scale that its pipeline resizes them to.

    Args:
        model (ConfigDict): The config of the model. Left as it is.
    """
    kept = {key: value for key, value in model.items() if key not in _OURS}
    return ConfigDict(kept, type=model.detector)


def stock_training(model: ConfigDict) -> ConfigDict:
    """The config of the same detector with stock heads and assigners in place of ours.

    The weights fit. Everything else, such as numbers of proposals and samples, is as in ``model``.

    Args:
        model (ConfigDict): The config of a ``PyramidDetector`` or an ``AutoFocus``. Left as it is.
    """
    return _without_ours(deepcopy(stock_detector(model)))


def _without_ours(part: Any) -> Any:
    if isinstance(part, list | tuple):
        return type(part)(map(_without_ours, part))
    if not isinstance(part, dict):
        return part
    if part.get('type') == 'IgnoreInvalidAssigner':
        return _without_ours(part['assigner'])
    stock = _STOCK_TYPES.get(part.get('type'))
    if part.get('type') == 'SNIPERRoIHead':
        stock = part.get('head', 'StandardRoIHead')
    return ConfigDict(
        {
            key: _without_ours(value)
            for key, value in part.items()
            if not (stock and key in _OF_OUR_PARTS)
        },
        **({'type': stock} if stock else {}),
    )
