"""What a config says of the chips that it trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.registry import DATA_SAMPLERS
from mmengine.config import Config, ConfigDict

from mmsniper.convert.pyramid import config_pyramid
from mmsniper.datasets import ChipAwareSampler
from mmsniper.datasets.wrappers import type_name


def build_sampler(cfg: Config, dataset: Any, epoch: int = 0) -> ChipAwareSampler:
    """The sampler of a config's training, for the built data set, without negative chips.

    Args:
        cfg (Config): The config; one with another sampler gets the usual ``ChipAwareSampler``.
        dataset (Any): Its training data, with a ``ChipDataset`` in it.
        epoch (int): The epoch to plan. Defaults to 0.

    Raises:
        ValueError: If there is no pyramid, or chips cannot be planned for the data.
    """
    config = cfg.train_dataloader.get('sampler')
    if type_name(config) != 'ChipAwareSampler':
        config = dict(type='ChipAwareSampler', pyramid=training_pyramid(cfg))
    try:
        sampler = DATA_SAMPLERS.build(
            dict(config, negatives=None), default_args=dict(dataset=dataset, seed=config_seed(cfg))
        )
    except TypeError as error:
        raise ValueError(error) from None
    sampler.set_epoch(epoch)
    return sampler


def training_pyramid(cfg: Config) -> Mapping[str, Any]:
    """The pyramid of the config's sampler, or else the config's.

    Raises:
        ValueError: If there is none.
    """
    sampler = cfg.train_dataloader.get('sampler') or {}
    return sampler.get('pyramid') or config_pyramid(cfg)


def config_seed(cfg: Config) -> int:
    """The random seed of a config, 0 if it leaves it to chance."""
    return (cfg.get('randomness') or {}).get('seed') or 0


def negative_chip_hook(cfg: Config) -> ConfigDict | None:
    """The config of a config's ``NegativeChipHook``, None if it has none."""
    hooks = cfg.get('custom_hooks') or []
    return next((hook for hook in hooks if type_name(hook) == 'NegativeChipHook'), None)
