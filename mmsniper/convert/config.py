"""The SNIPER version of a config as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmsniper.convert.data import (
    check_sampler,
    decode_reduced,
    image_pixels,
    snip_dataloader,
    sniper_dataloader,
    with_inner_settings,
)
from mmsniper.convert.imports import with_imports
from mmsniper.convert.inference import (
    check_autofocus,
    see_all_levels,
    see_images_as_they_are,
    wrap_in_tta,
)
from mmsniper.convert.model import check_kind, has_rpn, sample_by_area, sniper_model
from mmsniper.convert.pyramid import bind_pyramid, config_pyramid
from mmsniper.convert.refusals import (
    all_hooks,
    check_hooks,
    check_runner,
    check_values,
    ends_mixing,
)
from mmsniper.convert.scopes import other_scopes, spell_out, spell_out_ours
from mmsniper.datasets.wrappers import class_names, type_name
from mmsniper.utils.missing_files import missing_file

_OUR_CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'

EVERY_RUN = ('ConsistencyHook', 'ResumeHook')
"""Hooks of all configs with a pyramid, also of those that are spelled out."""


@dataclass(frozen=True)
class SNIPEROptions:
    """What a config says in ``sniper = dict(...)``.

    Args:
        batch_size (int | None): Chips of a GPU. Defaults to None, as many as have the pixels of
            ``train_dataloader.batch_size`` images, so that learning rate and epochs hold
            (``auto_scale_lr.base_batch_size`` grows alike; else it is taken to count chips).
        sampler (dict): Further arguments of ``ChipAwareSampler``. Defaults to none.
        negative_chips (dict | None): Arguments of ``NegativeChipHook``. Defaults to None, no
            mining. A detector without an RPN cannot mine, but can be given a pool of another's
            proposals: ``sampler=dict(negatives=FILE)``.
        autofocus (dict | None): Arguments of ``AutoFocus``, by which it is then tested, with a
            ``PyramidFocusHead`` that is trained along. Defaults to None, no AutoFocus.
        cache_mb (float): Decoded images that a worker of the data loader keeps while chips of them
            are to come, at most so many MB. Chips of an image then come soon after each other, in
            different batches. Defaults to 0: chips in any order, each decodes its image.
        range_first (bool): In training an RPN proposes only what has the level's sizes, as in the
            authors' release: ``SNIPERRPNHead``. Defaults to False, the best of any size, of which
            the R-CNN then learns those in range.
        reduced_jpegs (bool): JPEGs are decoded at 1/2, 1/4 or 1/8 for chips, and levels of a test,
            that need them no finer (:class:`~mmsniper.datasets.LoadImageWindows`). Not beside
            ``cache_mb``. Defaults to False.
        samples_by_area (bool): A chip gets its area's share of the samples and proposals that the
            config has for an image, in training, so that equal pixels take equal time
            (:func:`~mmsniper.convert.model.sample_by_area`). Defaults to False: as many as an
            image.
        whole_images (bool): Train on whole images at random levels instead of chips: SNIP.
            ``batch_size`` then counts images. Defaults to False.
    """

    batch_size: int | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict)
    negative_chips: Mapping[str, Any] | None = None
    autofocus: Mapping[str, Any] | None = None
    cache_mb: float = 0.0
    range_first: bool = False
    reduced_jpegs: bool = False
    samples_by_area: bool = False
    whole_images: bool = False

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> SNIPEROptions:
        """Check and take over ``sniper = dict(...)``; a mistake is a ValueError."""
        if not isinstance(options, Mapping):
            raise ValueError(f'sniper must be a dict of options, got {options!r}')
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise ValueError(f'sniper has no option {unknown}, its options are {names}')
        count = options.get('batch_size')
        if count is not None and (type(count) is not int or count < 1):  # True is an int, too
            raise ValueError(f'sniper.batch_size must be a whole number of chips, got {count!r}')
        for name in ('sampler', 'negative_chips', 'autofocus'):
            value = options.get(name)
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(
                    f'sniper.{name} must be a dict of options, such as dict() for their defaults, '
                    f'got {value!r}'
                )
        for name in ('range_first', 'reduced_jpegs', 'samples_by_area', 'whole_images'):
            if not isinstance(options.get(name, False), bool):
                raise ValueError(f'sniper.{name} must be True or False, got {options[name]!r}')
        cache = options.get('cache_mb', 0)
        if isinstance(cache, bool) or not isinstance(cache, int | float) or not cache >= 0:
            raise ValueError(f'sniper.cache_mb must be a number of at least 0, got {cache!r}')
        made = cls(**{**options, 'sampler': options.get('sampler') or {}})
        check_sampler(made.sampler)
        check_autofocus(made.autofocus or {})
        for name in ('sampler', 'cache_mb', 'reduced_jpegs', 'samples_by_area'):
            if made.whole_images and getattr(made, name):
                raise ValueError(
                    f'sniper.{name} is for chips, but whole_images=True trains on none: leave one '
                    f'of the two out'
                )
        return made


def load_config(
    file: str | os.PathLike[str], cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file and, if it inherits our fragment, make its SNIPER version.

    Args:
        file (str | os.PathLike[str]): Config file.
        cfg_options (dict | None): Settings that override those of the file, as ``--cfg-options``
            gives them. They are applied first, so they are named as in the file.

    Returns:
        Config: The config; one without ``sniper`` as it is, but for what
        :func:`sniper_version` does to every config.

    Raises:
        ValueError: As :func:`sniper_version`, or if the file is not a config.
    """
    return sniper_version(read_config(file, cfg_options))


