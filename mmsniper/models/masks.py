"""Masks of objects that were found in windows of an image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.models.roi_heads import BaseRoIHead
from mmdet.structures import SampleList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from torch import Tensor, nn

MAX_MASK_PIXELS = 2**29
"""Pixels of the masks of an image, at most, for which there is one tensor: half a GB."""


@dataclass(frozen=True)
class PlacedMask:
    """A mask as large as its object.

    Attributes:
        mask: Bool, (h, w).
        corner: x and y of its upper left pixel in the image.
    """

    mask: NDArray[np.bool_]
    corner: tuple[int, int]

    def rle(self, width: int, height: int) -> dict[str, Any]:
        """COCO's compressed RLE of the mask in an image, which is never made as a whole."""
        x, y = self.corner
        columns = np.pad(self.mask, ((1, 1), (0, 0))).astype(np.int8).T
        step = np.diff(columns, axis=1)
        column, row = np.nonzero(step)  # starts and ends of runs in turn, column by column
        at = (x + column) * height + y + row
        # Runs of full height meet at the edges of columns.
        meet = np.flatnonzero(at[1:-1:2] == at[2::2])
        at = np.delete(at, np.concatenate([2 * meet + 1, 2 * meet + 2]))
        end = [] if len(at) and at[-1] == width * height else [width * height]
        counts = np.diff(np.concatenate([[0], at, end])).astype(int).tolist()
        return coco_masks.frPyObjects(dict(size=[height, width], counts=counts), height, width)


class EncodedMask(dict):
    """COCO's RLE of a mask, which is the array (h, w) where it is indexed as one."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else coco_masks.decode(self)[key]


class EncodedMasks:
    """The ``EncodedMask`` of each object of an image, for MMDetection's code that has a tensor.

    Args:
        masks (Iterable[EncodedMask]): The masks.
        shape (tuple[int, int]): Height and width of the image.
    """

    def __init__(self, masks: Iterable[EncodedMask], shape: tuple[int, int]) -> None:
        self.masks, self.shape = list(masks), shape

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, key: int | slice) -> EncodedMask | EncodedMasks:
        if isinstance(key, slice):
            return EncodedMasks(self.masks[key], self.shape)
        return self.masks[key]

    def cat(self, parts: Iterable[EncodedMasks]) -> EncodedMasks:
        """Masks one after the other, by which ``InstanceData`` chooses some."""
        return EncodedMasks((mask for part in parts for mask in part.masks), self.shape)

    def numpy(self) -> EncodedMasks:
        """As it is: ``DumpDetResults`` encodes masks one by one."""
        return self

    def astype(self, dtype: Any) -> NDArray[Any]:
        """The masks (n, h, w), which visualizers draw."""
        masks = np.zeros((len(self), *self.shape), dtype)
        for canvas, mask in zip(masks, self.masks):
            canvas[:] = mask[:]
        return masks


class ImageMasks:
    """The masks of an image's objects, as they come.

    They become a tensor, as MMDetection has them, or :class:`EncodedMasks` where the tensor would
    have more than :data:`MAX_MASK_PIXELS`. MMDetection's metrics, inferencer and visualizers take
    either.

    Args:
        count (int): Number of objects.
        size (tuple[int, int]): Width and height of the image.
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.count, self.size = count, size
        self.as_tensor = count * math.prod(size) <= MAX_MASK_PIXELS
        self._placed: dict[int, PlacedMask] = {}
        self._encoded: dict[int, EncodedMask] = {}

    def add(self, objects: Sequence[int], masks: Sequence[PlacedMask]) -> None:
        """Give some objects their masks."""
        for i, mask in zip(objects, masks):
            if self.as_tensor:
                self._placed[i] = mask
            else:
                self._encoded[i] = EncodedMask(mask.rle(*self.size))

    def finished(self, device: torch.device) -> Tensor | EncodedMasks:
        """The masks of all objects."""
        shape = self.size[::-1]
        if not self.as_tensor:
            return EncodedMasks((self._encoded[i] for i in range(self.count)), shape)
        masks = np.zeros((self.count, *shape), bool)
        for i, canvas in enumerate(masks):
            placed = self._placed[i]
            (x, y), (height, width) = placed.corner, placed.mask.shape
            canvas[y : y + height, x : x + width] = placed.mask
        return torch.from_numpy(masks).to(device)


