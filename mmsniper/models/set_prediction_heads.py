"""Set-prediction heads (the DETR family) taught what the level's range means."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from mmdet.models.dense_heads import (
    ConditionalDETRHead,
    DABDETRHead,
    DDQDETRHead,
    DeformableDETRHead,
    DETRHead,
    DINOHead,
    Mask2FormerHead,
)
from mmdet.models.losses import DDQAuxLoss
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmsniper.models.assigners import IgnoreInvalidAssigner, split_appended, with_appended_invalid

_NUM_VALID = 'num_valid_instances'  # in the metainfo of DDQ's samples


class SNIPERSetPredictionMixin(DETRHead):
    """Lets a head of the DETR family ignore invalid objects; use it as the first base class.

    Every decoder layer, and the encoder where it proposes, matches the valid objects as stock
    MMDetection does. The queries that are then matched with the invalid objects get a
    classification weight of 0 (:class:`~mmsniper.models.IgnoreInvalidAssigner`). Denoising is
    about the valid objects only.

    It fits heads whose classification loss is weighted by query.

    Args:
        *args, **kwargs: As for the head.

    Raises:
        TypeError: If the assigner in ``train_cfg`` is no ``IgnoreInvalidAssigner``.

    Example:
        >>> @MODELS.register_module()
        ... class MyDETRHead(SNIPERSetPredictionMixin, TheirDETRHead):
        ...     pass
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assigner = getattr(self, 'assigner', None)
        if assigner is not None and not isinstance(assigner, IgnoreInvalidAssigner):
            raise TypeError(
                f'{type(self).__name__} needs an IgnoreInvalidAssigner, got '
                f'{type(assigner).__name__}; write model.train_cfg.assigner='
                f"dict(type='IgnoreInvalidAssigner', assigner=dict("
                f"type='{type(assigner).__name__}', ...))"
            )

    def loss(self, *args: Any, batch_data_samples: SampleList, **kwargs: Any) -> dict[str, Tensor]:
        """Losses of the head; arguments as there. The samples are left as they are."""
        samples = [with_appended_invalid(sample) for sample in batch_data_samples]
        return super().loss(*args, batch_data_samples=samples, **kwargs)

    def _get_targets_single(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Targets of one input: those of the head, without the weights of ignored queries."""
        labels, weights, *others, positive, negative = super()._get_targets_single(*args, **kwargs)
        counts = torch.zeros_like(weights)
        counts[torch.cat([positive, negative])] = 1
        return labels, weights * counts, *others, positive, negative


@MODELS.register_module()
class SNIPERDETRHead(SNIPERSetPredictionMixin, DETRHead):
    """``DETRHead`` that ignores invalid objects.

    Args:
        *args, **kwargs: As for ``DETRHead``; see :class:`SNIPERSetPredictionMixin`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        heads = [cls for cls in type(self).__mro__ if issubclass(cls, DETRHead)]
        if any(c is not DETRHead and not issubclass(c, SNIPERSetPredictionMixin) for c in heads):
            super().__init__(*args, **kwargs)  # one of the user's, with arguments of its own
            return
        # Class weights are set by DETRHead itself only, not by classes that derive from it.
        stock = DETRHead(*deepcopy(args), **deepcopy(kwargs))
        loss = dict(type='CrossEntropyLoss', use_sigmoid=stock.loss_cls.use_sigmoid)
        super().__init__(*args, **{**kwargs, 'loss_cls': loss})
        self.loss_cls, self.bg_cls_weight = stock.loss_cls, stock.bg_cls_weight


@MODELS.register_module()
class SNIPERConditionalDETRHead(SNIPERSetPredictionMixin, ConditionalDETRHead):
    """``ConditionalDETRHead`` that ignores invalid objects.

    Args:
        *args, **kwargs: As for ``ConditionalDETRHead``; see :class:`SNIPERSetPredictionMixin`.
    """


@MODELS.register_module()
class SNIPERDABDETRHead(SNIPERSetPredictionMixin, DABDETRHead):
    """``DABDETRHead`` that ignores invalid objects.

    Args:
        *args, **kwargs: As for ``DABDETRHead``; see :class:`SNIPERSetPredictionMixin`.
    """


@MODELS.register_module()
class SNIPERDeformableDETRHead(SNIPERSetPredictionMixin, DeformableDETRHead):
    """``DeformableDETRHead``, with or without two stages, that ignores invalid objects.

    Args:
        *args, **kwargs: As for ``DeformableDETRHead``; see :class:`SNIPERSetPredictionMixin`.
    """


@MODELS.register_module()
class SNIPERDINOHead(SNIPERSetPredictionMixin, DINOHead):
    """``DINOHead`` that ignores invalid objects, and denoises the valid ones.

    Args:
        *args, **kwargs: As for ``DINOHead``; see :class:`SNIPERSetPredictionMixin`.
    """

    def _get_dn_targets_single(
        self, gt_instances: InstanceData, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, ...]:
        """Denoising targets of one input: the queries were made from its valid objects."""
        valid, _ = split_appended(gt_instances)
        return super()._get_dn_targets_single(valid, *args, **kwargs)


@MODELS.register_module()
class SNIPERDDQDETRHead(SNIPERDINOHead, DDQDETRHead):
    """``DDQDETRHead`` that ignores invalid objects, with its distinct and its dense queries.

    Distinct queries learn as those of :class:`SNIPERDINOHead`. Of the dense ones those are ignored
    that are matched with the invalid objects, among those that the valid ones left over.

    Args:
        *args, **kwargs: As for ``DDQDETRHead``; see :class:`SNIPERSetPredictionMixin`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.aux_loss_for_dense.train_cfg
        self.aux_loss_for_dense: DDQAuxLoss = _DenseLoss(train_cfg=config)

    def loss(self, *args: Any, batch_data_samples: SampleList, **kwargs: Any) -> dict[str, Tensor]:
        """Losses of the head; arguments as there. The samples are left as they are."""
        samples = [with_appended_invalid(sample) for sample in batch_data_samples]
        for sample in samples:  # the dense loss is given boxes, labels and metainfo
            sample.set_metainfo({_NUM_VALID: sample.gt_instances.num_valid})
        return super().loss(*args, batch_data_samples=samples, **kwargs)


class _DenseLoss(DDQAuxLoss):
    """``DDQAuxLoss`` that ignores the dense queries which the invalid objects would have.

    Valid objects are matched as if they were alone, each with several queries. The invalid objects
    are then matched in the same way with those left over, which get a classification weight of 0.
    """

    def _get_target_single(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        img_meta: Mapping[str, Any],
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        """Targets of one input: those of its valid objects, without the weights of ignored queries.

        Args:
            cls_scores (Tensor): Scores of the n dense queries, (n, C), in [0, 1].
            bbox_preds (Tensor): Their boxes, (n, 4), xyxy, chip pixels.
            gt_bboxes (Tensor): Objects, (k, 4), the valid ones first.
            gt_labels (Tensor): Their classes, (k,).
            img_meta (dict): With the number of valid objects.
            **kwargs: As for ``DDQAuxLoss``.

        Returns:
            tuple[Tensor, ...]: Labels, label weights, boxes and alignment, of each query.
        """
        valid = img_meta[_NUM_VALID]
        labels, weights, *others = super()._get_target_single(
            cls_scores, bbox_preds, gt_bboxes[:valid], gt_labels[:valid], img_meta, **kwargs
        )
        left = labels == cls_scores.size(-1)
        if valid < len(gt_labels) < valid + left.sum():
            found = self.assigner.assign(
                cls_scores[left], bbox_preds[left], gt_bboxes[valid:], gt_labels[valid:], img_meta
            )
            weights[left] *= found.gt_inds == 0
        elif valid < len(gt_labels):  # fewer queries are left than there are invalid objects
            weights[left] = 0
        return labels, weights, *others


@MODELS.register_module()
class SNIPERMask2FormerHead(Mask2FormerHead):
    """``Mask2FormerHead`` for instance segmentation that ignores invalid objects.

    Every decoder layer matches the valid objects as stock MMDetection does, by classes and by masks
    at random points. Of the queries left over, those that are then matched with the invalid objects
    have no weight in its classification loss. They still count in what that is divided by, as
    background. Masks are learned from the queries of valid objects.

    Args:
        *args, **kwargs: As for ``Mask2FormerHead``.

    Raises:
        ValueError: If there are classes of stuff, of which no object is out of range, or
            ``loss_cls`` has weights of another number of classes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.num_stuff_classes:
            raise ValueError(
                f'SNIPERMask2FormerHead is for instances, num_stuff_classes must be 0, got '
                f'{self.num_stuff_classes}: regions without boxes have no size to judge by'
            )
        classes, weights = self.num_things_classes, self.class_weight
        if weights is not None and len(weights) != classes + 1:
            raise ValueError(
                f'panoptic_head.loss_cls.class_weight has {len(weights)} numbers, but it is one '
                f'for each of {classes} classes and one for no object: class_weight=[1.0] * '
                f'{classes} + [0.1]'
            )

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the head; arguments as there. The samples are left as they are."""
        return super().loss(x, [with_appended_invalid(sample) for sample in batch_data_samples])

    def preprocess_gt(self, batch_gt_instances: InstanceList, *args: Any) -> InstanceList:
        """Labels and masks (n, h, w) of each input, which still tell how many are valid."""
        prepared = super().preprocess_gt(batch_gt_instances, *args)
        for objects, given in zip(prepared, batch_gt_instances):
            objects.set_field(given.num_valid, 'num_valid', field_type='metainfo')
        return prepared

    def _get_targets_single(
        self, cls_score: Tensor, mask_pred: Tensor, gt_instances: InstanceData, img_meta: dict
    ) -> tuple[Any, ...]:
        """Targets of one input: those of the head, without the weights of ignored queries."""
        valid, invalid = split_appended(gt_instances)
        targets = super()._get_targets_single(cls_score, mask_pred, valid, img_meta)
        weights, left_over = targets[1], targets[5]
        if invalid is not None and len(invalid) and len(left_over):
            with torch.no_grad():
                of_invalid = super()._get_targets_single(
                    cls_score[left_over], mask_pred[left_over], invalid, img_meta
                )
            weights[left_over[of_invalid[4]]] = 0
        return targets
