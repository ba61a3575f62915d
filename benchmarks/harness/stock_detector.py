"""The detector that is trained by SNIPER, as stock MMDetection would test it."""

from __future__ import annotations

from inspect import signature

from mmengine.config import ConfigDict

from mmsniper.models import AutoFocus, PyramidDetector

# What these have beside their detector.
_OURS = {
    name
    for kind in (PyramidDetector, AutoFocus)
    for name in signature(kind.__init__).parameters
    if name not in ('self', 'kwargs')
}


def stock_detector(model: ConfigDict) -> ConfigDict:
    """The config of the detector that a ``PyramidDetector`` or an ``AutoFocus`` is.

    The weights fit, but for those of AutoFocus's branch, ``focus_head.*``. It tests images at the
    one scale that its pipeline resizes them to.

    Args:
        model (ConfigDict): The config of the model. Left as it is.
    """
    kept = {key: value for key, value in model.items() if key not in _OURS}
    return ConfigDict(kept, type=model.detector)
