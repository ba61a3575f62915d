"""``custom_imports``: what a config that uses mmsniper needs, whatever else it imports."""

from __future__ import annotations

from copy import copy

from mmdet import registry as mmdet_registries
from mmengine.config import Config
from mmengine.registry import Registry

import mmsniper
from mmsniper.datasets.wrappers import all_configs, type_name


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
    if 'mmsniper' in names or not ('pyramid' in cfg or _names_our_types(cfg)):
        return cfg
    cfg = copy(cfg)
    cfg.custom_imports = dict(imports, imports=[*names, 'mmsniper'])
    return cfg


def _names_our_types(cfg: Config) -> bool:
    """Whether a config names a class that mmsniper has registered."""
    ours = {
        name
        for registry in vars(mmdet_registries).values()
        if isinstance(registry, Registry)
        for name, registered in registry.module_dict.items()
        if registered.__module__.startswith('mmsniper.')
    }
    return any(type_name(part) in ours for _, part in all_configs(cfg._cfg_dict))
