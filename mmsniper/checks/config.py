"""Checks of a config: what it says in several places. Nothing is built and no image is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from mmdet.datasets import BaseVideoDataset, CocoPanopticDataset
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmdet.structures.bbox import get_box_type
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.fileio import list_from_file

from mmsniper.checks.finding import ERROR, Finding
from mmsniper.datasets.wrappers import (
    all_configs,
    all_transforms,
    class_names,
    inner_datasets,
    type_name,
)

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

# Parts whose classes are not those of the data: an RPN has one, a backbone those of ImageNet, the
# semantic head of HTC those of COCO-stuff, and models of identities have persons.
OTHER_CLASSES = frozenset({'rpn_head', 'backbone', 'semantic_head', 'reid', 'track_head'})

# Preprocessors that take images as they are loaded, not batches of several views.
_PREPROCESSORS = ('DetDataPreprocessor', 'BandDataPreprocessor')

# What mmengine imports when a backend is first given something, which may be after an epoch.
_BACKENDS = {'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb'}

# Data sets whose labels are not places in "classes": things and stuff, or tracks.
_OTHER_LABELS = (BaseVideoDataset, CocoPanopticDataset)

# What "classes" in metainfo is called by mistake; MMDetection keeps such keys and reads none.
_CALLED = frozenset({'class', 'classes', 'classnames', 'names'})


class Classes(NamedTuple):
    """The classes that a data set's config gives.

    Attributes:
        where: The config key of the data set, such as ``'train_dataloader.dataset.dataset'``.
        names: Their names, in the order of ``metainfo``.
        given: Whether the config names them, not MMDetection's class.
    """

    where: str
    names: tuple[str, ...]
    given: bool


class Head(NamedTuple):
    """A part of a model that tells classes apart."""

    where: str
    kind: str
    num_classes: int
    key: str = 'num_classes'  # what it calls them


def check_config(cfg: Config, loaders: Iterable[str] = LOADERS) -> list[Finding]:
    """Check what a config says of its classes, its images and its masks.

    Args:
        cfg (Config): A config that has been converted
            (:func:`~mmsniper.convert.load_config`). Left as it is.
        loaders (Iterable[str]): Keys of the data loaders that will be used. Defaults to all.
    """
    findings = [*check_channels(cfg), *check_backends(cfg)]
    findings += [finding for key in loaders for finding in check_mask_boxes(cfg, key)]
    classes = [c for key in loaders for c in config_classes(cfg, key, findings)]
    if not classes or _is_open_vocabulary(cfg):
        return findings
    findings += check_heads(config_heads(cfg.get('model') or {}), classes[0])
    findings += check_same_classes(classes)
    return findings


def check_backends(cfg: Config) -> Iterator[Finding]:
    """Whether the programs that pictures and curves are to go to are installed."""
    for backend in (cfg.get('visualizer') or {}).get('vis_backends') or ():
        package = _BACKENDS.get(name := type_name(backend))
        if package is not None and find_spec(package) is None:
            yield Finding(
                ERROR,
                'visualizer.vis_backends',
                f'{name} needs {package}, which is not installed',
                f'pip install {package}, or take the backend out',
            )


def model_channels(cfg: Mapping[str, Any]) -> tuple[int | None, str]:
    """Number of channels of the images that a model takes, None if unknown, and the key that says.

    One mean stands for all channels, whose number is then the backbone's.
    """
    backbone, preprocessor = _first_parts(cfg)
    if type_name(preprocessor) == 'BandDataPreprocessor' or len(preprocessor.get('mean') or ()) > 1:
        return len(preprocessor.get('mean') or ()), 'model.data_preprocessor.mean'
    channels = backbone.get('in_channels')
    if channels is None:
        kind = backbone.get('type')
        kind = MODELS.get(kind) if isinstance(kind, str) else kind
        known = signature(kind).parameters.get('in_channels') if isinstance(kind, type) else None
        channels = None if known is None else known.default
    return (channels if isinstance(channels, int) else None), 'model.backbone.in_channels'


def _first_parts(cfg: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The configs of what an image meets first: the backbone and the preprocessor."""
    model = cfg.get('model') or {}
    while 'backbone' not in model and isinstance(model.get('detector'), Mapping):
        model = model['detector']  # a wrapper around a detector
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    return model.get('backbone') or {}, preprocessor or {}