def read_config(
    file: str | os.PathLike[str], cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file as it is; :func:`load_config` for its SNIPER version.

    Args:
        file (str | os.PathLike[str]): Config file.
        cfg_options (dict | None): Settings that override those of the file. Defaults to None.

    Raises:
        FileNotFoundError: If there is no such file, or not one of its bases.
        ValueError: If the file, or one of its bases, is not Python, two bases set the same, or the
            settings say what is in a dict that the file does not have.
    """
    try:
        cfg = Config.fromfile(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(_missing_config(os.fspath(file), error)) from None
    except SyntaxError as error:
        raise ValueError(f'{file} is not a config: {error}') from None
    except TypeError as error:
        if 'cannot inherit from base' in str(error):
            key = str(error).partition('=')[0]
            raise ValueError(
                f'{file}: {key} is set to a dict, but a file of its _base_ has none there to put '
                f'it into: replace it as a whole, {key}=dict(_delete_=True, ...)'
            ) from None
        if 'cannot pickle' not in str(error):
            raise
        kind = str(error).removeprefix('cannot pickle ')
        raise ValueError(
            f'{file}: a value in it, or in a file of its _base_, is a {kind}, which mmengine '
            f'cannot copy: write a tuple or a list for a generator or view, such as '
            f'classes=tuple(...)'
        ) from None
    except KeyError as error:
        if 'Duplicate key' not in str(error):
            raise
        raise ValueError(
            f'{file}: two files in _base_ set the same, which mmengine forbids: {error.args[0]} '
            f'Of a ready SNIPER config inherit the detector, configs/_base_/sniper.py and your '
            f'pyramid instead: _base_ = [detector, sniper.py, my_pyramid.py]'
        ) from None
    if cfg_options:
        _merge_options(cfg, cfg_options)
    if 'sniper' in cfg and cfg.get('train_dataloader'):
        cfg.train_dataloader.dataset = with_inner_settings(cfg.train_dataloader.dataset)
    return cfg


def _missing_config(file: str, error: FileNotFoundError) -> str:
    """What to say where a config, or a file of its ``_base_``, does not exist."""
    named = re.search(r'(["\'])(.+)\1', str(error))
    if not named:
        return str(error)
    missing = os.path.abspath(named[2])
    if missing == os.path.abspath(file):
        return f'there is no config {file}. {missing_file(file, "the command")}'
    _, _, name = Path(missing).as_posix().rpartition('/configs/')
    if (_OUR_CONFIGS / name).is_file():
        fix = f"Write 'mmsniper::{name}', which is found from any folder"
    else:
        fix = missing_file(missing, '_base_')
    return f'{file}: its _base_, or that of a base, names {missing}, which does not exist. {fix}'


def _merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    try:
        cfg.merge_from_dict(dict(options))
    except TypeError as error:
        key = str(error).partition('=')[0]
        below = next((name for name in options if key in name.split('.')[:-1]), None)
        if 'cannot inherit from base' not in str(error) or below is None:
            raise
        names = below.split('.')
        path = '.'.join(names[: names.index(key) + 1])
        raise ValueError(
            f'{below}: {path} is no dict in the config, so it has no settings to change. Replace '
            f'it as a whole: --cfg-options {path}._delete_=True {below}={options[below]}'
        ) from None


def sniper_version(cfg: Config) -> Config:
    """Turn the config of a detector that is trained on images into one that is trained on chips.

    Training data become chips (:func:`~mmsniper.convert.data.sniper_dataloader`), objects that are
    out of a level's range are neither positive nor background
    (:func:`~mmsniper.convert.model.sniper_model`), and validation and test see every level of the
    pyramid, with ``autofocus`` coarse to fine (:mod:`mmsniper.convert.inference`). All else stays
    as it is.

    A config that uses mmsniper imports it (:func:`~mmsniper.convert.imports.with_imports`), and
    its pieces have its pyramid (:func:`~mmsniper.convert.pyramid.bind_pyramid`), with ``sniper``
    or without.

    Args:
        cfg (Config): A config with ``sniper`` (see :class:`SNIPEROptions`) and ``pyramid``. Left as
            it is.

    Returns:
        Config: The SNIPER version: a plain config without ``sniper``, that any tool can build.

    Raises:
        ValueError: If there is no pyramid or there are two, an option is wrong, or the config has a
            part for which there is no SNIPER version; the message names it.

    Example:
        >>> cfg = Config.fromfile('my_config.py')  # _base_ = [theirs, '_base_/sniper.py', pyramid]
        >>> sniper_version(cfg).train_dataloader.sampler.type
        'ChipAwareSampler'
    """
    check_values(cfg)
    cfg = with_imports(cfg)
    if 'sniper' not in cfg and 'pyramid' not in cfg:
        return cfg
    cfg = deepcopy(cfg)
    scopes = other_scopes(cfg)
    spell_out(cfg, scopes)
    if 'sniper' in cfg:
        check_runner(cfg)
        _convert(cfg, SNIPEROptions.from_config(cfg.pop('sniper')))
    bind_pyramid(cfg)
    _add_hooks(cfg, [dict(type=name) for name in EVERY_RUN])  # also where all is spelled out
    draw_any_image(cfg)
    check_hooks(cfg)
    if scopes:
        spell_out_ours(cfg)
    return cfg


def draw_any_image(cfg: Config) -> None:
    """Draw by ``PictureHook`` where the config has MMDetection's hook; changed in place."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook and type_name(hook) == 'DetVisualizationHook':
        hook.type = 'PictureHook'


def _convert(cfg: Config, options: SNIPEROptions) -> None:
    pyramid = config_pyramid(cfg)
    if not cfg.get('model'):
        raise ValueError('the config has no model: put the config of a detector into _base_, too')
    in_tta = 'module' in cfg.model  # MMDetection's own tools/test.py --tta has wrapped it
    detector = cfg.model.module if in_tta else cfg.model
    check_kind(detector)
    notes: list[str] = []
    negatives = _negative_chips(cfg, detector, options, notes)
    if cfg.get('train_dataloader') is not None:
        keep_empty = negatives is not None or options.sampler.get('negatives') is not None
        _convert_training(cfg, detector, options, keep_empty, notes)
    name = type_name(detector)
    sniper_model(detector, pyramid, options.whole_images, options.range_first, notes)
    if name != 'RPN':  # proposals are not merged
        see_all_levels(detector, pyramid, options.autofocus, notes)
        if options.reduced_jpegs:
            for loader in ('val_dataloader', 'test_dataloader'):
                decode_reduced(cfg.get(loader))
        see_images_as_they_are(cfg)
    elif options.autofocus is not None:
        raise ValueError('AutoFocus is for detectors, an RPN only proposes: leave it out')
    if in_tta:
        wrap_in_tta(cfg, detector)
    _add_runtime(cfg, negatives, notes)
    # The processes have not found each other yet: the launchers' variables tell the first one.
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        print_log('\n  '.join([f'SNIPER version of {name}:', *notes]), logger='current')


def _convert_training(
    cfg: Config, detector: ConfigDict, options: SNIPEROptions, keep_empty: bool, notes: list[str]
) -> None:
    loader = cfg.train_dataloader
    loader.dataset = with_inner_settings(loader.dataset)
    if options.whole_images:
        cfg.train_dataloader = snip_dataloader(loader, cfg.pyramid, options.batch_size, notes)
        return
    if options.samples_by_area:
        pixels = image_pixels(loader)
        if pixels is None:
            raise ValueError(
                'sniper.samples_by_area: the training pipeline does not tell how many pixels an '
                'image has: give it a Resize(scale=(width, height)), or leave the option out and '
                'set the numbers in model.train_cfg yourself'
            )
        sample_by_area(detector, cfg.pyramid.chip_size**2 / pixels, notes)
    if options.reduced_jpegs:
        decode_reduced(loader)
        notes.append('JPEGs are decoded at 1/2, 1/4 or 1/8 for coarse chips (sniper.reduced_jpegs)')
    cfg.train_dataloader = sniper_dataloader(
        loader,
        cfg.pyramid,
        options.batch_size,
        options.sampler,
        keep_empty,
        notes,
        options.cache_mb,
    )
    _count_chips(cfg, loader, options, notes)


def _count_chips(
    cfg: Config, loader: Mapping[str, Any], options: SNIPEROptions, notes: list[str]
) -> None:
    """Let the batch size that the learning rate is for count chips.

    Args:
        cfg (Config): The config, with chips; ``auto_scale_lr`` is changed in place.
        loader (dict): Its ``train_dataloader`` as it was, with images.
        options (SNIPEROptions): What the config says in ``sniper``.
        notes (list[str]): Gets a sentence where the learning rate will be scaled.
    """
    scaling = cfg.get('auto_scale_lr') or ConfigDict()
    base = scaling.get('base_batch_size')
    if not base:
        return
    if options.batch_size is None:  # the same pixels
        grown = cfg.train_dataloader.batch_size / loader.get('batch_size', 1)
        scaling.base_batch_size = round(base * grown)
        what = f'the pixels of {base} images'
    else:
        what = 'auto_scale_lr.base_batch_size, which counts chips beside sniper.batch_size'
        if pixels := image_pixels(loader):
            same = max(round(base * pixels / cfg.pyramid.chip_size**2), 1)
            what += f'. If the learning rate is for {base} images, set it to {same}: their pixels'
    if scaling.get('enable'):
        notes.append(
            f'the learning rate is scaled as one for batches of {scaling.base_batch_size} chips '
            f'over all GPUs ({what})'
        )


def _negative_chips(
    cfg: Config, detector: Any, options: SNIPEROptions, notes: list[str]
) -> Mapping[str, Any] | None:
    """Arguments of the hook, None if there is to be none."""
    if options.negative_chips is None:
        return None
    if options.whole_images:
        notes.append('no negative chips: it is trained on whole images (sniper.whole_images)')
        return None
    if not has_rpn(detector):
        notes.append(
            f'no negative chips: {type_name(detector)} has no RPN to mine with (a pool of another '
            f"detector's proposals can be used: sniper.sampler.negatives=FILE)"
        )
        return None
    train = cfg.get('train_cfg') or {}
    if not train.get('by_epoch', type_name(train) != 'IterBasedTrainLoop'):
        notes.append(
            'no negative chips: they are mined between epochs, and the loop has none '
            '(mine them beforehand: tools/analysis_tools/mine_negatives.py)'
        )
        return None
    return options.negative_chips


def _add_runtime(cfg: Config, negatives: Mapping[str, Any] | None, notes: list[str]) -> None:
    dropped = [type_name(hook) for hook in all_hooks(cfg) if ends_mixing(hook)]
    if dropped:
        notes.append(f'without {", ".join(dropped)}: no images are mixed from the start')
    hooks = [hook for hook in cfg.get('custom_hooks') or () if not ends_mixing(hook)]
    for name, hook in list((cfg.get('default_hooks') or {}).items()):
        if ends_mixing(hook):
            del cfg.default_hooks[name]
    names = ('PixelCounterHook', 'TrainingTimeHook', *EVERY_RUN)
    wanted = [dict(type=name) for name in names]
    if negatives is not None:
        own = [h for h in all_hooks(cfg) if 'NegativeChipHook' in class_names(h, HOOKS)]
        if own:
            notes.append(
                f'negative chips by the NegativeChipHook of the config: {dict(own[0])}, not by '
                f'sniper.negative_chips: {dict(negatives)}'
            )
        else:
            wanted.append(dict(type='NegativeChipHook', **negatives))
            notes.append(f'negative chips: {dict(negatives)}')
    cfg.custom_hooks = hooks
    _add_hooks(cfg, wanted)
    # Names of ours are in MMDetection's registries; its Python configs have no scope.
    cfg.default_scope = cfg.get('default_scope') or 'mmdet'
    # With a fixed seed a resumed run plans the chips that the uninterrupted one would have had.
    if not cfg.get('randomness'):
        cfg.randomness = dict(seed=0)


def _add_hooks(cfg: Config, wanted: list[dict[str, Any]]) -> None:
    """Add those hooks that the config does not have."""
    hooks = list(cfg.get('custom_hooks') or [])
    there = {name for hook in hooks for name in class_names(hook, HOOKS)}
    cfg.custom_hooks = [*hooks, *(hook for hook in wanted if hook['type'] not in there)]
