"""Checks of VOC's XML files: MMDetection drops objects of unknown names without a word."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from mmsniper.checks.config import leaf_configs, metainfo_fault
from mmsniper.checks.finding import ERROR, WARNING, Finding
from mmsniper.chips.coco_file import listed, nearest_name
from mmsniper.utils.command_line import progress
from mmsniper.utils.missing_files import missing_file

_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


@dataclass(frozen=True)
class VOCFiles:
    """What is in the XML files of a list.

    Attributes:
        images: Of each image its width and height (None where the file has no size), and the names
            of its objects.
        turned: Number of boxes whose xmax is below xmin, or ymax below ymin.
        outside: Number of boxes that lie outside of their image.
        relative: Whether all boxes lie within 0..1.
        faults: What is wrong with the first object that is faulty, in words, by its name; of a
            faulty file by the name ''.
    """

    images: tuple[tuple[tuple[int, int] | None, tuple[str, ...]], ...]
    turned: int = 0
    outside: int = 0
    relative: bool = False
    faults: Mapping[str, str] = field(default_factory=dict)


def check_voc_data(cfg: Config, loader: str) -> Iterator[Finding]:
    """Check the XML files of a data loader's VOC data: their names, boxes and sizes.

    Args:
        cfg (Config): A config. Left as it is.
        loader (str): Key of the data loader.
    """
    for where, leaf, kind in leaf_configs(cfg, loader):
        load = getattr(kind, 'load_data_list', None)
        if load is not XMLDataset.load_data_list or not _has_names(leaf, kind):
            continue
        try:
            dataset = DATASETS.build(ConfigDict(deepcopy(leaf), lazy_init=True, pipeline=[]))
        except (TypeError, ValueError) as error:
            yield Finding(ERROR, where, f'cannot be built: {error}')
            continue
        if '://' not in dataset.ann_file:
            yield from _check(dataset, where, loader == 'train_dataloader')


def _has_names(leaf: Mapping[str, Any], kind: type[XMLDataset]) -> bool:
    """Whether the classes are what they must be; if not, another check says so."""
    metainfo = leaf.get('metainfo') or {}
    if metainfo_fault(metainfo):
        return False
    names = metainfo.get('classes') or kind.METAINFO.get('classes')
    return isinstance(names, str | list | tuple) and bool(names)


def _check(dataset: XMLDataset, where: str, training: bool) -> Iterator[Finding]:
    path, classes = dataset.ann_file, tuple(dataset.metainfo['classes'])
    try:
        files = _files_of(dataset)
    except OSError as error:
        why = missing_file(path, 'the config') if isinstance(error, FileNotFoundError) else error
        yield Finding(ERROR, f'{where}.ann_file', f'{path} cannot be read: {why}')
        return
    except UnicodeDecodeError:
        yield Finding(ERROR, f'{where}.ann_file', f'{path} is not a text in UTF-8')
        return
    # MMDetection passes over objects of other names, whatever is wrong with them.
    faults = [files.faults[name] for name in ('', *classes) if name in files.faults]
    if faults:
        yield Finding(ERROR, f'{where}.ann_file', faults[0])
        return
    if not files.images:
        what = f'{path} lists no images'
        yield Finding(ERROR, f'{where}.ann_file', what, 'Name a file that does, ann_file=...')
        return
    if files.relative:
        what = f'all boxes of {path} lie within 0..1, and VOC has pixels'
        yield Finding(ERROR, f'{where}.ann_file', what, 'Multiply them by the size of the image')
    if files.turned:
        what = f'{files.turned} boxes of {path} have xmax below xmin or ymax below ymin'
        yield Finding(
            WARNING, f'{where}.ann_file', what, 'They cannot be learned: exchange the two'
        )
    if files.outside:
        what = f'{files.outside} boxes of {path} lie outside of their image'
        fix = 'They cannot be learned: correct them, or width and height in the XML files'
        yield Finding(WARNING, f'{where}.ann_file', what, fix)
    known = type(dataset).METAINFO.get('classes', ())
    wrong = list(_check_names(files, classes, known, where, path, training))
    yield from wrong
    if training and not dataset.test_mode and not wrong:
        yield from _check_left(files, dataset, where)


def _check_names(
    files: VOCFiles,
    classes: tuple[str, ...],
    known: tuple[str, ...],
    where: str,
    path: str,
    training: bool,
) -> Iterator[Finding]:
    """A class that no object has may be misspelt: its objects would be background.

    Two known names, such as VOC's car and cat, are two classes.
    """
    count = Counter(name for _, names in files.images for name in names)
    unused = [name for name in count if name not in classes]
    has = ', '.join(repr(name) for name in sorted(count)) or 'no object'
    missing = [name for name in classes if name not in count]
    if count and len(missing) == len(classes):
        what = f'none of the classes is in the XML files of {path}, which have {has}'
        yield Finding(ERROR, f'{where}.metainfo.classes', what, 'Name the classes of the files')
        return
    for name in missing:
        others = [other for other in unused if name not in known or other not in known]
        if meant := nearest_name(name, others):
            yield Finding(
                ERROR if training or _alike(name, meant) else WARNING,
                f'{where}.metainfo.classes',
                f'no object in the XML files of {path} is called {name!r}, and {count[meant]} are '
                f'called {meant!r}: they would be background',
                f'Write {meant!r} for {name!r}',
            )
    for name in unused:
        meant = nearest_name(name, [other for other in classes if count[other]])
        if meant and _alike(name, meant):
            yield Finding(
                ERROR,
                f'{where}.metainfo.classes',
                f'{count[name]} objects in the XML files of {path} are called {name!r}, and '
                f'{count[meant]} {meant!r}, a class: the former would be background',
                f'Write {meant!r} for {name!r} in the XML files',
            )


def _alike(one: str, other: str) -> bool:
    """Whether two names differ in case and blanks only."""
    return one.casefold().split() == other.casefold().split()


def _check_left(files: VOCFiles, dataset: XMLDataset, where: str) -> Iterator[Finding]:
    """Whether the data set's rules leave an image."""
    narrow, empty = _left_out(files, dataset)
    if not any(not (n or e) for n, e in zip(narrow, empty)):
        least = (dataset.filter_cfg or {}).get('min_size', 0)
        what = (
            f'no image of {dataset.ann_file} is left to train on: of {len(files.images)}, '
            f'{sum(narrow)} are narrower than {least} px by their XML files, and {sum(empty)} have '
            f'no object of a class in metainfo'
        )
        yield Finding(ERROR, where, what, 'Correct the files, metainfo or filter_cfg')


