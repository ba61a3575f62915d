"""The boxes of a data set as flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.coco_file import CocoFile, CocoUse
from mmsniper.chips.rotated_boxes import (
    box_corners,
    enclosing_boxes,
    rectangle_sides,
    smallest_rectangles,
)
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

    Rotated boxes are there as the upright boxes that enclose them, as which a chip has to enclose
    them, and with their corners, by which levels are chosen.

    Attributes:
        width, height: Of the images, original px, int32, shape (num_images,).
        offset: Boxes of image i are ``boxes[offset[i]:offset[i + 1]]``, int64, (num_images + 1,).
        boxes: float32, shape (num_boxes, 4), xyxy, original px.
        ignore: True for crowd, difficult and degenerate boxes, shape (num_boxes,).
        corners: Of rotated boxes, x1, y1, ..., x4, y4 of the smallest rectangle around each, not
            clipped, original px, float32, shape (num_boxes, 8). None if there are none.
        label: Class of each box, int32, shape (num_boxes,). None where classes are not asked for.
    """

    width: NDArray[np.int32]
    height: NDArray[np.int32]
    offset: NDArray[np.int64]
    boxes: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    corners: NDArray[np.float32] | None = None
    label: NDArray[np.int32] | None = None

    @classmethod
    def from_images(
        cls, images: Iterable[tuple[int, int, ArrayLike, ArrayLike | None]]
    ) -> AnnotationTable:
        """Collect from an iterable of ``(width, height, boxes, ignore)``, one per image.

        Args:
            images (Iterable[tuple[int, int, ArrayLike, ArrayLike | None]]): Width and height in
                original px, boxes (n, 4) xyxy, or (n, 8) four corners of rotated ones, and a
                mask (n,) of those that are crowd or difficult (None: none is).

        Raises:
            ValueError: If a number or shape is none of these; the message names the image's index.
        """
        tables: list[AnnotationTable] = []
        shapes, boxes, ignores, corners = [], [], [], []
        for i, (width, height, box, ignore) in enumerate(images):
            shapes.append(_as_wh(width, height, f'image {i}'))
            box, corner = _as_boxes(box, f'image {i}')
            ignore = np.zeros(len(box), bool) if ignore is None else np.asarray(ignore, bool)
            if ignore.shape != (len(box),):
                raise ValueError(
                    f'image {i}: {len(box)} boxes need as many ignore flags, got shape '
                    f'{ignore.shape}'
                )
            boxes.append(box)
            ignores.append(ignore)
            corners.append(corner)
            if len(boxes) == _IMAGES:
                tables.append(cls._from_lists(shapes, boxes, ignores, corners))
                shapes, boxes, ignores, corners = [], [], [], []
        return cls.joined([*tables, cls._from_lists(shapes, boxes, ignores, corners)])

    @classmethod
    def _from_lists(
        cls, shapes: list, boxes: list, ignores: list, corners: list
    ) -> AnnotationTable:
        width, height = np.array(shapes, np.int32).reshape(-1, 2).T
        rotated = any(corner is not None for corner in corners)
        of_boxes = (box_corners(b) if c is None else c for b, c in zip(boxes, corners))
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
        corners: ArrayLike | None = None,
    ) -> AnnotationTable:
        """Build from the arrays above, of boxes that may reach beyond their image.

        Raises:
            ValueError: If a width or height is not positive or the arrays do not fit together.
        """
        width, height = np.asarray(width, np.int32), np.asarray(height, np.int32)
        offset, boxes = np.asarray(offset, np.int64), np.asarray(boxes, np.float32)
        ignore = np.asarray(ignore, bool)
        corners = None if corners is None else np.asarray(corners, np.float32)
        _check_arrays(width, height, offset, boxes, ignore, corners)
        image = np.repeat(np.arange(len(width)), np.diff(offset))
        limit = np.stack([width, height, width, height], axis=1)[image]
        clipped = np.clip(boxes, 0, limit).astype(np.float32, copy=False)
        sides = clipped[:, 2:] - clipped[:, :2]
        good = np.isfinite(boxes).all(axis=1) & (sides >= MIN_SIDE).all(axis=1)
        return cls(width, height, offset, clipped, ignore | ~good, corners)

    @classmethod
    def joined(cls, tables: Sequence[AnnotationTable]) -> AnnotationTable:
        """The images of several tables, of at least one, one after the other."""
        arrays = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in ('width', 'height', 'boxes', 'ignore')
        }
        counts = np.concatenate([np.diff(table.offset) for table in tables])
        if any(table.corners is not None for table in tables):
            arrays['corners'] = np.concatenate(
                [box_corners(t.boxes) if t.corners is None else t.corners for t in tables]
            )
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
        rotated: bool = False,
    ) -> AnnotationTable:
        """Read a data set in COCO's format as MMDetection does, in the order of the file.

        Args:
            coco (CocoFile | str | PathLike | dict): The file, its path, or what is in it.
            classes (Sequence[str] | None): The classes that are used. Defaults to None, all.
            filter_cfg (dict | None): Which images are used, see :meth:`CocoFile.use`. Defaults to
                None, all.
            rotated (bool): See :meth:`from_use`. Defaults to False.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not JSON, or not COCO's format; see :meth:`CocoFile.read`.
        """
        file = coco if isinstance(coco, CocoFile) else CocoFile.read(coco)
        return cls.from_use(file.use(classes, filter_cfg), rotated)

    @classmethod
    def from_use(cls, use: CocoUse, rotated: bool = False) -> AnnotationTable:
        """Take what is used of a COCO file; crowds are ignored boxes.

        Args:
            use (CocoUse): What is used.
            rotated (bool): The boxes are those around the polygons, see :func:`corners_of_masks`,
                instead of ``bbox``. Defaults to False.

        Raises:
            ValueError: If with ``rotated`` an annotation has no polygon.
        """
        file = use.file
        annotations = np.flatnonzero(use.annotations)
        order = annotations[np.argsort(file.image[annotations], kind='stable')]
        images = np.flatnonzero(use.images)
        offset = np.searchsorted(file.image[order], np.append(images, len(file.images)))
        boxes, corners = file.boxes[order], None
        boxes[:, 2:] += boxes[:, :2]
        if rotated:
            masks = [file.annotations[i].get('segmentation') for i in order.tolist()]
            corners = corners_of_masks(masks, lambda i: file.describe(int(order[i])))
            boxes = enclosing_boxes(corners).astype(np.float64)
        return cls.from_arrays(
            file.width[images], file.height[images], offset, boxes, file.crowd[order], corners
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

    def outlines_of(self, part: slice | NDArray[Any]) -> NDArray[np.float32]:
        """Some boxes as they are drawn, (n, 4) xyxy, or (n, 8) the corners of rotated ones."""
        return self.boxes[part] if self.corners is None else self.corners[part]

    def sides_of(self, part: slice | NDArray[Any]) -> NDArray[np.float64]:
        """Two sides of some boxes, original px, (n, 2); of rotated ones their own."""
        if self.corners is None:
            boxes = self.boxes[part].astype(np.float64)
            return np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
        return rectangle_sides(self.corners[part])

    def sizes_of(self, part: slice | NDArray[Any]) -> NDArray[np.float64]:
        """Sizes of some boxes, sqrt(area) in original px, of rotated ones their own."""
        return np.sqrt(self.sides_of(part).prod(axis=1))


def corners_of_masks(
    masks: Sequence[Any], describe: Callable[[int], str] = 'object {}'.format
) -> NDArray[np.float64]:
    """The smallest rectangles around polygons, which MMRotate's ``ConvertMask2BoxType`` takes.

    Args:
        masks (Sequence[Any]): What COCO files have as ``segmentation``: the polygons of n objects.
        describe (Callable[[int], str]): What an error calls an object. Defaults to its number.

    Returns:
        NDArray[np.float64]: Their corners, shape (n, 8).

    Raises:
        ValueError: If an object has no polygon.
    """
    polygons = []
    for i, mask in enumerate(masks):
        points = [] if not isinstance(mask, list) else [value for part in mask for value in part]
        if not points or len(points) % 2:
            raise ValueError(
                f'{describe(i)} has no polygon as its segmentation, of which its rotated box is '
                f'made (ConvertMask2BoxType): give it one, [[x1, y1, x2, y2, ...]]'
            )
        polygons.append(np.array(points, np.float32))  # as MMRotate, and as corners are here
    return smallest_rectangles(polygons)


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
    """Boxes as (n, 4), and the corners of rotated ones, of which they are what encloses them."""
    try:
        with np.errstate(over='ignore'):  # becomes infinite, and the box degenerate
            array = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{what}: boxes must be numbers of shape (n, 4): {error}') from None
    if not array.size:
        return array.reshape(0, 4), None
    if array.ndim == 2 and array.shape[1] == 8:
        corners = smallest_rectangles(array)
        return enclosing_boxes(corners), corners
    check_box_shape(array.shape, f'{what}: boxes')
    return array, None


def _check_arrays(
    width: NDArray,
    height: NDArray,
    offset: NDArray,
    boxes: NDArray,
    ignore: NDArray,
    corners: NDArray | None,
) -> None:
    expected = {
        'height': (height, width.shape),
        'offset': (offset, (len(width) + 1,)),
        'boxes': (boxes, (len(boxes), 4)),
        'ignore': (ignore, (len(boxes),)),
    }
    if corners is not None:
        expected['corners'] = (corners, (len(boxes), 8))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f'{name} must have shape {shape}, got {array.shape}')
    for i in np.flatnonzero((width <= 0) | (height <= 0)):
        _as_wh(width[i], height[i], f'image {i}')
    if offset[0] != 0 or offset[-1] != len(boxes) or (np.diff(offset) < 0).any():
        raise ValueError(f'offset must ascend from 0 to the number of boxes, {len(boxes)}')
