"""The SNIPER version of a config as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmsniper.chips import ScalePyramid
from mmsniper.convert.autofocus import autofocus_model, see_coarse_to_fine
from mmsniper.convert.data import sniper_dataloader
from mmsniper.convert.imports import with_imports
from mmsniper.convert.inference import sniper_tta, wrap_in_tta
from mmsniper.convert.model import sniper_model

ONE_STAGE, TWO_STAGE = 'one_stage', 'two_stage'

# Hooks that exchange the pipeline or the loss after some epochs, to end the mixing of images.
_MIXING_HOOKS = ('PipelineSwitchHook', 'YOLOXModeSwitchHook')


@dataclass(frozen=True)
class SNIPEROptions:
    """What a config says in ``sniper = dict(...)``.

    Args:
        detector (str): ``'one_stage'`` or ``'two_stage'``.
        batch_size (int | None): Chips of a GPU. Defaults to None, as many as have the pixels of
            ``train_dataloader.batch_size`` images, so that learning rate and epochs hold
            (``auto_scale_lr.base_batch_size`` grows alike; else it is taken to count chips).
        sampler (dict): Further arguments of ``ChipAwareSampler``.
        negative_chips (dict | None): Arguments of ``NegativeChipHook``. Defaults to None, no
            mining.
        autofocus (dict | None): Arguments of ``AutoFocus``, which the test then uses, with a
            ``PyramidFocusHead`` that is trained along; ``dict()`` for its defaults. Defaults to
            None, no AutoFocus.
    """

    detector: str
    batch_size: int | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict)
    negative_chips: Mapping[str, Any] | None = None
    autofocus: Mapping[str, Any] | None = None

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> SNIPEROptions:
        """Check and take over ``sniper = dict(...)``.

        Raises:
            ValueError: If an option is unknown or has a value that it cannot have.
        """
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise ValueError(f'sniper has no option {unknown}, its options are {names}')
        if options.get('detector') not in (ONE_STAGE, TWO_STAGE):
            raise ValueError(
                f"sniper.detector must be '{ONE_STAGE}' or '{TWO_STAGE}', got "
                f'{options.get("detector")!r}: inherit configs/mixins/sniper_{ONE_STAGE}.py or '
                f'sniper_{TWO_STAGE}.py'
            )
        size = options.get('batch_size')
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f'sniper.batch_size must be a whole number of chips, got {size!r}')
        return cls(**options)


def load_config(
    file: str | os.PathLike[str], cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file and, if it inherits one of our mixins, make its SNIPER version.

    Args:
        file (str | os.PathLike[str]): Config file.
        cfg_options (dict | None): Settings that override those of the file, as ``--cfg-options``
            gives them. They are applied first, so they are named as in the file.

    Returns:
        Config: The config; one without ``sniper`` as it is, but for the import of mmsniper
        (:mod:`mmsniper.convert.imports`).
    """
    cfg = Config.fromfile(file)
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    return sniper_version(cfg)


