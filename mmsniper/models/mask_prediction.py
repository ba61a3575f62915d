"""How detectors predict the masks of what is left when all levels are merged."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import Mask2FormerHead, RTMDetInsHead
from mmdet.models.detectors import BaseDetector, Mask2Former
from mmdet.models.roi_heads import BaseRoIHead, SparseRoIHead
from mmdet.structures import DetDataSample, SampleList
from mmdet.utils import InstanceList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsniper.models.enlarged_masks import Axis, Resize, enlarged_mask
from mmsniper.models.masks import PlacedMask


class MaskPrediction(ABC):
    """Predicts masks of objects that a detector has found in windows, after it has found them.

    What it needs for that beside their boxes and the windows' features are their ``codes``.
    """

    @abstractmethod
    @contextmanager
    def left_out(self, score_thr: float) -> Iterator[None]:
        """Let the detector find objects without masks, with ``codes`` (n, d) if it has any.

        Of those below ``score_thr`` it may find no boxes, if they cost time.
        """

    @abstractmethod
    def predict(
        self,
        feats: Sequence[Tensor],
        samples: SampleList,
        instances: Sequence[InstanceData],
        corners: Sequence[tuple[int, int]],
    ) -> list[list[PlacedMask]]:
        """Masks of objects that are known, from the features of the windows that they are in.

        Args:
            feats (Sequence[Tensor]): Feature maps of the n windows, each (n, C, H, W).
            samples (SampleList): The windows, as the detector got them.
            instances (Sequence[InstanceData]): Objects of each window; ``bboxes`` in the image's
                pixels, ``labels``, ``scores`` and their ``codes``. Their ``scores`` become those
                that a head gives them with their masks (Mask Scoring R-CNN).
            corners (Sequence[tuple[int, int]]): Upper left corner of each window, the image's
                pixels.

        Returns:
            list[list[PlacedMask]]: The masks of each window's objects, placed in the image.
        """


class MasksByBox(MaskPrediction):
    """Masks of a RoI head, which predicts them in boxes.

    Args:
        roi_head (BaseRoIHead): With a mask head.
    """

    def __init__(self, roi_head: BaseRoIHead) -> None:
        self.roi_head = roi_head

    @contextmanager
    def left_out(self, score_thr: float) -> Iterator[None]:
        """Let the head find objects without masks."""
        own, self.roi_head.mask_head = self.roi_head.mask_head, None
        try:
            yield
        finally:
            self.roi_head.mask_head = own

    def predict(
        self,
        feats: Sequence[Tensor],
        samples: SampleList,
        instances: Sequence[InstanceData],
        corners: Sequence[tuple[int, int]],
    ) -> list[list[PlacedMask]]:
        """As :meth:`MaskPrediction.predict`."""
        masks: list[list[PlacedMask]] = [[] for _ in instances]
        chosen = [i for i, found in enumerate(instances) if len(found)]  # PointRend wants no others
        if not chosen:
            return masks
        objects = []
        for i in chosen:
            found = instances[i]
            scale = found.bboxes.new_tensor(samples[i].metainfo['scale_factor']).repeat(2)
            boxes = (found.bboxes - found.bboxes.new_tensor(corners[i]).repeat(2)) * scale
            objects.append(self._known(found, boxes))
        if len(chosen) < len(instances):
            feats = [of_windows[chosen] for of_windows in feats]
        with _found(self.roi_head, objects), _pasted_one_by_one(self.roi_head) as pasted:
            # Some heads have more to compute for masks than boxes and features.
            self.roi_head.predict(feats, None, [samples[i] for i in chosen], rescale=True)
        for i, of_window, scored in zip(chosen, pasted, objects):
            masks[i] = [mask.moved(corners[i]) for mask in of_window]
            instances[i].scores = scored.scores
        return masks

    def _known(self, found: InstanceData, boxes: Tensor) -> InstanceData:
        """Objects of a window as the head would have found them, in boxes (n, 4), its pixels."""
        return InstanceData(bboxes=boxes, labels=found.labels, scores=found.scores)


class MasksByQuery(MasksByBox):
    """Masks of QueryInst, which predicts them in boxes, of features of the queries of these.

    Args:
        roi_head (SparseRoIHead): With mask heads.
    """

    @contextmanager
    def left_out(self, score_thr: float) -> Iterator[None]:
        """Let the head find objects without masks, with the features of their queries."""
        head = self.roi_head
        forward, predict = head._bbox_forward, head.predict
        last: dict[str, Any] = {}

        def numbered(stage: int, *args: Any, **kwargs: Any) -> dict[str, Any]:
            results = forward(stage, *args, **kwargs)
            if stage == head.num_stages - 1:
                last.update(results)
                results['detached_proposals'] = [
                    _with_numbers(boxes) for boxes in results['detached_proposals']
                ]
            return results

        def coded(*args: Any, **kwargs: Any) -> InstanceList:
            found = predict(*args, **kwargs)
            for of_window, feats in zip(found, last['attn_feats']):
                of_window.bboxes, numbers = _without_numbers(of_window.bboxes)
                of_window.codes = feats[numbers]
            return found

        head._bbox_forward, head.predict = numbered, coded
        try:
            with super().left_out(score_thr):
                yield
        finally:
            del head._bbox_forward, head.predict

    def predict(
        self,
        feats: Sequence[Tensor],
        samples: SampleList,
        instances: Sequence[InstanceData],
        corners: Sequence[tuple[int, int]],
    ) -> list[list[PlacedMask]]:
        """As :meth:`MaskPrediction.predict`; the head wants equally many objects in all windows."""
        masks = []
        for i, window in enumerate(zip(samples, instances, corners)):
            alone = [of_windows[i : i + 1] for of_windows in feats]
            masks += super().predict(alone, *([of_window] for of_window in window))
        return masks

    def _known(self, found: InstanceData, boxes: Tensor) -> InstanceData:
        """With a query of its own for each object."""
        known = super()._known(found, boxes)
        known.proposals, known.attn_feats = boxes, found.codes
        classes = self.roi_head.bbox_head[-1].num_classes
        known.topk_inds = torch.arange(len(boxes), device=boxes.device) * classes + found.labels
        return known


def _with_numbers(boxes: Tensor) -> Tensor:
    """Boxes (n, 4) with their numbers, in a second box (number, 0, 1, 0) that is scaled alike."""
    numbers = torch.arange(len(boxes)).to(boxes)
    ones, zeros = torch.ones_like(numbers), torch.zeros_like(numbers)
    return torch.cat([boxes, torch.stack([numbers, zeros, ones, zeros], dim=1)], dim=1)


def _without_numbers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Some of the boxes, scaled, and their numbers."""
    return boxes[:, :4], (boxes[:, 4] / boxes[:, 6]).round().long()


