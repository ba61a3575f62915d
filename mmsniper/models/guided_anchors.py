"""Guided Anchoring taught what the level's range means, and to see several windows at once."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import GARetinaHead, GARPNHead, GuidedAnchorHead
from mmdet.registry import MODELS
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmsniper.models.assigners import split_ignored


class SNIPERGuidedAnchorMixin(GuidedAnchorHead):
    """Lets a head with guided anchors ignore invalid objects; use it as the first base class.

    - Where anchors are: a location at which an invalid object would have an anchor, or that would
      be ignored for it, and that is background to the valid ones, has no location loss.
    - What they are: by their assigner, which should be a
      :class:`~mmsniper.models.ValidRangeAssigner`.
    - Which shape they have is learned from valid objects.

    In testing all locations are computed, and then those that the head takes for empty are left
    out. Stock MMDetection does not compute what is empty in the first input of a batch, and only on
    GPUs.

    Args:
        *args, **kwargs: As for the head.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._invalid: list[InstanceData | None] = []

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs for one map, as the head's in training: at all locations."""
        was_training, self.training = self.training, True
        try:
            return super().forward_single(x)
        finally:
            self.training = was_training

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        shape_preds: list[Tensor],
        loc_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Any]:
        """Losses of the head; arguments as there."""
        outputs = cls_scores, bbox_preds, shape_preds, loc_preds
        self._invalid = [split_ignored(of)[1] for of in batch_gt_instances_ignore or ()]
        try:
            return super().loss_by_feat(
                *outputs, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
            )
        finally:
            self._invalid = []

    def ga_loc_targets(
        self, batch_gt_instances: InstanceList, featmap_sizes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor], float]:
        """Targets and weights of locations, as of the head, with weights of 0 where ignored."""
        targets, weights, factor = super().ga_loc_targets(batch_gt_instances, featmap_sizes)
        if any(objects is not None and len(objects) for objects in self._invalid):
            objects = [v[:0] if i is None else i for v, i in zip(batch_gt_instances, self._invalid)]
            _, of_invalid, _ = super().ga_loc_targets(objects, featmap_sizes)
            weights = [
                own.masked_fill(_is_background(own) & ~_is_background(other), 0)
                for own, other in zip(weights, of_invalid)
            ]
        return targets, weights, factor

    def _predict_by_feat_single(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        mlvl_anchors: list[Tensor],
        mlvl_masks: list[Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> InstanceData:
        """Detections, or proposals, of one input; none where stock stops at an empty input."""
        if not any(mask.any() for mask in mlvl_masks):
            scores = cls_scores[0].new_zeros(0)
            return InstanceData(
                bboxes=scores.new_zeros(0, 4), scores=scores, labels=scores.to(torch.long)
            )
        return super()._predict_by_feat_single(
            cls_scores, bbox_preds, mlvl_anchors, mlvl_masks, *args, **kwargs
        )


def _is_background(weights: Tensor) -> Tensor:
    """Weights of locations are 1 for an object, 0 for what is ignored, and small for background."""
    return (weights > 0) & (weights < 1)


@MODELS.register_module()
class SNIPERGARetinaHead(SNIPERGuidedAnchorMixin, GARetinaHead):
    """``GARetinaHead`` that ignores invalid objects.

    Args:
        *args, **kwargs: As for ``GARetinaHead``; see :class:`SNIPERGuidedAnchorMixin`.
    """


@MODELS.register_module()
class SNIPERGARPNHead(SNIPERGuidedAnchorMixin, GARPNHead):
    """``GARPNHead`` that ignores invalid objects.

    Args:
        *args, **kwargs: As for ``GARPNHead``; see :class:`SNIPERGuidedAnchorMixin`.
    """