def check_channels(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the preprocessor and the backbone are of the same number of channels."""
    backbone, preprocessor = _first_parts(cfg)
    channels, mean = backbone.get('in_channels'), preprocessor.get('mean')
    count = None if mean is None else len(mean)
    if not isinstance(channels, int) or type_name(preprocessor) not in _PREPROCESSORS:
        return
    where = 'model.data_preprocessor'
    if count not in (None, 1, channels):
        yield Finding(
            ERROR,
            f'{where}.mean',
            f'has {count} values, and model.backbone.in_channels is {channels}',
            'Give mean and std a value for each channel, or one for all; in_channels is the number '
            'of channels of the images as they are loaded',
        )
    elif type_name(preprocessor) == 'DetDataPreprocessor' and count not in (None, 0, 1, 3):
        yield Finding(
            ERROR,
            f'{where}.mean',
            f'has {count} values, and DetDataPreprocessor takes 1 or 3',
            "Set type='BandDataPreprocessor', which takes a value for each of any number of bands",
        )
    for name in ('bgr_to_rgb', 'rgb_to_bgr'):
        if preprocessor.get(name) and channels != 3:
            yield Finding(
                ERROR,
                f'{where}.{name}',
                f'turns the colours of three channels around, and model.backbone.in_channels is '
                f'{channels}',
                f'Set {name}=False',
            )


def check_mask_boxes(cfg: Mapping[str, Any], loader: str) -> Iterator[Finding]:
    """Check that boxes are not made of masks in a form in which their x and y are exchanged.

    MMRotate's rotated boxes exchange them where masks are bitmaps, which is what
    ``LoadAnnotations`` makes of polygons by default.

    Args:
        cfg (Config): The config.
        loader (str): Key of the data loader.
    """
    for pipelines in pipelines_of(cfg, loader):
        bitmaps = False
        for where, pipeline in pipelines.items():
            for step in all_transforms(pipeline):
                if step.get('with_mask') and 'LoadAnnotations' in class_names(step, TRANSFORMS):
                    bitmaps = step.get('poly2mask', True)
                elif bitmaps and 'ConvertMask2BoxType' in class_names(step, TRANSFORMS):
                    box_type = step.get('box_type')
                    if _exchanges_sides(box_type):
                        yield Finding(
                            ERROR,
                            where,
                            f'has ConvertMask2BoxType(box_type={box_type!r}) after '
                            f'LoadAnnotations(with_mask=True) without poly2mask=False: masks are '
                            f'bitmaps, of which it makes boxes with x and y exchanged',
                            'Write LoadAnnotations(with_mask=True, poly2mask=False)',
                        )


def _exchanges_sides(box_type: Any) -> bool:
    """Whether a type of boxes exchanges x and y of bitmaps; unknown types do not."""
    try:
        _, kind = get_box_type(box_type)
    except (AssertionError, KeyError):
        return False
    mask = np.zeros((1, 4, 16), np.uint8)
    mask[:, :3, 9:14] = 1
    ((x, y),) = kind.from_instance_masks(BitmapMasks(mask, 4, 16)).centers.tolist()
    return x < y


def leaves(dataset: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The data sets (or configs) that read images, below any wrappers, with their config keys."""
    inner = inner_datasets(dataset)
    if not inner and dataset is not None:
        yield where, dataset
    for i, below in enumerate(inner):
        key = 'dataset' if len(inner) == 1 and not _has_several(dataset) else f'datasets[{i}]'
        yield from leaves(below, f'{where}.{key}')


def pipelines_of(cfg: Mapping[str, Any], loader: str) -> Iterator[dict[str, Any]]:
    """Of each data set the pipelines that its images go through, in this order, by their keys."""
    dataset, where = (cfg.get(loader) or {}).get('dataset'), f'{loader}.dataset'
    for leaf, _ in leaves(dataset, where):
        around = [
            (path, part)
            for path, part in all_configs(dataset, where)
            if f'{leaf}.'.startswith(f'{path}.') and part.get('pipeline')
        ]
        yield {f'{path}.pipeline': part['pipeline'] for path, part in reversed(around)}


def _has_several(dataset: Any) -> bool:
    if isinstance(dataset, Mapping):
        return 'datasets' in dataset
    return hasattr(dataset, 'datasets')


def leaf_configs(cfg: Config, loader: str) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """The data sets of a data loader that have labels of ``classes``: key, config and class."""
    dataset = (cfg.get(loader) or {}).get('dataset')
    for where, leaf in leaves(dataset, f'{loader}.dataset'):
        kind = leaf.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(kind, type) and issubclass(kind, _OTHER_LABELS)):
            yield where, leaf, kind


def config_classes(cfg: Config, loader: str, findings: list[Finding]) -> Iterator[Classes]:
    """The classes of the data sets of a data loader; what is wrong with the names is added."""
    for where, leaf, kind in leaf_configs(cfg, loader):
        metainfo = leaf.get('metainfo') or {}
        if fault := metainfo_fault(metainfo):
            fix = 'Write metainfo=dict(classes=(...))'
            findings.append(Finding(ERROR, f'{where}.metainfo', fault, fix))
            continue
        given = metainfo.get('classes')
        names = given
        if names is None:
            names = (getattr(kind, 'METAINFO', None) or {}).get('classes')
        if names is not None:
            found = list(_names_findings(names, f'{where}.metainfo.classes'))
            findings += found
            if not found:
                names = list_from_file(names) if isinstance(names, str) else names
                yield Classes(where, tuple(names), given is not None)


