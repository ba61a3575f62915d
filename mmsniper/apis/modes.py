"""Three ways to detect, and what each needs of a config."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

from mmsniper.convert.autofocus import autofocus_model
from mmsniper.datasets.wrappers import read_datasets, type_name

SINGLE, PYRAMID, AUTOFOCUS = MODES = ('single', 'pyramid', 'autofocus')

_NEEDS = {
    SINGLE: 'a test_dataloader whose data set has a pipeline',
    PYRAMID: 'tta_model and tta_pipeline, which SNIPER configs have',
    AUTOFOCUS: "a model of type 'AutoFocus', or a pyramid, which SNIPER configs have",
}


def mode_config(cfg: Config, mode: str) -> tuple[ConfigDict, list[Mapping[str, Any]]]:
    """The model and the pipeline of a mode.

    Args:
        cfg (Config): The config. Left as it is.
        mode (str): One of ``MODES``.

    Returns:
        tuple[ConfigDict, list[dict]]: Config of the model, and those of the transforms, of which
        the first loads the image. For AutoFocus that is all: it sees the image as it is.

    Raises:
        ValueError: If the config lacks what the mode needs.
    """
    if mode not in MODES:
        raise ValueError(f'mode must be one of {", ".join(MODES)}, got {mode!r}')
    cfg = deepcopy(cfg)
    is_autofocus = type_name(cfg.model) == 'AutoFocus'
    single = _pipeline(cfg.get('val_dataloader' if is_autofocus else 'test_dataloader'))
    has = {
        SINGLE: single is not None,
        PYRAMID: 'tta_model' in cfg and 'tta_pipeline' in cfg,
        AUTOFOCUS: is_autofocus or 'pyramid' in cfg,
    }
    if not has[mode]:
        works = ' or '.join(other for other in MODES if has[other])
        raise ValueError(
            f'--mode {mode} needs {_NEEDS[mode]}; {cfg.filename} has none. '
            + (f'With it works: --mode {works}' if works else 'No mode works with it')
        )
    detector = cfg.model.detector if is_autofocus else cfg.model
    if cfg.get('data_preprocessor'):
        detector.setdefault('data_preprocessor', cfg.data_preprocessor)
    if mode == PYRAMID:
        model, pipeline = ConfigDict(**cfg.tta_model, module=detector), cfg.tta_pipeline
    elif mode == SINGLE:
        model, pipeline = detector, single
    else:
        model, pipeline = cfg.model, (single or [ConfigDict(type='LoadImageFromFile')])[:1]
        if not is_autofocus:
            tta_model = cfg.get('tta_model') or {}
            model = autofocus_model(detector, cfg.pyramid, tta_model, dict(focus_head=None))
    return model, [_loading(cfg, pipeline[0]), *pipeline[1:]]


def _pipeline(loader: Mapping[str, Any] | None) -> list[Mapping[str, Any]] | None:
    """The pipeline of a loader's (first) data set."""
    if loader is None:
        return None
    return next(read_datasets(loader.dataset)).get('pipeline') or None


def _loading(cfg: Config, transform: Mapping[str, Any]) -> ConfigDict:
    """The transform that loads images, in the version that does so once."""
    name = type_name(transform)
    if 'LoadImageFromFile' not in name:
        raise ValueError(
            f'the pipeline of {cfg.filename} begins with {name}; image files need '
            f'LoadImageFromFile there'
        )
    if name == 'LoadImageFromFile':
        return ConfigDict(transform, type='mmdet.LoadLargeImageFromFile')
    return transform