def _left_out(files: VOCFiles, dataset: XMLDataset) -> tuple[list[bool], list[bool]]:
    """Which images the data set leaves out as narrow, and which for want of objects."""
    rules, classes = dataset.filter_cfg or {}, set(dataset.metainfo['classes'])
    if dataset.test_mode:
        rules = {}
    least, drop = rules.get('min_size', 0), rules.get('filter_empty_gt', False)
    narrow = [size is not None and min(size) < least for size, _ in files.images]
    return narrow, [drop and not classes & set(names) for _, names in files.images]


def voc_use(dataset: XMLDataset) -> str:
    """What a data set uses of its XML files, in one line; '' if that is not known.

    Args:
        dataset (XMLDataset): A data set that has been built.
    """
    if type(dataset).load_data_list is not XMLDataset.load_data_list or '://' in dataset.ann_file:
        return ''
    files = _files_of(dataset)
    left = [narrow or empty for narrow, empty in zip(*_left_out(files, dataset))]
    named = Counter(name for _, names in files.images for name in names)
    kept = zip(files.images, left)
    count = Counter(name for (_, names), out in kept if not out for name in names)
    classes = dataset.metainfo['classes']
    others = [name for name in named if name not in classes]
    line = f'{sum(named.values()):,} objects: {sum(count[name] for name in classes):,} used'
    if others:
        number = sum(named[name] for name in others)
        line += f', {number:,} of a name that is not in metainfo ({listed(others)})'
    if out := sum(named[name] - count[name] for name in classes):
        line += f', {out:,} in images that are left out'
    images = f'{sum(left):,} left out' if any(left) else 'all used'
    return f'{dataset.ann_file}: {line}; {len(files.images):,} images: {images}'


