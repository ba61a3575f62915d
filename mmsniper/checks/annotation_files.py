"""What the checks keep of annotation files, each of which is read once in a process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mmsniper.chips.coco_file import CocoFile

# What pycocotools looks up in every annotation of an evaluation; it ends in a KeyError.
EVALUATED = ('area', 'iscrowd', 'segmentation')


@dataclass(frozen=True)
class AnnotationFile:
    """The facts of an annotation file that others must agree with.

    Attributes:
        path: The file.
        categories: Id and name of each category, in the order of the file.
        images: File name of each image, by its id.
        num_annotations: Number of annotations.
        lacking: For each of ``EVALUATED`` that annotations lack, which, in words.
        plain: Whether pycocotools can read it: UTF-8 without a byte order mark.
        has_id_0: Whether an annotation has the id 0, for which pycocotools takes no match.
        warnings: What looks wrong in its boxes, in words.
    """

    path: str
    categories: tuple[tuple[Any, str], ...]
    images: Mapping[Any, str]
    num_annotations: int
    lacking: Mapping[str, str]
    plain: bool
    has_id_0: bool
    warnings: tuple[str, ...]

    def label_names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the labels 0, 1, ..., which ``CocoDataset`` gives in the order of the file."""
        wanted = set(classes)
        return tuple(name for _, name in self.categories if name in wanted)

    def label_names_by_id(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """The same of ``Objects365V1Dataset``, which sorts the categories by their ids."""
        wanted = set(classes)
        return tuple(name for _, name in sorted(self.categories) if name in wanted)


def read_annotation_file(path: str | os.PathLike[str]) -> AnnotationFile:
    """Read a COCO file, with annotations or without.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no COCO file, see :meth:`~mmsniper.chips.coco_file.CocoFile.read`.
    """
    stat = os.stat(path)
    return _read(os.fspath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: str, *stamp: int) -> AnnotationFile:
    file = CocoFile.read(path, test=True)
    return AnnotationFile(
        path,
        tuple((category['id'], category['name']) for category in file.categories),
        {image['id']: image['file_name'] for image in file.images},
        len(file.annotations),
        {key: which for key in EVALUATED if (which := _lacking(file, key))},
        file.plain,
        any(annotation['id'] == 0 for annotation in file.annotations),
        file.warnings,
    )


def _lacking(file: CocoFile, key: str) -> str:
    without = [i for i, annotation in enumerate(file.annotations) if annotation.get(key) is None]
    if not without:
        return ''
    first = file.describe(without[0])
    return f'{len(without)} of {len(file.annotations)} annotations, first {first}'
