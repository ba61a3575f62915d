"""Settings that cannot all hold: a config that has them is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MappingView
from typing import Any

from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import RUNNERS

from mmsniper.datasets.wrappers import (
    all_configs,
    all_datasets,
    all_transforms,
    class_names,
    type_name,
)

# Hooks that exchange the pipeline or the loss after some epochs, to end the mixing of images.
_MIXING_HOOKS = frozenset({'PipelineSwitchHook', 'YOLOXModeSwitchHook'})


def ends_mixing(hook: Any) -> bool:
    """Whether a hook ends the mixing of images, or derives from one that does."""
    return bool(_MIXING_HOOKS.intersection(class_names(hook, HOOKS)))


def all_hooks(cfg: Config) -> list[Any]:
    """The hooks of a config, those among its ``default_hooks`` included."""
    named = (cfg.get('default_hooks') or {}).values()
    return [*(cfg.get('custom_hooks') or ()), *(hook for hook in named if hook is not None)]


def check_values(cfg: Config) -> None:
    """Check that all values of a config can be copied, and read more than once.

    Raises:
        ValueError: If one is a generator or the like; the message names it.
    """
    for path, part in all_configs(cfg._cfg_dict):
        for key, value in part.items():
            if isinstance(value, Iterator | MappingView):
                raise ValueError(
                    f'{path}.{key} in the config is a {type(value).__name__}, which cannot be '
                    f'copied, or read twice: write a tuple or a list, such as tuple(...)'
                )


def check_runner(cfg: Config) -> None:
    """Check that the Runner of a config with ``sniper`` makes its SNIPER version.

    Raises:
        ValueError: If it is another one, or the config has a ``strategy``.
    """
    way_out = (
        "take runner_type and strategy out of your config, so that the fragment's runner_type = "
        "'mmsniper.engine.SNIPERRunner' holds"
    )
    if cfg.get('strategy') is not None:
        raise ValueError(
            f'the config has a strategy ({type_name(cfg.strategy)}), which is for FlexibleRunner; '
            f'there is no SNIPER version of that: {way_out}'
        )
    runner = cfg.get('runner_type')
    if runner is None or 'SNIPERRunner' in class_names(dict(type=runner), RUNNERS):
        return
    raise ValueError(
        f'runner_type is {type_name(dict(type=runner))}, but with sniper = dict(...) the Runner '
        f'has to make the SNIPER version of the config; with another one, tools/train.py of '
        f'MMDetection would train the stock detector: {way_out}, or derive yours from it, class '
        f'{type_name(dict(type=runner))}(SNIPERRunner)'
    )


def check_hooks(cfg: Config) -> None:
    """Check that no hook takes back what the data say.

    Raises:
        ValueError: If a hook exchanges the pipeline of chips for one that cuts none, or mines
            negative chips where the sampler has a pool of them.
    """
    loader = cfg.get('train_dataloader') or {}
    parts = list(all_datasets(loader.get('dataset') or {}))
    hooks = all_hooks(cfg)
    if any(type_name(part) == 'ChipDataset' for part in parts):
        for hook in hooks:
            pipeline = hook.get('switch_pipeline') if isinstance(hook, Mapping) else None
            steps = list(all_transforms(pipeline))
            if steps and not any('ChipSampler' in class_names(s, TRANSFORMS) for s in steps):
                names = ', '.join(map(type_name, steps))
                raise ValueError(
                    f'{type_name(hook)} exchanges the pipeline of the ChipDataset for one without '
                    f'ChipSampler ({names}), which would train on whole images: take the hook out'
                )
    pool = (loader.get('sampler') or {}).get('negatives')
    if pool is not None and any('NegativeChipHook' in class_names(hook, HOOKS) for hook in hooks):
        raise ValueError(
            f'the sampler has a pool of negative chips ({pool}), and NegativeChipHook mines '
            f'another one, which would take its place: leave out the hook (sniper = '
            f'dict(negative_chips=None)), or the negatives of the sampler'
        )
