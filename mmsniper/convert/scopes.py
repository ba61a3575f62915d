"""Scopes: in which package a name of a config is looked up.

MMDetection's names are found where ``default_scope`` is ``'mmdet'``. A config of another package,
such as MMRotate, writes ``'mmdet.FasterRCNN'``, and a plain name there is its own.
"""

from __future__ import annotations

import importlib
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from mmsniper.datasets.wrappers import all_configs

_OURS = 'mmdet'
# Keys of ours whose value is a type.
_TYPES = ('type', 'head', 'detector')


def other_scopes(cfg: Config) -> set[str]:
    """The packages beside MMDetection in which names of a config are looked up."""
    parts = all_configs(cfg._cfg_dict)
    scopes = {cfg.get('default_scope'), *(part.get('_scope_') for _, part in parts)}
    return scopes - {None, '', _OURS, 'mmengine', 'mmcv', 'mmsniper'}


def spell_out(cfg: Config, scopes: set[str]) -> None:
    """Write the package before each plain name that one of other packages has.

    What the conversion adds after that is MMDetection's, and so are plain names
    (:func:`spell_out_ours`).

    Args:
        cfg (Config): The config, changed in place.
        scopes (set[str]): As found by :func:`other_scopes`.

    Raises:
        ValueError: If a package is not installed, or cannot be imported.
    """
    known = {scope: _registered(scope) for scope in scopes}
    for _, part in all_configs(cfg._cfg_dict):
        scope = part.get('_scope_') or cfg.get('default_scope')
        _put_before(part, scope, known.get(scope, frozenset()))


def spell_out_ours(cfg: Config) -> None:
    """Write ``mmdet.`` before each plain name that MMDetection's registries have, in place."""
    known = _registered(_OURS)
    for _, part in all_configs(cfg._cfg_dict):
        _put_before(part, _OURS, known)


def _put_before(part: Any, scope: str, names: frozenset[str]) -> None:
    for key in _TYPES:
        if isinstance(part.get(key), str) and part[key] in names:
            part[key] = f'{scope}.{part[key]}'


def _registered(scope: str) -> frozenset[str]:
    """Names in the registries of a package."""
    try:
        importlib.import_module(f'{scope}.utils').register_all_modules(init_default_scope=False)
        registries = vars(importlib.import_module(f'{scope}.registry')).values()
    except (ImportError, AttributeError, AssertionError) as error:
        raise ValueError(
            f'the config looks names up in {scope} (default_scope), which cannot be imported: '
            f'{error}. For rotated boxes: docs/howto/rotated_boxes.md'
        ) from error
    return frozenset(
        name
        for registry in registries
        if isinstance(registry, Registry) and registry.scope == scope
        for name in registry.module_dict
    )
