"""Detections as COCO results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config, ConfigDict
from numpy.typing import NDArray

from mmsniper.checks.annotation_files import AnnotationFile
from mmsniper.checks.classes import config_data, saved_meta
from mmsniper.datasets.wrappers import read_datasets
from mmsniper.utils.box_types import enclosing, is_rotated, typed


@dataclass(frozen=True)
class Classes:
    """What the labels of a detector mean.

    Attributes:
        names: Names of the classes.
        ids: Category ids in COCO results.
        palette: Colours, or the name of a palette.
        source: Where the ids are from, in words.
        doubt: What is not sure of the names, in words. Defaults to ''.
    """

    names: Sequence[str]
    ids: Sequence[int]
    palette: Any
    source: str
    doubt: str = ''

    @classmethod
    def of(cls, cfg: Config, checkpoint: Mapping[str, Any], palette: Any = 'none') -> Classes:
        """Ask the checkpoint, the config's data set and its annotation files.

        MMDetection numbers labels in the order of the annotation file of training. Names in
        another order, in the checkpoint or in ``metainfo``, are put into that one.
        """
        metainfo = _metainfo(cfg)
        saved = saved_meta(checkpoint)
        metainfo = {**metainfo, **saved}
        if palette == 'none':
            palette = metainfo.get('palette') or 'random'
        names = metainfo.get('classes') or ()
        names = [names] if isinstance(names, str) else list(names)
        doubt, tested = '', _annotation_file(cfg)
        order = [name for _, name in tested.categories if name in names] if tested else []
        if tested and names and sorted(order) == sorted(names) and order != names:
            names, doubt = _in_the_order_of_training(cfg, names, order, bool(saved), tested.path)
        return replace(cls.named(cfg, names), palette=palette, doubt=doubt)

    @classmethod
    def named(cls, cfg: Config, names: Sequence[str]) -> Classes:
        """Classes by their names alone, with the ids of the test's annotation file if it has all.

        Args:
            cfg (Config): The config.
            names (Sequence[str]): The name of each label.
        """
        tested = _annotation_file(cfg)
        ids = {name: key for key, name in tested.categories} if tested else {}
        if tested and names and set(names) <= set(ids):
            return cls(names, [ids[n] for n in names], 'random', f'those of {tested.path}')
        return cls(names, range(1, len(names) + 1), 'random', 'label + 1')

    def name(self, label: int) -> str:
        return self.names[label] if label < len(self.names) else f'class {label}'

    def category(self, label: int) -> int:
        return self.ids[label] if label < len(self.ids) else label + 1

    def coco(self, image_ids: ImageIds) -> dict[str, Any]:
        """COCO's annotation format with the categories, without images and annotations."""
        categories = [dict(id=key, name=name) for key, name in zip(self.ids, self.names)]
        info = dict(description=f'image ids: {image_ids.source}; category ids: {self.source}')
        return dict(info=info, images=[], annotations=[], categories=categories)


def _in_the_order_of_training(
    cfg: Config, names: list[str], order: list[str], is_saved: bool, tested: str
) -> tuple[list[str], str]:
    """The names by label, where checkpoint or config and the test's file have two orders."""
    whose = 'the checkpoint' if is_saved else 'metainfo'
    for part in config_data(cfg, 'train_dataloader', []):
        if part.labels and sorted(part.labels) == sorted(names):
            if list(part.labels) == names:
                return names, ''
            doubt = (
                f'{whose} lists the classes in another order than {part.file.path}, by which '
                f'training numbers labels; names are in the order of the file'
            )
            return list(part.labels), doubt
    doubt = (
        f'{whose} and {tested} list the classes in two orders, and the annotation file of training '
        f'is not here to tell which one the weights have; names are those of '
    )
    return (names, doubt + whose) if is_saved else (order, doubt + tested)


def _test_loader(cfg: Config) -> str:
    return 'test_dataloader' if cfg.get('test_dataloader') else 'val_dataloader'


def _metainfo(cfg: Config) -> Mapping[str, Any]:
    """Metainfo of the config's (first) test data set, unread."""
    loader = cfg.get(_test_loader(cfg))
    if loader is None:
        return {}
    config = ConfigDict(deepcopy(next(read_datasets(loader.dataset))), lazy_init=True, pipeline=[])
    return DATASETS.build(config).metainfo


def _annotation_file(cfg: Config) -> AnnotationFile | None:
    """The annotation file of the config's (first) test data set, if it is a COCO file."""
    parts = config_data(cfg, _test_loader(cfg), [])
    return parts[0].file if parts else None


