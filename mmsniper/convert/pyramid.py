"""The pyramid is one fact: the config's variable ``pyramid``, and what every piece has."""

from __future__ import annotations

from inspect import signature
from typing import Any

from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, TRANSFORMS
from mmengine.config import Config, ConfigDict

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.datasets.wrappers import all_configs, type_name

# Where the classes are that a run builds.
_REGISTRIES = (MODELS, TRANSFORMS, DATASETS, DATA_SAMPLERS, HOOKS)

# What a run builds. The file's own variables, such as train_pipeline, stay in a config beside it.
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_BUILT = ('model', 'tta_model', 'tta_pipeline', *_LOADERS, 'custom_hooks')


def config_pyramid(cfg: Config) -> ConfigDict:
    """The config's variable ``pyramid``, checked.

    Raises:
        ValueError: If there is none, or it is no pyramid.
    """
    if not cfg.get('pyramid'):
        raise ValueError(
            f'{cfg.filename or "the config"} has no pyramid; add one to _base_: what '
            f'tools/analysis_tools/suggest_pyramid.py writes for your data, or '
            f'configs/_base_/pyramids/coco_paper.py for COCO, or set '
            f'pyramid = dict(chip_size=..., levels=[...])'
        )
    ScalePyramid.from_config(cfg.pyramid)
    return cfg.pyramid


def bind_pyramid(cfg: Config) -> None:
    """Give the config's pyramid to each of its pieces that has none, and compare those that do.

    A piece that is written ``dict(type='ChipSampler', pyramid=pyramid)`` has the pyramid of the
    file in which it is written. A child config or ``--cfg-options`` that then sets ``pyramid``
    would change what is planned and reported, and not what is trained.

    A piece is what has a ``pyramid``, or is of a class that takes one.

    Args:
        cfg (Config): A config; one without ``pyramid`` is left as it is. Changed in place.

    Raises:
        ValueError: If pieces have another pyramid than the config; the message names both values.
    """
    if not cfg.get('pyramid'):
        return
    pyramid = ScalePyramid.from_config(config_pyramid(cfg))
    for path, piece in all_configs({key: cfg.get(key) for key in _BUILT}):
        if 'pyramid' not in piece and not _takes_pyramid(piece.get('type')):
            continue
        if piece.get('pyramid') is None:
            piece['pyramid'] = cfg.pyramid
            continue
        different = pyramid.differences(ScalePyramid.from_config(piece['pyramid']))
        if different:
            raise ValueError(
                f'{cfg.filename or "the config"} has two pyramids: '
                + '; '.join(
                    f'pyramid.{d.name} is {d.mine}, but {path}.pyramid.{d.name} is {d.theirs}'
                    for d in different
                )
                + f'. {path} was written with the pyramid of the file that it stands in, and keeps '
                f'it when a child config or --cfg-options sets another. Inherit the detector, '
                f'configs/_base_/sniper.py and your pyramid instead, which gives all pieces the '
                f'last one: _base_ = [detector, sniper.py, my_pyramid.py]'
            )


def _takes_pyramid(kind: Any) -> bool:
    """Whether a class, or a registered class of that name, is built with a ``pyramid``."""
    name = type_name(kind)
    kinds = [kind] if isinstance(kind, type) else [r.module_dict.get(name) for r in _REGISTRIES]
    return any(map(_has_argument, filter(None, kinds)))


def _has_argument(kind: Any) -> bool:
    """Whether ``pyramid`` is an argument of a class, or of a base that it hands arguments to."""
    for cls in getattr(kind, '__mro__', ()):
        if '__init__' in vars(cls):
            parameters = signature(cls.__init__).parameters
            if 'pyramid' in parameters:
                return True
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                return False
    return False
