"""What a config says of the chips that it trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.registry import DATA_SAMPLERS, HOOKS
from mmengine.config import Config, ConfigDict

from mmsniper.convert.pyramid import config_pyramid
from mmsniper.datasets.wrappers import class_names


def positive_sampler(cfg: Config) -> dict[str, Any]:
    """The config of the training's sampler of chips, without negative ones.

    Args:
        cfg (Config): The config; with a sampler that is not derived from ``ChipAwareSampler``, it
            is the usual one.

    Raises:
        ValueError: If there is no pyramid.
    """
    sampler = cfg.train_dataloader.get('sampler')
    if not samples_chips(sampler):
        sampler = dict(type='ChipAwareSampler', pyramid=config_pyramid(cfg))
    return dict(seed=config_seed(cfg)) | dict(sampler) | dict(negatives=None)


def samples_chips(sampler: Any) -> bool:
    """Whether the config of a sampler is that of a ``ChipAwareSampler``, or derives from it."""
    return 'ChipAwareSampler' in class_names(sampler, DATA_SAMPLERS)


def config_seed(cfg: Config) -> int:
    """The random seed of a config, 0 if it leaves it to chance."""
    return (cfg.get('randomness') or {}).get('seed') or 0


def negative_chip_hook(cfg: Config) -> Mapping[str, Any]:
    """The config of a config's ``NegativeChipHook``, empty if it has none."""
    hooks = cfg.get('custom_hooks') or []
    ours = (h for h in hooks if 'NegativeChipHook' in class_names(h, HOOKS))
    return next(ours, ConfigDict())
