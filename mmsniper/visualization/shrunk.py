"""Detections in the pixels of a picture that is smaller than its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from torch import Tensor

from mmsniper.utils.box_types import is_rotated, typed


def shrunk_instances(
    found: InstanceData, image: tuple[int, ...], picture: tuple[int, ...]
) -> InstanceData:
    """Instances as a picture shows them.

    Args:
        found (InstanceData): ``bboxes`` in original pixels, ``labels``, and, if they are there,
            ``scores`` and ``masks``.
        image (tuple[int, ...]): Height and width of the image.
        picture (tuple[int, ...]): Height and width of the picture.

    Returns:
        InstanceData: These, with boxes and masks in the picture's pixels.
    """
    shrunk = InstanceData(labels=found.labels)
    if 'scores' in found:
        shrunk.scores = found.scores
    h, w = picture
    boxes = typed(found.bboxes).to(torch.float32, copy=True)
    boxes.rescale_((w / image[1], h / image[0]))
    shrunk.bboxes = boxes if is_rotated(boxes) else boxes.tensor
    if 'masks' in found:
        masks = [_shrunk_mask(mask, (w, h)) for mask in found.masks]
        shrunk.masks = np.array(masks, bool).reshape(-1, h, w)  # none too
    return shrunk


def shrunk_sample(
    sample: DetDataSample, image: tuple[int, ...], picture: tuple[int, ...]
) -> DetDataSample:
    """A sample as a picture shows it, see :func:`shrunk_instances`; itself at its own size."""
    if tuple(image) == tuple(picture):
        return sample
    shrunk = DetDataSample(metainfo=sample.metainfo)
    for name in {'pred_instances', 'gt_instances'} & set(sample.keys()):
        setattr(shrunk, name, shrunk_instances(sample.get(name).cpu(), image, picture))
    return shrunk


def _shrunk_mask(mask: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (h, w), or its COCO RLE, at the size (w, h) of a picture."""
    if isinstance(mask, Tensor):
        mask = mask.numpy()
    whole = coco_masks.decode(mask) if isinstance(mask, Mapping) else np.asarray(mask)
    return cv2.resize(whole.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