def sniper_version(cfg: Config) -> Config:
    """Turn the config of a detector that is trained on images into one that is trained on chips.

    Training data become chips (:func:`~mmsniper.convert.data.sniper_dataloader`), objects that are
    out of a level's range are neither positive nor background
    (:func:`~mmsniper.convert.model.sniper_model`), and ``tta_model`` and ``tta_pipeline`` test the
    levels of the pyramid (:mod:`mmsniper.convert.inference`); with ``autofocus`` the test is coarse
    to fine (:mod:`mmsniper.convert.autofocus`). Schedule, optimizer, evaluation and
    the test at one scale stay as they are.

    Args:
        cfg (Config): A config with ``sniper`` (see :class:`SNIPEROptions`) and ``pyramid``. Left as
            it is.

    Returns:
        Config: The SNIPER version: a plain config without ``sniper``, that any tool can build. A
        config that has no ``sniper`` is returned as it is, but for the import of mmsniper
        (:func:`~mmsniper.convert.imports.with_imports`).

    Raises:
        ValueError: If there is no pyramid, an option is wrong, or the config has a part for which
            there is no SNIPER version; the message names it.

    Example:
        >>> cfg = Config.fromfile('my_config.py')  # _base_ = [theirs, 'sniper_two_stage.py']
        >>> sniper_version(cfg).train_dataloader.sampler.type
        'ChipAwareSampler'
    """
    cfg = with_imports(cfg)
    if 'sniper' not in cfg:
        return cfg
    cfg = deepcopy(cfg)
    options = SNIPEROptions.from_config(cfg.pop('sniper'))
    cfg.pop('runner_type', None)
    if 'pyramid' not in cfg:
        raise ValueError(
            'the config has no pyramid; add a file with one to _base_, such as '
            'configs/_base_/pyramids/coco_paper.py or what '
            'tools/analysis_tools/suggest_pyramid.py writes'
        )
    pyramid = cfg.pyramid
    ScalePyramid.from_config(pyramid)
    detector, in_tta = _detector(cfg)
    _check_kind(detector, options.detector)
    notes: list[str] = []
    negatives = _negative_chips(cfg, options, notes)
    if cfg.get('train_dataloader') is not None:
        before = cfg.train_dataloader.get('batch_size', 1)
        cfg.train_dataloader = sniper_dataloader(
            cfg.train_dataloader,
            pyramid,
            options.batch_size,
            options.sampler,
            keep_empty=negatives is not None,
            notes=notes,
        )
        if options.batch_size is None:
            _scale_base_batch_size(cfg, cfg.train_dataloader.batch_size / before)
    cfg.tta_model, cfg.tta_pipeline = sniper_tta(cfg, detector, pyramid)
    sniper_model(detector, pyramid, notes)
    model = detector
    if options.autofocus is not None:
        model = autofocus_model(detector, pyramid, cfg.tta_model, options.autofocus)
        notes.append('AutoFocus: tested coarse to fine')
    cfg.model = model
    if in_tta:  # MMDetection's own tools/test.py --tta has put another around it
        wrap_in_tta(cfg, model)
    elif options.autofocus is not None:
        see_coarse_to_fine(cfg)
    _add_runtime(cfg, negatives, notes)
    if _is_first_process():
        print_log('\n  '.join([f'SNIPER version of {detector.type}:', *notes]), logger='current')
    return cfg


def _is_first_process() -> bool:
    """By what launchers set: the processes have not found each other yet."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def _detector(cfg: Config) -> tuple[Any, bool]:
    """The detector's config, and whether it is wrapped to be tested with augmentation."""
    if not cfg.get('model'):
        raise ValueError('the config has no model: put the config of a detector into _base_, too')
    wrapped = 'module' in cfg.model
    return (cfg.model.module if wrapped else cfg.model), wrapped


def _check_kind(detector: Any, kind: str) -> None:
    found = TWO_STAGE if 'roi_head' in detector else ONE_STAGE
    if found != kind:
        raise ValueError(
            f'{detector.type} is a {found.replace("_", "-")} detector, but the config inherits '
            f'sniper_{kind}.py: inherit sniper_{found}.py instead'
        )


def _negative_chips(
    cfg: Config, options: SNIPEROptions, notes: list[str]
) -> Mapping[str, Any] | None:
    """Arguments of the hook, None if there is to be none."""
    if options.negative_chips is None:
        return None
    train = cfg.get('train_cfg') or {}
    by_epoch = train.get('by_epoch', train.get('type') != 'IterBasedTrainLoop')
    if not by_epoch:
        notes.append(
            'no negative chips: they are mined between epochs, and the loop has none '
            '(mine them beforehand: tools/analysis_tools/mine_negatives.py)'
        )
        return None
    return options.negative_chips


def _scale_base_batch_size(cfg: Config, factor: float) -> None:
    """The batch that the learning rate is for, in chips."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if base:
        cfg.auto_scale_lr.base_batch_size = round(base * factor)


def _add_runtime(cfg: Config, negatives: Mapping[str, Any] | None, notes: list[str]) -> None:
    hooks = list(cfg.get('custom_hooks') or [])
    dropped = [hook['type'] for hook in hooks if hook['type'] in _MIXING_HOOKS]
    if dropped:
        notes.append(f'without {", ".join(dropped)}: no images are mixed from the start')
    hooks = [hook for hook in hooks if hook['type'] not in _MIXING_HOOKS]
    wanted = [dict(type='PixelCounterHook'), dict(type='TrainingTimeHook')]
    if negatives is not None:
        wanted.append(dict(type='NegativeChipHook', **negatives))
        notes.append(f'negative chips: {dict(negatives)}')
    there = {hook['type'] for hook in hooks}
    cfg.custom_hooks = [*hooks, *(hook for hook in wanted if hook['type'] not in there)]
    # With a fixed seed a resumed run plans the chips that the uninterrupted one would have had.
    if not cfg.get('randomness'):
        cfg.randomness = dict(seed=0)
