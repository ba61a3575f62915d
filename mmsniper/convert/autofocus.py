"""Testing coarse to fine: the detector gets a FocusPixel branch and looks at FocusChips."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from inspect import signature
from typing import Any

from mmengine.config import Config, ConfigDict

from mmsniper.convert.inference import image_loading, use_test_pipeline
from mmsniper.convert.model import as_list
from mmsniper.datasets.wrappers import type_name
from mmsniper.models import AutoFocus

# Without a scale_factor the image is seen coarse to fine, see AutoFocus.
_META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape')


def autofocus_model(
    detector: ConfigDict,
    pyramid: Mapping[str, Any],
    tta_model: Mapping[str, Any],
    options: Mapping[str, Any],
) -> ConfigDict:
    """The config of an ``AutoFocus`` around a detector.

    The branch has the channels of the neck, and each level's sizes come from the pyramid.

    Args:
        detector (ConfigDict): The detector's config.
        pyramid (dict): The scale pyramid's config.
        tta_model (dict): The config that tests all levels: levels are merged in the same way.
        options (dict): Arguments of ``AutoFocus``; those of ``focus_head`` are added to the
            branch's, and ``focus_head=None`` leaves it out. Arguments of ``AutoFocus`` in
            ``detector`` are taken out of it and go before these.

    Returns:
        ConfigDict: The new model.

    Raises:
        ValueError: If the detector predicts no classes, or the channels are unknown.
    """
    if type_name(detector) == 'RPN':
        raise ValueError('AutoFocus is for detectors, an RPN only proposes: leave it out')
    # --cfg-options model.thresholds=... is for the AutoFocus, whoever wraps the detector in it.
    arguments = set(signature(AutoFocus).parameters) - {'detector', 'pyramid', 'init_cfg'}
    given = {key: detector.pop(key) for key in sorted(arguments) if key in detector}
    same = {key: tta_model[key] for key in ('tta_cfg', 'view_test_cfg') if key in tta_model}
    model = ConfigDict(type='AutoFocus', detector=detector, pyramid=pyramid, **deepcopy(same))
    options = {'focus_head': {}, **options, **given}
    head = options.pop('focus_head')
    if head is not None:
        ours = {} if 'type' in head else dict(type='PyramidFocusHead', pyramid=pyramid)
        head = ConfigDict(head, **ours)
        if 'in_channels' not in head:
            head.in_channels = _channels(detector)
    model.merge(options)
    model.focus_head = head
    return model


def see_coarse_to_fine(cfg: Config) -> None:
    """Give the test the images as they are, loaded as its own pipeline loads them."""
    pipeline = [
        image_loading(cfg),
        ConfigDict(type='LoadAnnotations', with_bbox=True),
        ConfigDict(type='PackDetInputs', meta_keys=_META_KEYS),
    ]
    cfg.test_pipeline = pipeline
    if cfg.get('test_dataloader') is not None:
        # Set in Python it may be that of validation, which sees images at one scale.
        cfg.test_dataloader = deepcopy(cfg.test_dataloader)
        use_test_pipeline(cfg, pipeline)


def _channels(detector: Mapping[str, Any]) -> int:
    """Channels of the neck's maps."""
    last = as_list(detector.get('neck') or {})[-1]
    channels = last.get('out_channels')
    if not isinstance(channels, int):
        raise ValueError(
            f'how many channels the maps of {type_name(detector)} have cannot be told from its '
            f'neck ({type_name(last) or "it has none"}): write '
            f'sniper = dict(autofocus=dict(focus_head=dict(in_channels=...)))'
        )
    return channels