def _files_of(dataset: XMLDataset) -> VOCFiles:
    """What is in the XML files of a data set.

    Raises:
        OSError: If its list cannot be read.
        UnicodeDecodeError: If the list is no text.
    """
    stat = os.stat(dataset.ann_file)
    folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
    return _read(dataset.ann_file, folder, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: str, folder: str, *stamp: int) -> VOCFiles:
    with open(path, encoding='utf-8') as file:
        ids = [line.rstrip('\n\r') for line in file]  # as mmengine's list_from_file
    images, boxes, sizes = [], [], []
    faults: dict[str, str] = {}
    for name in progress(ids, f'{path}: XML files'):
        try:
            size, objects = _read_image(path, name, os.path.join(folder, f'{name}.xml'))
        except ValueError as error:
            return VOCFiles((), faults={'': str(error)})
        images.append((size, tuple(kind for kind, _ in objects)))
        for kind, box in objects:
            if isinstance(box, str):
                faults.setdefault(kind, box)
            else:
                boxes.append(box)
                sizes.append(size or (math.inf, math.inf))
    turned = sum(x2 < x1 or y2 < y1 for x1, y1, x2, y2 in boxes)
    outside = sum(
        min(x1, x2) > w or min(y1, y2) > h or max(x1, x2) < 1 or max(y1, y2) < 1
        for (x1, y1, x2, y2), (w, h) in zip(boxes, sizes)
    )
    relative = bool(boxes) and all(0 <= v <= 1 for box in boxes for v in box)
    return VOCFiles(tuple(images), turned, outside, relative, faults)


def _read_image(
    listed_in: str, name: str, path: str
) -> tuple[tuple[int, int] | None, list[tuple[str, tuple[float, ...] | str]]]:
    """Size of an image, and of each object its name, and its box or what is wrong with it.

    Raises:
        ValueError: If the file is faulty; the message names file, entry and fix.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'{path} is not an XML file: {error}') from None
    except OSError as error:
        what = f'{listed_in} lists {name!r}, but {path} cannot be read: {error.strerror}'
        if not name.strip():
            what += '. Remove the empty line'
        elif os.path.isfile(os.path.join(os.path.dirname(path), f'{name.split()[0]}.xml')):
            what += '. Each line has to be the name only: remove the second column'
        elif os.path.isfile(os.path.splitext(path[: -len('.xml')])[0] + '.xml'):
            what += '. Names are listed without suffix: remove it'
        raise ValueError(what) from None
    size = None
    if root.find('size') is not None:
        sides = [root.findtext(f'size/{key}') for key in ('width', 'height')]
        try:
            size = (int(sides[0] or ''), int(sides[1] or ''))
        except ValueError:
            what = f'{path}: width and height are {sides[0]!r} and {sides[1]!r}'
            raise ValueError(f'{what}, expected whole numbers of pixels') from None
        if min(size) < 1:
            raise ValueError(f'{path} says that the image is of {size[0]}x{size[1]} px: correct it')
    objects = []
    for k, entry in enumerate(root.findall('object'), 1):
        kind = entry.findtext('name')
        if kind is None:
            raise ValueError(f"{path}: object {k} has no 'name': add it")
        objects.append((kind, _box_or_fault(entry, f'object {k} ({kind})', path)))
    return size, objects


def _box_or_fault(entry: ElementTree.Element, name: str, path: str) -> tuple[float, ...] | str:
    box, difficult = entry.find('bndbox'), entry.find('difficult')
    if box is None:
        return f"{path}: {name} has no 'bndbox': add it, or remove it"
    if difficult is not None and (difficult.text or '').strip() not in ('0', '1'):
        return f"{path}: 'difficult' of {name} is {difficult.text!r}: write 0 or 1"
    try:
        return tuple(_number(box, side, path) for side in _SIDES)
    except ValueError as error:
        return str(error)


def _number(entry: ElementTree.Element, key: str, path: str) -> float:
    text = entry.findtext(key)
    try:
        number = float(text or '')
        if abs(number) < 2**31:
            return number
    except ValueError:
        pass
    raise ValueError(f'{path}: {key!r} of {entry.tag!r} is {text!r}, expected a number of pixels')