def predict_masks(
    roi_head: BaseRoIHead,
    feats: Sequence[Tensor],
    samples: SampleList,
    instances: Sequence[InstanceData],
    corners: Sequence[tuple[int, int]],
) -> list[list[PlacedMask]]:
    """Masks of objects that are known, from the features of the windows that they are in.

    Args:
        roi_head (BaseRoIHead): A RoI head with a mask head.
        feats (Sequence[Tensor]): Feature maps of the n windows, each (n, C, H, W).
        samples (SampleList): The windows.
        instances (Sequence[InstanceData]): Objects of each window; ``bboxes`` in the image's
            pixels. Their ``scores`` become those that the head gives them with their masks (Mask
            Scoring R-CNN), with most heads the same.
        corners (Sequence[tuple[int, int]]): Upper left corner of each window, the image's pixels.

    Returns:
        list[list[PlacedMask]]: The masks of each window's objects, placed in the image.
    """
    masks: list[list[PlacedMask]] = [[] for _ in instances]
    chosen = [i for i, found in enumerate(instances) if len(found)]  # PointRend wants no others
    if not chosen:
        return masks
    objects = []
    for i in chosen:
        found = instances[i]
        scale = found.bboxes.new_tensor(samples[i].metainfo['scale_factor']).repeat(2)
        boxes = (found.bboxes - found.bboxes.new_tensor(corners[i]).repeat(2)) * scale
        objects.append(InstanceData(bboxes=boxes, labels=found.labels, scores=found.scores))
    if len(chosen) < len(instances):
        feats = [of_windows[chosen] for of_windows in feats]
    with _found(roi_head, objects), _pasted_one_by_one(roi_head) as pasted:
        # Some heads have more to compute for masks than boxes and features.
        roi_head.predict(feats, None, [samples[i] for i in chosen], rescale=True)
    for i, of_window, scored in zip(chosen, pasted, objects):
        x, y = corners[i]
        masks[i] = [PlacedMask(p.mask, (p.corner[0] + x, p.corner[1] + y)) for p in of_window]
        instances[i].scores = scored.scores
    return masks


@contextmanager
def _found(roi_head: BaseRoIHead, objects: Sequence[InstanceData]) -> Iterator[None]:
    """Let a RoI head find these objects, whatever its input."""
    roi_head.predict_bbox = lambda *args, **kwargs: objects
    try:
        yield
    finally:
        del roi_head.predict_bbox


@contextmanager
def _pasted_one_by_one(roi_head: BaseRoIHead) -> Iterator[list[list[PlacedMask]]]:
    """Let the mask head paste each mask into a picture of its object instead of the window."""
    heads = roi_head.mask_head
    head: BaseModule = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    paste = head.predict_by_feat
    pasted: list[list[PlacedMask]] = []

    def predict_by_feat(
        mask_preds: Sequence[Tensor],
        results_list: Sequence[InstanceData],
        batch_img_metas: Sequence[Mapping[str, Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Sequence[InstanceData]:
        for logits, objects, info in zip(mask_preds, results_list, batch_img_metas):
            boxes = objects.bboxes / objects.bboxes.new_tensor(info['scale_factor']).repeat(2)
            pictures = [_picture_of(box, *info['ori_shape']) for box in boxes.tolist()]
            singles = [
                InstanceData(
                    bboxes=box[None] - box.new_tensor(corner).repeat(2), labels=label[None]
                )
                for box, label, (corner, _) in zip(boxes, objects.labels, pictures)
            ]
            infos = [dict(ori_shape=shape, scale_factor=(1.0, 1.0)) for _, shape in pictures]
            paste([one[None] for one in logits], singles, infos, *args, **kwargs)
            pasted.append(
                [
                    PlacedMask(single.masks[0].bool().cpu().numpy(), corner)
                    for single, (corner, _) in zip(singles, pictures)
                ]
            )
        return results_list

    head.predict_by_feat = predict_by_feat
    try:
        yield pasted
    finally:
        del head.predict_by_feat


def _picture_of(
    box: Sequence[float], height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corner (x, y) and shape (h, w) of the pixels that a box can reach, a pixel around it too."""
    x1, y1 = (min(max(math.floor(v) - 1, 0), end - 1) for v, end in zip(box[:2], (width, height)))
    x2, y2 = (max(min(math.ceil(v) + 1, end), 1) for v, end in zip(box[2:], (width, height)))
    return (x1, y1), (max(y2 - y1, 1), max(x2 - x1, 1))
