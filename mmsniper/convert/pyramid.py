"""The pyramid is one fact: the config's variable ``pyramid``, and what every piece has."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.datasets.wrappers import all_configs, type_name

# What takes the config's pyramid. (A class of one's own is to be given it: pyramid=pyramid.)
PIECES = frozenset(
    {'ChipAwareSampler', 'ChipSampler', 'LevelResize', 'ScaleRangeFilter', 'SNIPERRPNHead'}
    | {'SNIPERRoIHead', 'PyramidDetector', 'AutoFocus', 'PyramidFocusHead'}
)

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

    Args:
        cfg (Config): A config; one without ``pyramid`` is left as it is. Changed in place.

    Raises:
        ValueError: If pieces have another pyramid than the config; the message names both values.
    """
    if not cfg.get('pyramid'):
        return
    pyramid = ScalePyramid.from_config(config_pyramid(cfg))
    for path, piece in all_configs({key: cfg.get(key) for key in _BUILT}):
        if type_name(piece) not in PIECES and 'pyramid' not in piece:
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