class MasksByCode(MaskPrediction):
    """Masks of a detector that makes a map of each object, of its code and a map of the window."""

    threshold = 0.0
    """What is above it in the map of an object belongs to the object."""

    @abstractmethod
    def maps(self, feats: Sequence[Tensor]) -> Tensor:
        """The maps of the n windows, shape (n, C, h, w)."""

    @abstractmethod
    def logits(self, of_window: Tensor, code: Tensor) -> Tensor:
        """The map (h, w) of an object, of that of its window (C, h, w) and its code (d,)."""

    @abstractmethod
    def axes(self, shape: Sequence[int], sample: DetDataSample) -> tuple[Axis, Axis]:
        """How rows and columns of a map of a shape become those of the window's original pixels."""

    def predict(
        self,
        feats: Sequence[Tensor],
        samples: SampleList,
        instances: Sequence[InstanceData],
        corners: Sequence[tuple[int, int]],
    ) -> list[list[PlacedMask]]:
        """As :meth:`MaskPrediction.predict`, object by object."""
        masks: list[list[PlacedMask]] = []
        for of_window, sample, found, corner in zip(self.maps(feats), samples, instances, corners):
            masks.append([])
            axes = self.axes(of_window.shape[-2:], sample)
            for code in found.codes:
                logits = self.logits(of_window, code).float()
                mask, _ = enlarged_mask(logits, *axes, self.threshold)
                masks[-1].append(mask.moved(corner))
        return masks