def metainfo_fault(metainfo: Any) -> str:
    """Why no classes are read from a data set's ``metainfo``, '' if they are, or it names none."""
    if not isinstance(metainfo, Mapping):
        return f'must be a dict, got {metainfo!r}'
    if 'classes' in metainfo:
        return ''
    called = [key for key in metainfo if str(key).lower().replace('_', '') in _CALLED]
    return f'has {called[0]}, which MMDetection does not read' if called else ''


def _names_findings(names: Any, where: str) -> Iterator[Finding]:
    if isinstance(names, str):
        if '://' not in names and not os.path.isfile(names):  # mmengine reads a file of names
            if '/' in names or '\\' in names or names.endswith(('.txt', '.names')):
                what = f'names the file {names!r}, which is not there'
                yield Finding(ERROR, where, what, 'Correct the path, or name the classes')
                return
            yield Finding(
                ERROR,
                where,
                f'is the text {names!r}, of which each letter would be a class',
                f'A tuple of one name has a comma: classes=({names!r},)',
            )
        elif '://' not in names and '' in (lines := list_from_file(names)):
            what = f'{names} has an empty line, {1 + lines.index("")}, which would be a class'
            yield Finding(ERROR, where, what, 'Remove it')
        return
    if not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names) or not names:
        yield Finding(
            ERROR, where, f'must be a tuple of names, got {names!r}', "Write classes=('a', 'b')"
        )
        return
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        yield Finding(
            ERROR,
            where,
            f'names {", ".join(map(repr, twice))} more than once; a class has one label',
            'Name each class once, and set num_classes of the heads to their number',
        )


def check_same_classes(classes: Sequence[Classes]) -> Iterator[Finding]:
    """Check that all data sets of a config have the classes of its first one, in its order."""
    first, *others = classes
    for other in others:
        if other.names == first.names:
            continue
        how = f'has {len(other.names)} classes, and {first.where} has {len(first.names)}'
        if sorted(other.names) == sorted(first.names):
            how = f'has the classes of {first.where} in another order'
        elif len(other.names) == len(first.names):
            a, b = next((a, b) for a, b in zip(other.names, first.names) if a != b)
            how = f'names {a!r} the class that {first.where} names {b!r}'
        yield Finding(
            ERROR,
            f'{other.where}.metainfo.classes',
            f'{how}: a label would mean another class there',
            f'Give both the same: metainfo=dict(classes={as_tuple(first.names)})',
        )


def config_heads(model: Mapping[str, Any]) -> Iterator[Head]:
    """The parts of a model's config that say of how many classes they are."""
    for path, part in all_configs(model, 'model'):
        keys = {key.partition('[')[0] for key in path.split('.')}
        key = class_key(part)
        if isinstance(part.get(key), int) and not keys & OTHER_CLASSES:
            yield Head(path, type_name(part), part[key], key)


def class_key(part: Mapping[str, Any]) -> str:
    """What a head calls the number of its classes; one of Mask2Former has things alone."""
    things_only = part.get('num_stuff_classes') == 0
    return 'num_things_classes' if things_only else 'num_classes'


def check_heads(heads: Iterable[Head], classes: Classes) -> Iterator[Finding]:
    """Check that heads are of as many classes as the data."""
    count = len(classes.names)
    for head in heads:
        if head.num_classes == count:
            continue
        what = f'is {head.num_classes} ({head.kind}), but {classes.where} has {count} classes'
        if not classes.given:
            what += ", those of MMDetection's data set, as its metainfo names none"
        elif head.num_classes < count:
            what += f': {classes.names[head.num_classes]!r} would be taught as background'
        fix = f'Set it to {count}, in every head'
        if not classes.given:
            fix = 'Name your classes, metainfo=dict(classes=(...)), in every data set'
        yield Finding(ERROR, f'{head.where}.{head.key}', what, fix)


def as_tuple(names: Iterable[str]) -> str:
    """Names as one would write them in a config; of many the first and the last."""
    names = [repr(name) for name in names]
    if len(names) > 30:
        names = [*names[:10], '...', names[-1]]
    return f'({", ".join(names)}{"," if len(names) == 1 else ""})'


def _is_open_vocabulary(cfg: Config) -> bool:
    """Whether the model takes the names of the classes as text: it has no number of classes."""
    return any(path.endswith('language_model') for path, _ in all_configs(cfg.get('model') or {}))
