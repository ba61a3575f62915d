"""The pyramid is one fact: the config's variable ``pyramid``, and what every piece has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.datasets.wrappers import type_name

# What takes the config's pyramid. (A class of one's own is to be given it: pyramid=pyramid.)
PIECES = frozenset(
    [
        'AutoFocus',
        'ChipAwareSampler',
        'ChipSampler',
        'LevelResize',
        'PyramidFocusHead',
        'SNIPERCascadeRoIHead',
        'SNIPERRoIHead',
        'SNIPERTTAModel',
        'ScaleRangeFilter',
    ]
)

# What a run builds. The file's own variables, such as train_pipeline, stay in a config beside it.
_BUILT = [
    'model',
    'tta_model',
    'tta_pipeline',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'custom_hooks',
]


def config_pyramid(cfg: Config) -> Mapping[str, Any]:
    """The config's variable ``pyramid``.

    Raises:
        ValueError: If there is none, or it is no pyramid.
    """
    if not cfg.get('pyramid'):
        raise ValueError(
            f'{cfg.filename or "the config"} has no pyramid; add one to _base_, such '
            f'as configs/_base_/pyramids/coco_paper.py or what '
            f'tools/analysis_tools/suggest_pyramid.py writes, or set '
            f'pyramid = dict(chip_size=..., levels=[...])'
        )
    ScalePyramid.from_config(cfg.pyramid)
    return cfg.pyramid


def bind_pyramid(cfg: Config) -> None:
    """Give the config's pyramid to each of its pieces that has none, and compare those that do.

    A piece that is written ``dict(type='ChipSampler', pyramid=pyramid)`` has the pyramid of the
    file in which it is written. A child config or ``--cfg-options`` that then sets ``pyramid``
    would change what is planned and reported, and not what is trained.

    Args:
        cfg (Config): A config; one without ``pyramid`` is left as it is. Changed in place.

    Raises:
        ValueError: If pieces have another pyramid than the config; the message names both values.
    """
    if not cfg.get('pyramid'):
        return
    pyramid = ScalePyramid.from_config(config_pyramid(cfg))
    for path, piece in _pieces(cfg):
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


def _pieces(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts of a config that have or take a pyramid, with their paths."""
    for key in _BUILT:
        yield from _pieces_below(cfg.get(key), key)


def _pieces_below(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, Mapping):
        if type_name(node) in PIECES or 'pyramid' in node:
            yield path, node
        for key, value in node.items():
            if key != 'pyramid':
                yield from _pieces_below(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _pieces_below(value, f'{path}[{i}]')