class MasksByKernel(MasksByCode):
    """Masks of RTMDet-Ins: of a cell's kernels, which are convolved with the window's prototypes.

    Args:
        head (RTMDetInsHead): The head.
    """

    def __init__(self, head: RTMDetInsHead) -> None:
        self.head = head
        above = (head.test_cfg or {}).get('mask_thr_binary', 0.5)
        self.threshold = math.log(above / (1 - above))

    @contextmanager
    def left_out(self, score_thr: float) -> Iterator[None]:
        """Let the head find boxes alone, with kernels and places of their cells as ``codes``."""

        def boxes_only(
            results: InstanceData, mask_feat: Tensor, *args: Any, **kwargs: Any
        ) -> InstanceData:
            found = self.head._bbox_post_process(results, *args, **kwargs)
            found.codes = torch.cat([found.kernels, found.priors.to(found.kernels)], dim=1)
            return found

        self.head._bbox_mask_post_process = boxes_only
        try:
            yield
        finally:
            del self.head._bbox_mask_post_process

    def maps(self, feats: Sequence[Tensor]) -> Tensor:
        """The prototypes of the windows."""
        return self.head.mask_head(feats)

    def logits(self, of_window: Tensor, code: Tensor) -> Tensor:
        """The map of an object."""
        kernels, priors = code[None].split([len(code) - 4, 4], dim=1)
        return self.head._mask_predict_by_feat_single(of_window, kernels, priors)[0]

    def axes(self, shape: Sequence[int], sample: DetDataSample) -> tuple[Axis, Axis]:
        """By the stride of the prototypes, then by the scale of the window."""
        stride = self.head.prior_generator.strides[0][0]
        scale_w, scale_h = sample.metainfo['scale_factor']
        height, width = sample.metainfo['ori_shape']
        rows, columns = (
            Axis(
                Resize(cells, 1 / stride),
                Resize(cells * stride, cells * stride / math.ceil(cells * stride * (1 / scale))),
                length,
            )
            for cells, scale, length in zip(shape, (scale_h, scale_w), (height, width))
        )
        return rows, columns


