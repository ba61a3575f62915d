"""What planning reads and what it makes, as flat arrays: annotations in, chips out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSITIVE = 0
NEGATIVE = 1
KINDS = ('positive', 'negative')

# Boxes with a shorter side than this (original px, after clipping) are not objects to cover.
MIN_SIDE = 1.0
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class AnnotationTable:
    """The boxes of a data set, as far as planning needs them.

    Boxes are clipped to their image. Those that are then shorter than one pixel on a side, and
    those with NaN or infinite numbers, stay in the table (so that indices match the annotations)
    but are marked as ignored.

    Attributes:
        width, height: Image sizes in original pixels, int32, shape (num_images,).
        offset: Boxes of image i are ``boxes[offset[i]:offset[i + 1]]``, int64, (num_images + 1,).
        boxes: float32, shape (num_boxes, 4), xyxy in original pixels.
        ignore: True for crowd, difficult and degenerate boxes, shape (num_boxes,).
    """

    width: NDArray[np.int32]
    height: NDArray[np.int32]
    offset: NDArray[np.int64]
    boxes: NDArray[np.float32]
    ignore: NDArray[np.bool_]

    @classmethod
    def from_images(
        cls, images: Iterable[tuple[int, int, ArrayLike, ArrayLike | None]]
    ) -> AnnotationTable:
        """Collect from an iterable of ``(width, height, boxes, ignore)``, one per image.

        Args:
            images (Iterable[tuple[int, int, ArrayLike, ArrayLike | None]]): For each image its
                original size, its boxes (n, 4) xyxy, and a mask (n,) of the boxes that are crowd or
                difficult (None: none is).

        Raises:
            ValueError: If a size is not positive and whole, or boxes or masks do not have those
                shapes; the message names the image's index.
        """
        sizes, boxes, ignores = [], [], []
        for i, (width, height, box, ignore) in enumerate(images):
            sizes.append(_as_size(width, height, f'image {i}'))
            boxes.append(_as_boxes(box, f'image {i}'))
            mask = np.zeros(len(boxes[-1]), bool) if ignore is None else np.asarray(ignore, bool)
            if mask.shape != (len(boxes[-1]),):
                raise ValueError(
                    f'image {i}: {len(boxes[-1])} boxes need as many ignore flags, got shape '
                    f'{mask.shape}'
                )
            ignores.append(mask)
        width, height = np.array(sizes, np.int32).reshape(-1, 2).T
        return cls.from_arrays(
            width,
            height,
            np.cumsum([0, *map(len, boxes)]),
            np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            np.concatenate([np.zeros(0, bool), *ignores]),
        )

    @classmethod
    def from_arrays(
        cls,
        width: ArrayLike,
        height: ArrayLike,
        offset: ArrayLike,
        boxes: ArrayLike,
        ignore: ArrayLike,
    ) -> AnnotationTable:
        """Build from flat arrays as described above; clips, and marks degenerate boxes.

        Raises:
            ValueError: If a size is not positive or the arrays do not fit together.
        """
        width, height = np.asarray(width, np.int32), np.asarray(height, np.int32)
        offset, boxes = np.asarray(offset, np.int64), np.asarray(boxes, np.float32)
        ignore = np.asarray(ignore, bool)
        _check_arrays(width, height, offset, boxes, ignore)
        image = np.repeat(np.arange(len(width)), np.diff(offset))
        limit = np.stack([width, height, width, height], axis=1)[image]
        clipped = np.clip(boxes, 0, limit).astype(np.float32, copy=False)
        sides = clipped[:, 2:] - clipped[:, :2]
        good = np.isfinite(boxes).all(axis=1) & (sides >= MIN_SIDE).all(axis=1)
        return cls(width, height, offset, clipped, ignore | ~good)

    @classmethod
    def from_coco(cls, coco: str | Path | Mapping[str, Any]) -> AnnotationTable:
        """Read a data set in COCO's format, whatever its classes; no image is opened.

        Images keep the order of the file. Annotations with ``iscrowd`` or ``ignore`` are ignored
        boxes.

        Args:
            coco (str | Path | dict): The JSON file, or what is in it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not JSON, or not COCO's format; the message names the file, the
                image or annotation, and what is missing.
        """
        if isinstance(coco, Mapping):
            return _from_coco(cls, coco, 'the COCO dict')
        try:
            with open(coco, encoding='utf-8') as file:
                content = json.load(file)
        except ValueError as error:  # JSON or UTF-8
            raise ValueError(f'{coco} is not a JSON file: {error}') from None
        return _from_coco(cls, content, str(coco))

    def __len__(self) -> int:
        return len(self.width)

    @property
    def image(self) -> NDArray[np.int64]:
        """Image index of every box, shape (num_boxes,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offset))

    def boxes_of(self, image: int) -> NDArray[np.float32]:
        """Boxes of one image, shape (n, 4)."""
        return self.boxes[self.offset[image] : self.offset[image + 1]]


