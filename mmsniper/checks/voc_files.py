"""Checks of VOC's XML files: MMDetection drops objects of unknown names without a word."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from mmsniper.checks.config import leaf_configs
from mmsniper.checks.finding import ERROR, WARNING, Finding
from mmsniper.chips.coco_file import nearest_name
from mmsniper.utils.missing_files import missing_file

_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


@dataclass(frozen=True)
class VOCFiles:
    """What is in the XML files of a list.

    Attributes:
        images: Of each image its width and height (None where the file has no size), and the names
            of its objects.
        turned: Number of boxes whose xmax is below xmin, or ymax below ymin.
        relative: Whether all boxes lie within 0..1.
        fault: What is wrong with the first faulty file, in words; '' if none is.
    """

    images: tuple[tuple[tuple[int, int] | None, tuple[str, ...]], ...]
    turned: int
    relative: bool
    fault: str


def check_voc_data(cfg: Config, loader: str) -> Iterator[Finding]:
    """Check the XML files of a data loader's VOC data: their names, boxes and sizes.

    Args:
        cfg (Config): A config. Left as it is.
        loader (str): Key of the data loader.
    """
    for where, leaf, kind in leaf_configs(cfg, loader):
        if not (isinstance(kind, type) and issubclass(kind, XMLDataset)):
            continue
        if kind.load_data_list is not XMLDataset.load_data_list or not _has_names(leaf, kind):
            continue
        try:
            dataset = DATASETS.build(ConfigDict(deepcopy(leaf), lazy_init=True, pipeline=[]))
        except (TypeError, ValueError) as error:
            yield Finding(ERROR, where, f'cannot be built: {error}')
            continue
        if '://' not in dataset.ann_file:
            yield from _check(dataset, where, loader == 'train_dataloader')


def _has_names(leaf: Mapping[str, Any], kind: type) -> bool:
    """Whether the classes are what they must be; if not, another check says so."""
    names = (leaf.get('metainfo') or {}).get('classes') or kind.METAINFO.get('classes')
    return isinstance(names, str | list | tuple) and bool(names)


def _check(dataset: XMLDataset, where: str, training: bool) -> Iterator[Finding]:
    path = dataset.ann_file
    try:
        stat = os.stat(path)
        folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
        files = _read(path, folder, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        why = missing_file(path, 'the config') if isinstance(error, FileNotFoundError) else error
        yield Finding(ERROR, f'{where}.ann_file', f'{path} cannot be read: {why}')
        return
    except UnicodeDecodeError:
        yield Finding(ERROR, f'{where}.ann_file', f'{path} is not a text in UTF-8')
        return
    if files.fault:
        yield Finding(ERROR, f'{where}.ann_file', files.fault)
        return
    if files.relative:
        what = f'all boxes of {path} lie within 0..1, and VOC has pixels'
        yield Finding(ERROR, f'{where}.ann_file', what, 'Multiply them by the size of the image')
    if files.turned:
        what = f'{files.turned} boxes of {path} have xmax below xmin or ymax below ymin'
        yield Finding(
            WARNING, f'{where}.ann_file', what, 'They cannot be learned: exchange the two'
        )
    wrong = list(_check_names(files, tuple(dataset.metainfo['classes']), where, path, training))
    yield from wrong
    if training and not dataset.test_mode and not wrong:
        yield from _check_left(files, dataset, where)


def _check_names(
    files: VOCFiles, classes: tuple[str, ...], where: str, path: str, training: bool
) -> Iterator[Finding]:
    """A class that no object has may be misspelt: its objects would be background."""
    count = Counter(name for _, names in files.images for name in names)
    unused = [name for name in count if name not in classes]
    has = ', '.join(repr(name) for name in sorted(count)) or 'no object'
    missing = [name for name in classes if name not in count]
    if count and len(missing) == len(classes):
        what = f'none of the classes is in the XML files of {path}, which have {has}'
        yield Finding(ERROR, f'{where}.metainfo.classes', what, 'Name the classes of the files')
        return
    for name in missing:
        if meant := nearest_name(name, unused):
            alike = name.casefold().split() == meant.casefold().split()
            yield Finding(
                ERROR if training or alike else WARNING,
                f'{where}.metainfo.classes',
                f'no object in the XML files of {path} is called {name!r}, and {count[meant]} are '
                f'called {meant!r}: they would be background',
                f'Write {meant!r} for {name!r}',
            )


def _check_left(files: VOCFiles, dataset: XMLDataset, where: str) -> Iterator[Finding]:
    """Whether the data set's rules leave an image."""
    rules, classes = dataset.filter_cfg or {}, set(dataset.metainfo['classes'])
    least = rules.get('min_size', 0)
    narrow = [size is not None and min(size) < least for size, _ in files.images]
    empty = [not classes & set(names) for _, names in files.images]
    if not rules.get('filter_empty_gt', False):
        empty = [False] * len(empty)
    if not any(not (n or e) for n, e in zip(narrow, empty)):
        what = (
            f'no image of {dataset.ann_file} is left to train on: of {len(files.images)}, '
            f'{sum(narrow)} are narrower than {least} px by their XML files, and {sum(empty)} have '
            f'no object of a class in metainfo'
        )
        yield Finding(ERROR, where, what, 'Correct the files, metainfo or filter_cfg')


@lru_cache(maxsize=16)
def _read(path: str, folder: str, *stamp: int) -> VOCFiles:
    with open(path, encoding='utf-8') as file:
        ids = [line.rstrip('\n\r') for line in file]  # as mmengine's list_from_file
    images, turned, relative = [], 0, True
    for name in ids:
        try:
            size, objects = _read_image(path, name, os.path.join(folder, f'{name}.xml'))
        except ValueError as error:
            return VOCFiles((), 0, False, str(error))
        boxes = [box for _, box in objects]
        turned += sum(x2 < x1 or y2 < y1 for x1, y1, x2, y2 in boxes)
        relative = relative and all(0 <= v <= 1 for box in boxes for v in box)
        images.append((size, tuple(kind for kind, _ in objects)))
    any_box = any(names for _, names in images)
    return VOCFiles(tuple(images), turned, relative and any_box, '')


def _read_image(
    listed_in: str, name: str, path: str
) -> tuple[tuple[int, int] | None, list[tuple[str, tuple[float, ...]]]]:
    """Size and objects of an image; a fault is a ValueError that names file, entry and fix."""
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
        width, height = (_number(root.find('size'), key, path) for key in ('width', 'height'))
        size = (int(width), int(height))
        if min(size) < 1:
            raise ValueError(f'{path} says that the image is of {size[0]}x{size[1]} px: correct it')
    objects = []
    for k, entry in enumerate(root.findall('object'), 1):
        kind, box = entry.findtext('name'), entry.find('bndbox')
        if kind is None:
            raise ValueError(f"{path}: object {k} has no 'name': add it")
        if box is None:
            raise ValueError(f"{path}: object {k} ({kind}) has no 'bndbox': add it, or remove it")
        if (difficult := entry.find('difficult')) is not None and difficult.text not in ('0', '1'):
            got = difficult.text
            raise ValueError(f"{path}: 'difficult' of object {k} ({kind}) is {got!r}: write 0 or 1")
        objects.append((kind, tuple(_number(box, side, path) for side in _SIDES)))
    return size, objects


def _number(entry: ElementTree.Element, key: str, path: str) -> float:
    text = entry.findtext(key)
    try:
        number = float(text)
        if abs(number) < 2**31:
            return number
    except (TypeError, ValueError):
        pass
    raise ValueError(f'{path}: {key!r} of {entry.tag!r} is {text!r}, expected a number of pixels')