class MasksByEmbedding(MasksByCode):
    """Masks of Mask2Former: of a query's embedding, times the window's map of pixel embeddings.

    Boxes and scores are made of masks, too, in original pixels as in MMDetection.

    Args:
        detector (Mask2Former): The detector.
    """

    def __init__(self, detector: Mask2Former) -> None:
        self.head, self.fusion_head = detector.panoptic_head, detector.panoptic_fusion_head

    @contextmanager
    def left_out(self, score_thr: float) -> Iterator[None]:
        """Let the detector find objects, of one query at a time, with its embedding as code."""
        last: dict[str, Tensor] = {}  # of the decoder's layers

        def small_maps(feats: Sequence[Tensor], samples: SampleList) -> tuple[Tensor, Tensor]:
            classes, maps = self.head(feats, samples)
            return classes[-1], maps[-1]

        def instances(
            classes: Tensor, maps: Tensor, samples: SampleList, **kwargs: Any
        ) -> list[dict[str, InstanceData]]:
            windows = zip(classes, maps, last['embeddings'], samples)
            return [dict(ins_results=self._instances(*window, score_thr)) for window in windows]

        handle = self.head.mask_embed.register_forward_hook(
            lambda module, args, output: last.update(embeddings=output)
        )
        self.head.predict, self.fusion_head.predict = small_maps, instances
        try:
            yield
        finally:
            del self.head.predict, self.fusion_head.predict
            handle.remove()

    def _instances(
        self,
        classes: Tensor,
        maps: Tensor,
        embeddings: Tensor,
        sample: DetDataSample,
        score_thr: float,
    ) -> InstanceData:
        """All objects of a window; a query is one of each class of which it may be one.

        Args:
            classes (Tensor): Logits, shape (q, classes + 1).
            maps (Tensor): Shape (q, h, w).
            embeddings (Tensor): Shape (q, d).
            sample (DetDataSample): The window.
            score_thr (float): Least score; masks lower it.
        """
        scores = classes.float().softmax(dim=-1)[:, :-1]
        queries, labels = (scores >= score_thr).nonzero(as_tuple=True)
        boxes, sureness = scores.new_zeros(len(scores), 4), scores.new_zeros(len(scores))
        axes = self.axes(maps.shape[-2:], sample)
        for query in queries.unique().tolist():
            placed, sureness[query] = enlarged_mask(maps[query].float(), *axes, self.threshold)
            (x, y), (height, width) = placed.corner, placed.mask.shape
            if sureness[query] > 0:
                boxes[query] = scores.new_tensor([x, y, x + width, y + height])
        return InstanceData(
            bboxes=boxes[queries],
            scores=scores[queries, labels] * sureness[queries],
            labels=labels,
            codes=embeddings[queries],
        )

    def maps(self, feats: Sequence[Tensor]) -> Tensor:
        """The embeddings of the windows' pixels."""
        return self.head.pixel_decoder(feats)[0]

    def logits(self, of_window: Tensor, code: Tensor) -> Tensor:
        """The map of an object."""
        return torch.einsum('c,chw->hw', code.to(of_window.dtype), of_window)

    def axes(self, shape: Sequence[int], sample: DetDataSample) -> tuple[Axis, Axis]:
        """By the stride of the map, then, without padding, by the scale of the window."""
        info = sample.metainfo
        rows, columns = (
            Axis(Resize(cells, cells / padded), Resize(pixels, pixels / length), length)
            for cells, padded, pixels, length in zip(
                shape, info['batch_input_shape'], info['img_shape'], info['ori_shape']
            )
        )
        return rows, columns


def mask_prediction(detector: BaseDetector) -> MaskPrediction | None:
    """How a detector predicts masks; None if it has none."""
    roi_head = getattr(detector, 'roi_head', None)
    if getattr(roi_head, 'with_mask', False):
        return (MasksByQuery if isinstance(roi_head, SparseRoIHead) else MasksByBox)(roi_head)
    if isinstance(head := getattr(detector, 'bbox_head', None), RTMDetInsHead):
        return MasksByKernel(head)
    if isinstance(getattr(detector, 'panoptic_head', None), Mask2FormerHead):
        return MasksByEmbedding(detector)
    return None


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
            boxes = _near(boxes, *info['ori_shape'])
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


def _near(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes (n, 4), those that miss the window just beside it: stock cannot paste far ones.

    Queries (QueryInst) may find objects where there is no image.
    """
    size = boxes.new_tensor([width, height])
    starts, stops = boxes[:, :2], boxes[:, 2:]
    by = (size - starts).clamp(max=0) - stops.clamp(max=0)
    return boxes + by.repeat(1, 2)


def _picture_of(
    box: Sequence[float], height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corner (x, y) and shape (h, w) of the pixels that a box can reach, a pixel around it too."""
    x1, y1 = (min(max(math.floor(v) - 1, 0), end - 1) for v, end in zip(box[:2], (width, height)))
    x2, y2 = (max(min(math.ceil(v) + 1, end), 1) for v, end in zip(box[2:], (width, height)))
    return (x1, y1), (max(y2 - y1, 1), max(x2 - x1, 1))