@dataclass(frozen=True)
class ChipPlan:
    """Chips as a struct of arrays, 22 bytes each: 4.5 million chips are 100 MB.

    Attributes:
        image: Image index, int32, shape (n,).
        level: Pyramid level, int8, shape (n,).
        box: The chip's window, float32, shape (n, 4), xyxy in original pixels, inside the image
            (a chip larger than its image ends where the image ends).
        kind: ``POSITIVE`` or ``NEGATIVE``, int8, shape (n,).
    """

    image: NDArray[np.int32]
    level: NDArray[np.int8]
    box: NDArray[np.float32]
    kind: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def empty(cls) -> ChipPlan:
        """A plan without chips."""
        return cls(
            np.zeros(0, np.int32),
            np.zeros(0, np.int8),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int8),
        )

    @classmethod
    def joined(cls, plans: Sequence[ChipPlan]) -> ChipPlan:
        """The chips of several plans, one after the other."""
        plans = [cls.empty(), *plans]
        return cls(
            *(
                np.concatenate([getattr(plan, field.name) for plan in plans])
                for field in fields(cls)
            )
        )

    def take(self, index: ArrayLike) -> ChipPlan:
        """The chips at the given positions (or of the given mask), in that order."""
        index = np.asarray(index)
        return ChipPlan(self.image[index], self.level[index], self.box[index], self.kind[index])

    def count_per_level(self, num_levels: int) -> NDArray[np.int64]:
        """Number of chips at each level, fine to coarse."""
        return np.bincount(self.level, minlength=num_levels)


def _as_size(width: Any, height: Any, what: str) -> tuple[int, int]:
    try:
        good = width == int(width) > 0 and height == int(height) > 0
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or max(width, height) > _INT32:
        raise ValueError(
            f'{what} has the size {width}x{height}; width and height must be positive whole numbers'
        )
    return int(width), int(height)


def _as_boxes(boxes: ArrayLike, what: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over='ignore'):  # becomes infinite, and the box degenerate
            array = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{what}: boxes must be numbers of shape (n, 4): {error}') from None
    if array.size and (array.ndim != 2 or array.shape[1] != 4):
        raise ValueError(f'{what}: boxes must have shape (n, 4), got {array.shape}')
    return array.reshape(-1, 4)


def _check_arrays(
    width: NDArray, height: NDArray, offset: NDArray, boxes: NDArray, ignore: NDArray
) -> None:
    shapes = dict(
        height=(height, width.shape),
        offset=(offset, (len(width) + 1,)),
        boxes=(boxes, (len(boxes), 4)),
        ignore=(ignore, (len(boxes),)),
    )
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f'{name} must have shape {shape}, got {array.shape}')
    bad = np.flatnonzero((width <= 0) | (height <= 0))
    if len(bad):
        i = bad[0]
        raise ValueError(
            f'image {i} has the size {width[i]}x{height[i]}; width and height must be positive'
        )
    if offset[0] != 0 or offset[-1] != len(boxes) or (np.diff(offset) < 0).any():
        raise ValueError(f'offset must ascend from 0 to the number of boxes, {len(boxes)}')


def _from_coco(cls: type[AnnotationTable], coco: Any, file: str) -> AnnotationTable:
    for key in ('images', 'annotations'):
        if not isinstance(coco, Mapping) or not isinstance(coco.get(key), list):
            raise ValueError(
                f'{file} has no list {key!r}: planning needs a COCO detection file with images '
                f'(id, width, height) and annotations (image_id, bbox)'
            )
    index, sizes = {}, []
    for image in coco['images']:
        what = f'{file}: image {_key(image, "id", f"{file}: an image")}'
        size = (_key(image, name, what, 'the image size in pixels') for name in ('width', 'height'))
        sizes.append(_as_size(*size, what))
        if image['id'] in index:
            raise ValueError(f'{what} occurs twice; ids must be unique')
        index[image['id']] = len(index)
    return _sorted_by_image(cls, coco['annotations'], index, sizes, file)


def _sorted_by_image(
    cls: type[AnnotationTable],
    annotations: list[Any],
    index: Mapping[Any, int],
    sizes: list[tuple[int, int]],
    file: str,
) -> AnnotationTable:
    count = len(annotations)
    image, box = np.empty(count, np.int64), np.empty((count, 4))
    ignore = np.empty(count, bool)
    for k, annotation in enumerate(annotations):
        what = f'{file}: annotation {_key(annotation, "id", f"{file}: an annotation")}'
        image_id = _key(annotation, 'image_id', what)
        if image_id not in index:
            raise ValueError(
                f'{what} belongs to image {image_id!r}, which is not among the images; add the '
                f'image or remove the annotation'
            )
        image[k] = index[image_id]
        box[k] = _coco_box(_key(annotation, 'bbox', what, '[x, y, width, height]'), what)
        ignore[k] = bool(annotation.get('iscrowd')) or bool(annotation.get('ignore'))
    order = np.argsort(image, kind='stable')
    box[:, 2:] += box[:, :2]
    offset = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=len(sizes)))])
    width, height = np.array(sizes, np.int32).reshape(-1, 2).T
    with np.errstate(over='ignore'):
        return cls.from_arrays(width, height, offset, box[order].astype(np.float32), ignore[order])


def _coco_box(box: Any, what: str) -> list[float]:
    """The four numbers; null, as NaN is written by some tools, makes a degenerate box."""
    try:
        numbers = [math.nan if v is None else float(v) for v in box]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4:
        raise ValueError(f'{what}: bbox must be [x, y, width, height], got {box!r}')
    return numbers


def _key(entry: Any, key: str, what: str, meaning: str = 'required') -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise ValueError(f'{what} has no {key!r} ({meaning}); add it to the file')
    return entry[key]
