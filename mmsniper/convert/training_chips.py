"""What a config says of the chips that it trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from mmsniper.convert.pyramid import config_pyramid
from mmsniper.datasets.wrappers import type_name


def positive_sampler(cfg: Config) -> dict[str, Any]:
    """The config of the training's ``ChipAwareSampler``, without negative chips.

    Args:
        cfg (Config): The config; with another sampler, that is the usual ``ChipAwareSampler``.

    Raises:
        ValueError: If there is no pyramid.
    """
    sampler = cfg.train_dataloader.get('sampler')
    if type_name(sampler) != 'ChipAwareSampler':
        sampler = dict(type='ChipAwareSampler', pyramid=config_pyramid(cfg))
    return dict(seed=config_seed(cfg)) | dict(sampler) | dict(negatives=None)


def config_seed(cfg: Config) -> int:
    """The random seed of a config, 0 if it leaves it to chance."""
    return (cfg.get('randomness') or {}).get('seed') or 0


def negative_chip_hook(cfg: Config) -> Mapping[str, Any]:
    """The config of a config's ``NegativeChipHook``, empty if it has none."""
    hooks = cfg.get('custom_hooks') or []
    return next((h for h in hooks if type_name(h) == 'NegativeChipHook'), ConfigDict())
