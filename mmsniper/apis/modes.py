"""How a config's detector sees images, or another way that its model allows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from inspect import signature
from typing import Any

from mmengine.config import Config, ConfigDict

from mmsniper.convert.inference import is_own, sees_coarse_to_fine, sees_levels
from mmsniper.datasets.transforms.load_image_windows import (
    PACK_WINDOWS,
    WINDOWS,
    in_whole_version,
    in_window_version,
)
from mmsniper.datasets.wrappers import read_datasets, type_name
from mmsniper.models import AutoFocus

SINGLE, PYRAMID, AUTOFOCUS = MODES = ('single', 'pyramid', 'autofocus')

# Transforms that leave the image as it is.
_NO_CHANGES = ('LoadAnnotations', 'PackDetInputs', PACK_WINDOWS)

# What an AutoFocus has beside a PyramidDetector.
_BRANCH = set(signature(AutoFocus.__init__).parameters) - {'self', 'kwargs'}


def mode_config(cfg: Config, mode: str | None = None) -> tuple[ConfigDict, list[Mapping[str, Any]]]:
    """The model and the pipeline of a mode.

    Args:
        cfg (Config): The config. Left as it is.
        mode (str | None): One of ``MODES``. Defaults to None, as the config tests.

    Returns:
        tuple[ConfigDict, list[dict]]: Config of the model, and those of the transforms, of which
        the first loads the image. That is all for a model that sees the image as it is.

    Raises:
        ValueError: If the config lacks what the mode needs.
    """
    if mode not in (None, *MODES):
        raise ValueError(f'mode must be one of {", ".join(MODES)}, got {mode!r}')
    cfg = deepcopy(cfg)
    model, name = cfg.model, type_name(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    loader = cfg.get('test_dataloader')
    pipeline = loader and next(read_datasets(loader.dataset)).get('pipeline')
    if sees_levels(model):
        loading, *others = pipeline or [ConfigDict(type='LoadImageFromFile')]
        changes = [step for step in others if type_name(step) not in _NO_CHANGES]
        if mode == SINGLE and not any('Resize' in type_name(step) for step in changes):
            # What has a scale_factor is seen once, by the detector as it is.
            changes = [ConfigDict(type='mmdet.Resize', scale_factor=1.0, keep_ratio=True), *changes]
            others = [ConfigDict(type='mmdet.PackDetInputs')]
        # Without any the image need not be copied, which packing does.
        pipeline = [loading, *changes, others[-1]] if changes else [loading]
        model.pop('val_levels', None)  # AutoFocus takes not all of them
        _set_mode(model, mode)
    elif mode not in (None, SINGLE):
        raise ValueError(
            f'--mode {mode} needs a model of type PyramidDetector or AutoFocus, which SNIPER '
            f'configs have; {cfg.filename} has a {name}: leave --mode out'
        )
    if not pipeline:
        raise ValueError(
            f'{cfg.filename} has no test_dataloader whose data set has a pipeline, which tells how '
            f'images are loaded and resized'
        )
    loading = _loading(cfg, pipeline[0])
    # What sees the image as it is takes windows of it.
    loading = in_whole_version(loading) if pipeline[1:] else in_window_version(loading)
    return model, [ConfigDict(loading), *pipeline[1:]]


def _set_mode(model: ConfigDict, mode: str | None) -> None:
    """Exchange the type of a model that sees levels; a class of the user's keeps its place."""
    coarse_to_fine = sees_coarse_to_fine(model)
    if mode == AUTOFOCUS and is_own(model) and not coarse_to_fine:
        raise ValueError(
            f'--mode {mode} needs an AutoFocus, and {type_name(model)} is none: derive it from '
            f'mmsniper.models.AutoFocus, or leave --mode out'
        )
    if not is_own(model) and mode is not None:
        model.type = 'AutoFocus' if mode == AUTOFOCUS else 'PyramidDetector'
    if mode in (SINGLE, PYRAMID):
        for key in _BRANCH & set(model):
            del model[key]
        if is_own(model) and coarse_to_fine:
            model.thresholds = 0.0  # it looks everywhere: all levels


def _loading(cfg: Config, transform: Mapping[str, Any]) -> Mapping[str, Any]:
    """The transform that loads images."""
    name = type_name(transform)
    if 'LoadImageFromFile' not in name and name not in ('LoadLargeImageFromFile', WINDOWS):
        raise ValueError(
            f'the pipeline of {cfg.filename} begins with {name}; image files need '
            f'LoadImageFromFile there'
        )
    return transform
