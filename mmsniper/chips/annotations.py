"""The boxes of a data set as flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.coco_file import CocoFile, CocoUse
from mmsniper.chips.pyramid import box_sizes
from mmsniper.chips.rotated_boxes import corner_sizes, enclosing_boxes
from mmsniper.utils.checks import check_box_shape

MIN_SIDE = 1.0
"""Boxes with a shorter side (original px, after clipping) are not objects: most are mistakes, and
MMDetection's data sets leave them out, too."""
_INT32 = 2**31 - 1
_IMAGES = 1 << 12  # whose boxes are collected one by one, which takes ten times their room


@dataclass(frozen=True)
class AnnotationTable:
    """The boxes of a data set, as far as planning needs them.

    Boxes are clipped to their image. Those that are then shorter than one pixel on a side, or not
    finite, stay in the table, so that indices match the annotations, but are ignored.

    Rotated boxes are there as the rectangles that enclose them, as which a chip has to enclose
    them, with sizes of their own, by which levels are chosen.

    Attributes:
        width, height: Of the images, original px, int32, shape (num_images,).
        offset: Boxes of image i are ``boxes[offset[i]:offset[i + 1]]``, int64, (num_images + 1,).
        boxes: float32, shape (num_boxes, 4), xyxy, original px.
        ignore: True for crowd, difficult and degenerate boxes, shape (num_boxes,).
        sizes: Of rotated boxes, sqrt(width times height), original px, float32, shape (num_boxes,).
            None if there are none: the sizes are those of ``boxes``.
        label: Class of each box, int32, shape (num_boxes,). None where classes are not asked for.
    """

    width: NDArray[np.int32]
    height: NDArray[np.int32]
    offset: NDArray[np.int64]
    boxes: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    sizes: NDArray[np.float32] | None = None
    label: NDArray[np.int32] | None = None

    @classmethod
    def from_images(
        cls, images: Iterable[tuple[int, int, ArrayLike, ArrayLike | None]]
    ) -> AnnotationTable:
        """Collect from an iterable of ``(width, height, boxes, ignore)``, one per image.

        Args:
            images (Iterable[tuple[int, int, ArrayLike, ArrayLike | None]]): Width and height in
                original px, boxes (n, 4) xyxy, or (n, 8) the corners of rotated ones, and a mask
                (n,) of those that are crowd or difficult (None: none is).

        Raises:
            ValueError: If a number or shape is none of these; the message names the image's index.
        """
        tables: list[AnnotationTable] = []
        shapes, boxes, ignores, sizes = [], [], [], []
        for i, (width, height, box, ignore) in enumerate(images):
            shapes.append(_as_wh(width, height, f'image {i}'))
            box, size = _as_boxes(box, f'image {i}')
            ignore = np.zeros(len(box), bool) if ignore is None else np.asarray(ignore, bool)
            if ignore.shape != (len(box),):
                raise ValueError(
                    f'image {i}: {len(box)} boxes need as many ignore flags, got shape '
                    f'{ignore.shape}'
                )
            boxes.append(box)
            ignores.append(ignore)
            sizes.append(size)
            if len(boxes) == _IMAGES:
                tables.append(cls._from_lists(shapes, boxes, ignores, sizes))
                shapes, boxes, ignores, sizes = [], [], [], []
        return cls.joined([*tables, cls._from_lists(shapes, boxes, ignores, sizes)])

    @classmethod
    def _from_lists(cls, shapes: list, boxes: list, ignores: list, sizes: list) -> AnnotationTable:
        width, height = np.array(shapes, np.int32).reshape(-1, 2).T
        rotated = any(size is not None for size in sizes)
        of_boxes = (box_sizes(b) if s is None else s for b, s in zip(boxes, sizes))
        return cls.from_arrays(
            width,
            height,
            np.cumsum([0, *map(len, boxes)]),
            np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            np.concatenate([np.zeros(0, bool), *ignores]),
            np.concatenate(list(of_boxes)) if rotated else None,
        )

    @classmethod
    def from_arrays(
        cls,
        width: ArrayLike,
        height: ArrayLike,
        offset: ArrayLike,
        boxes: ArrayLike,
        ignore: ArrayLike,
        sizes: ArrayLike | None = None,
    ) -> AnnotationTable:
        """Build from the arrays above, of boxes that may reach beyond their image.

        Raises:
            ValueError: If a width or height is not positive or the arrays do not fit together.
        """
        width, height = np.asarray(width, np.int32), np.asarray(height, np.int32)
        offset, boxes = np.asarray(offset, np.int64), np.asarray(boxes, np.float32)
        ignore = np.asarray(ignore, bool)
        sizes = None if sizes is None else np.asarray(sizes, np.float32)
        _check_arrays(width, height, offset, boxes, ignore, sizes)
        image = np.repeat(np.arange(len(width)), np.diff(offset))
        limit = np.stack([width, height, width, height], axis=1)[image]
        clipped = np.clip(boxes, 0, limit).astype(np.float32, copy=False)
        sides = clipped[:, 2:] - clipped[:, :2]
        good = np.isfinite(boxes).all(axis=1) & (sides >= MIN_SIDE).all(axis=1)
        return cls(width, height, offset, clipped, ignore | ~good, sizes)

    @classmethod
    def joined(cls, tables: Sequence[AnnotationTable]) -> AnnotationTable:
        """The images of several tables, of at least one, one after the other."""
        arrays = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in ('width', 'height', 'boxes', 'ignore')
        }
        counts = np.concatenate([np.diff(table.offset) for table in tables])
        if any(table.sizes is not None for table in tables):
            sizes = [table.sizes_of(slice(None)) for table in tables]
            arrays['sizes'] = np.concatenate(sizes).astype(np.float32, copy=False)
        labels = [table.label for table in tables if table.label is not None]
        return cls(
            **arrays,
            offset=np.append(0, np.cumsum(counts, dtype=np.int64)),
            label=np.concatenate(labels) if len(labels) == len(tables) else None,
        )

    @classmethod
    def from_coco(
        cls,
        coco: CocoFile | str | PathLike | Mapping[str, Any],
        classes: Sequence[str] | None = None,
        filter_cfg: Mapping[str, Any] | None = None,
    ) -> AnnotationTable:
        """Read a data set in COCO's format as MMDetection does, in the order of the file.

        Args:
            coco (CocoFile | str | PathLike | dict): The file, its path, or what is in it.
            classes (Sequence[str] | None): The classes that are used. Defaults to None, all.
            filter_cfg (dict | None): Which images are used, see :meth:`CocoFile.use`. Defaults to
                None, all.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not JSON, or not COCO's format; see :meth:`CocoFile.read`.
        """
        file = coco if isinstance(coco, CocoFile) else CocoFile.read(coco)
        return cls.from_use(file.use(classes, filter_cfg))

    @classmethod
    def from_use(cls, use: CocoUse) -> AnnotationTable:
        """Take what is used of a COCO file; crowds are ignored boxes."""
        file = use.file
        annotations = np.flatnonzero(use.annotations)
        order = annotations[np.argsort(file.image[annotations], kind='stable')]
        images = np.flatnonzero(use.images)
        offset = np.searchsorted(file.image[order], np.append(images, len(file.images)))
        boxes = file.boxes[order]
        boxes[:, 2:] += boxes[:, :2]
        return cls.from_arrays(
            file.width[images], file.height[images], offset, boxes, file.crowd[order]
        )

    def __len__(self) -> int:
        return len(self.width)

    @property
    def image(self) -> NDArray[np.int64]:
        """Image index of every box, shape (num_boxes,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offset))

    def boxes_of(self, image: int) -> NDArray[np.float32]:
        """Boxes of one image, shape (n, 4)."""
        return self.boxes[self.offset[image] : self.offset[image + 1]]

    def sizes_of(self, part: slice | NDArray[Any]) -> NDArray[np.float64]:
        """Sizes of some boxes, sqrt(area) in original px, of rotated ones their own."""
        if self.sizes is None:
            return box_sizes(self.boxes[part].astype(np.float64))
        return self.sizes[part].astype(np.float64)


def _as_wh(width: Any, height: Any, what: str) -> tuple[int, int]:
    try:
        good = width == int(width) > 0 and height == int(height) > 0
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or max(width, height) > _INT32:
        raise ValueError(
            f'{what} has the size {width}x{height}; width and height must be positive whole numbers'
        )
    return int(width), int(height)


def _as_boxes(
    boxes: ArrayLike, what: str
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Boxes as (n, 4), and the sizes of rotated ones, of which they are what encloses them."""
    try:
        with np.errstate(over='ignore'):  # becomes infinite, and the box degenerate
            array = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{what}: boxes must be numbers of shape (n, 4): {error}') from None
    if not array.size:
        return array.reshape(0, 4), None
    if array.ndim == 2 and array.shape[1] == 8:
        return enclosing_boxes(array), corner_sizes(array)
    check_box_shape(array.shape, f'{what}: boxes')
    return array, None


def _check_arrays(
    width: NDArray,
    height: NDArray,
    offset: NDArray,
    boxes: NDArray,
    ignore: NDArray,
    sizes: NDArray | None,
) -> None:
    expected = {
        'height': (height, width.shape),
        'offset': (offset, (len(width) + 1,)),
        'boxes': (boxes, (len(boxes), 4)),
        'ignore': (ignore, (len(boxes),)),
    }
    if sizes is not None:
        expected['sizes'] = (sizes, (len(boxes),))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f'{name} must have shape {shape}, got {array.shape}')
    for i in np.flatnonzero((width <= 0) | (height <= 0)):
        _as_wh(width[i], height[i], f'image {i}')
    if offset[0] != 0 or offset[-1] != len(boxes) or (np.diff(offset) < 0).any():
        raise ValueError(f'offset must ascend from 0 to the number of boxes, {len(boxes)}')
