"""``custom_imports``: what a config that uses mmsniper needs, whatever else it imports."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

from mmengine.config import Config

import mmsniper
from mmsniper.datasets.wrappers import type_name

PACKAGE = 'mmsniper'


def with_imports(cfg: Config) -> Config:
    """Import mmsniper, and name it in ``custom_imports`` of a config that uses it.

    A config that sets ``custom_imports`` for a module of its own replaces the list of its base,
    and with it ours.

    Args:
        cfg (Config): The config. Left as it is.

    Returns:
        Config: A shallow copy that names mmsniper; the config itself if it does so already, or
        has neither a pyramid nor a type of ours.
    """
    mmsniper.register_all_modules()
    imports = cfg.get('custom_imports') or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if PACKAGE in names or not ('pyramid' in cfg or _our_types() & set(_types(cfg._cfg_dict))):
        return cfg
    cfg = copy(cfg)
    cfg.custom_imports = dict(imports, imports=[*names, PACKAGE])
    return cfg


def _our_types() -> set[str]:
    """Names of the classes that mmsniper has registered, in mmengine (hooks) or MMDetection."""
    from mmdet import registry
    from mmengine.registry import Registry

    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    return {
        name
        for registry in registries
        for name, registered in registry.module_dict.items()
        if registered.__module__.startswith(f'{PACKAGE}.')
    }


def _types(value: Any) -> Iterator[str]:
    """All types that a config names."""
    if isinstance(value, dict):
        yield type_name(value)
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for inner in value:
        yield from _types(inner)
