"""What planning reads and what it makes, as flat arrays: annotations in, chips out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSITIVE = 0
NEGATIVE = 1
KINDS = ('positive', 'negative')

# Boxes with a shorter side than this (original px, after clipping) are not objects to cover.
MIN_SIDE = 1.0


@dataclass(frozen=True)
class AnnotationTable:
    """The boxes of a data set, as far as planning needs them.

    Boxes are clipped to their image. Those that are then shorter than one pixel on a side, or are
    NaN, stay in the table (so that indices match the annotations) but are marked as ignored.

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
        cls,
        images: Iterable[tuple[int, int, ArrayLike, ArrayLike | None]],
    ) -> AnnotationTable:
        """Collect from an iterable of ``(width, height, boxes, ignore)``, one per image.

        Args:
            images: For each image its original size, its boxes (n, 4) xyxy, and a mask (n,) of
                the boxes that are crowd or difficult (None: none is).

        Raises:
            ValueError: If a size is not positive or the boxes do not have the shape (n, 4).
        """
        sizes, boxes, ignores, counts = [], [], [], []
        for i, (width, height, box, ignore) in enumerate(images):
            if not (width > 0 and height > 0):
                raise ValueError(
                    f'image {i} has the size {width}x{height}; width and height must be positive'
                )
            box = np.asarray(box, np.float32)
            if box.size and (box.ndim != 2 or box.shape[1] != 4):
                raise ValueError(f'image {i}: boxes must have shape (n, 4), got {box.shape}')
            box = box.reshape(-1, 4)
            sizes.append((width, height))
            boxes.append(box)
            ignores.append(np.zeros(len(box), bool) if ignore is None else np.asarray(ignore, bool))
            counts.append(len(box))
        wh = np.array(sizes, np.int32).reshape(-1, 2)
        return cls.from_arrays(
            wh[:, 0],
            wh[:, 1],
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            np.concatenate([np.zeros(0, bool), *ignores]),
        )

    @classmethod
    def from_arrays(
        cls, width: ArrayLike, height: ArrayLike, offset: ArrayLike, boxes: ArrayLike,
        ignore: ArrayLike,
    ) -> AnnotationTable:
        """Build from flat arrays as described above; clips and marks degenerate boxes."""
        width, height = np.asarray(width, np.int32), np.asarray(height, np.int32)
        offset = np.asarray(offset, np.int64)
        image = np.repeat(np.arange(len(width)), np.diff(offset))
        limit = np.stack([width, height, width, height], axis=1)[image]
        boxes = np.clip(np.asarray(boxes, np.float32), 0, limit).astype(np.float32, copy=False)
        sides = boxes[:, 2:] - boxes[:, :2]
        # `not >=` rather than `<`: NaN counts as degenerate.
        degenerate = ~(sides >= MIN_SIDE).all(axis=1)
        return cls(width, height, offset, boxes, np.asarray(ignore, bool) | degenerate)

    def __len__(self) -> int:
        return len(self.width)

    @property
    def image(self) -> NDArray[np.int64]:
        """Image index of every box, shape (num_boxes,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offset))

    def boxes_of(self, image: int) -> NDArray[np.float32]:
        """Boxes of one image, shape (n, 4)."""
        return self.boxes[self.offset[image]:self.offset[image + 1]]


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
            np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros((0, 4), np.float32),
            np.zeros(0, np.int8),
        )

    def take(self, index: ArrayLike) -> ChipPlan:
        """The chips at the given positions (or of the given mask), in that order."""
        index = np.asarray(index)
        return ChipPlan(self.image[index], self.level[index], self.box[index], self.kind[index])

    def count_per_level(self, num_levels: int) -> NDArray[np.int64]:
        """Number of chips at each level, fine to coarse."""
        return np.bincount(self.level, minlength=num_levels)