@dataclass(frozen=True)
class ImageIds:
    """The numbers of images in results.

    Attributes:
        ids: Id of each image, by its name.
        source: Where they are from, in words.
        doubt: What is to be known of those that are not in the annotation file, in words.
            Defaults to ''.
    """

    ids: Mapping[str, Any]
    source: str
    doubt: str = ''

    @classmethod
    def of(cls, cfg: Config, images: Mapping[str, Path]) -> ImageIds:
        """Take them from the annotation file of the config's test data.

        An image is the one in the file whose name is the end of the image's path; where several
        are, or several paths end so, it is none of them. Without a file, or without an image in it,
        images are numbered from 1.

        Args:
            cfg (Config): The config.
            images (dict[str, Path]): Path of each image, by its name in the results.
        """
        file = _annotation_file(cfg)
        found = _known_images(images, file.images) if file else {}
        if file is None or not found:
            source = 'from 1, in the order of their names'
            source += f' (none of them is in {file.path})' if file else ''
            return cls(dict(zip(images, range(1, len(images) + 1))), source)
        source, doubt = f'those of {file.path}, by file name', ''
        others = [name for name in images if name not in found]
        if others:
            numbers = [key for key in file.images if isinstance(key, int)]
            first = max([0, *numbers]) + 1
            found.update(zip(others, range(first, first + len(others))))
            doubt = (
                f'{len(others)} of {len(images)} images are not in {file.path}, such as '
                f'{others[0]}: they have numbers from {first} on, which that file does not have'
            )
        return cls({name: found[name] for name in images}, source, doubt)


def _known_images(images: Mapping[str, Path], listed: Mapping[Any, str]) -> dict[str, Any]:
    """Ids of the images whose path ends in exactly one file name of those that are listed."""
    by_base: dict[str, list[tuple[Any, tuple[str, ...]]]] = {}
    for key, file_name in listed.items():
        parts = PurePosixPath(file_name.replace('\\', '/')).parts
        by_base.setdefault(parts[-1] if parts else '', []).append((key, parts))
    found: dict[str, Any] = {}
    for name, path in images.items():
        parts = path.parts
        ends = [
            key
            for key, end in by_base.get(path.name, ())
            if parts[-len(end) :] == end[-len(parts) :]
        ]
        if len(ends) == 1:
            found[name] = ends[0]
    count = Counter(found.values())
    return {name: key for name, key in found.items() if count[key] == 1}


def content_of(sample: DetDataSample, classes: Classes) -> dict[str, Any]:
    """What is kept of an image, as numbers: 1/1000 of a pixel is exact enough.

    Args:
        sample (DetDataSample): What the model predicts.
        classes (Classes): The classes.

    Returns:
        dict: ``width`` and ``height`` of the image; ``detections``, each with ``category_id``,
        ``bbox`` (x, y, width, height in original pixels) and ``score``, with masks also
        ``segmentation``, a COCO RLE; of rotated boxes, which ``bbox`` encloses, also ``rbox``
        (centre, width, height, clockwise angle in radians); ``levels``, which level found each,
        where several were seen; of AutoFocus ``focus_chips``, for each level, fine to coarse, and
        ``focus_pixels``.
    """
    found = sample.pred_instances.cpu().numpy()
    rles = coco_rles(found.get('masks'))
    own = typed(sample.pred_instances.bboxes).cpu()
    low, high = np.split(enclosing(own).numpy().astype(float), 2, axis=1)
    boxes = np.concatenate([low, high - low], axis=1).round(3).tolist()
    detections = [
        dict(category_id=classes.category(label), bbox=box, score=round(score, 6))
        for label, box, score in zip(found.labels.tolist(), boxes, found.scores.tolist())
    ]
    if is_rotated(own):
        for detection, box in zip(detections, own.convert_to('rbox').numpy().astype(float)):
            detection['rbox'] = [*box[:4].round(3).tolist(), round(float(box[4]), 6)]
    for detection, rle in zip(detections, rles):
        detection['segmentation'] = dict(rle, counts=rle['counts'].decode())
    height, width = sample.ori_shape[:2]
    levels = dict(levels=found.levels.tolist()) if 'levels' in found else {}
    content = dict(width=width, height=height, detections=detections, **levels)
    if 'focus_chips' in sample:
        content['focus_chips'] = [level.round(3).tolist() for level in sample.focus_chips]
        content['focus_pixels'] = int(sample.focus_pixels)
    return content


def coco_rles(masks: NDArray[np.bool_] | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Masks (n, h, w), or RLEs already, as COCO's RLEs; none of None."""
    return encode_mask_results(masks) if isinstance(masks, np.ndarray) else list(masks or ())


def coco_results(
    number: Any, name: str, content: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An image and its detections in COCO's formats.

    Args:
        number (int | str): Id of the image.
        name (str): Its file name.
        content (dict): What :func:`content_of` returns.

    Returns:
        tuple[dict, list[dict]]: The image, and its results.
    """
    image = dict(id=number, file_name=name, **content)
    found = image.pop('detections')
    image.pop('levels', None)
    return image, [dict(image_id=number, **detection) for detection in found]
