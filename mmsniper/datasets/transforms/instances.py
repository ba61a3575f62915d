"""What the transforms share: boxes of an image, in original pixels, and what goes with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import MIN_SIDE

# Boxes that were resized and scaled back differ by this much (original px).
_TOLERANCE = 1e-2


def clip_to_image(boxes: NDArray[np.floating], image_shape: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes (n, 4), xyxy, clipped to an image of the shape (height, width)."""
    height, width = image_shape
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def is_object(boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which boxes (n, 4), clipped to the image, can be objects: a pixel wide and high, no NaN."""
    sides = boxes[:, 2:] - boxes[:, :2]
    # `>=` rather than `not <`: false for NaN.
    return np.all(sides >= MIN_SIDE - _TOLERANCE, axis=1)


def keep_instances(results: dict, keep: NDArray[np.bool_]) -> None:
    """Drop the boxes for which ``keep`` is false, with their labels, flags and masks."""
    if keep.all():
        return
    # BitmapMasks cannot be taken by an empty boolean mask.
    index = np.flatnonzero(keep)
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks'):
        if results.get(key) is not None:
            results[key] = results[key][index]
