"""Dense heads taught what the level's range means, where an assigner is not enough."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmdet.models.dense_heads import DeformableDETRHead, DINOHead, FCOSHead, RPNHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.assigners import IgnoreInvalidAssigner, split_appended, with_appended_invalid
from mmsniper.models.level_range import LevelRange


@MODELS.register_module()
class SNIPERRPNHead(RPNHead):
    """``RPNHead`` that, in training, proposes only what has the level's sizes.

    The R-CNN learns from nothing else (:class:`~mmsniper.models.roi_heads.InRangeSampler`). Others
    are left out before the best are chosen and before NMS, as in the authors' release, so that it
    gets as many as ``train_cfg.rpn_proposal`` asks for. Testing is ``RPNHead``'s.

    With ``adopt_orphans`` in the pyramid nothing is left out: an object that is valid although it
    is out of range has proposals of its size.

    Args:
        *args: As for ``RPNHead``.
        pyramid (ScalePyramid | dict): The config's pyramid.
        range_first (bool): False proposes as ``RPNHead`` does, to see what the rule is worth.
            Defaults to True.
        **kwargs: As for ``RPNHead``.

    Raises:
        ValueError: If the head scores by softmax.
    """

    def __init__(
        self,
        *args: Any,
        pyramid: ScalePyramid | Mapping[str, Any],
        range_first: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not self.use_sigmoid_cls:
            raise ValueError('SNIPERRPNHead scores by a sigmoid: loss_cls=dict(use_sigmoid=True)')
        self.pyramid = ScalePyramid.from_config(pyramid)
        self.range_first = range_first and not self.pyramid.adopt_orphans

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        img_meta: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> InstanceData:
        """Proposals of one input, of the level's sizes first if training; as ``RPNHead``."""
        if self.training and self.range_first:
            level_range = LevelRange.of_input(img_meta, self.pyramid)
            shape = img_meta['img_shape']
            cls_score_list = [
                self._scores_in_range(level_range, shape, *maps)
                for maps in zip(cls_score_list, bbox_pred_list, mlvl_priors)
            ]
        return super()._predict_by_feat_single(
            cls_score_list,
            bbox_pred_list,
            score_factor_list,
            mlvl_priors,
            img_meta,
            *args,
            **kwargs,
        )

    def _scores_in_range(
        self,
        level_range: LevelRange,
        shape: tuple[int, int],
        scores: Tensor,
        deltas: Tensor,
        priors: Tensor,
    ) -> Tensor:
        """Logits (A, H, W), without hope for boxes of other sizes."""
        deltas = deltas.permute(1, 2, 0).reshape(-1, self.bbox_coder.encode_size)
        keep = level_range.contains(self.bbox_coder.decode(priors, deltas, max_shape=shape))
        rows_first = keep.view(*scores.shape[1:], scores.shape[0])
        return scores.masked_fill(~rows_first.permute(2, 0, 1), -torch.inf)


def _weigh_ignored_labels(
    _: nn.Module, args: tuple, kwargs: dict[str, Any], background: int
) -> tuple[tuple, dict[str, Any]]:
    """Forward pre-hook of a classification loss: labels below 0 get the weight 0."""
    pred, labels = args
    ignored = labels < 0
    kwargs = {**kwargs, 'weight': (~ignored).to(pred.dtype)}
    # Losses look the label up, even for a weight of 0.
    return (pred, labels.masked_fill(ignored, background)), kwargs


@MODELS.register_module()
class SNIPERFCOSHead(FCOSHead):
    """``FCOSHead`` that ignores the points of invalid objects.

    FCOS has no assigner: a point belongs to the smallest object around it whose size suits the
    point's level. A point that would belong to an invalid object, and belongs to no valid one, is
    neither foreground nor background. Regression and centerness learn from foreground points only.

    Args:
        *args, **kwargs: As for ``FCOSHead``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hook = partial(_weigh_ignored_labels, background=self.num_classes)
        self.loss_cls.register_forward_pre_hook(hook, with_kwargs=True)

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of ``FCOSHead``; arguments as there. The samples are left as they are."""
        return super().loss(x, [with_appended_invalid(sample) for sample in batch_data_samples])

    def loss_and_predict(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Tensor], InstanceList]:
        """Losses and predictions, for FCOS in place of an RPN; arguments as for ``FCOSHead``."""
        samples = [with_appended_invalid(sample) for sample in batch_data_samples]
        return super().loss_and_predict(x, samples, *args, **kwargs)

    def get_targets(
        self, points: list[Tensor], batch_gt_instances: InstanceList
    ) -> tuple[list[Tensor], ...]:
        """Targets of the points, as of ``FCOSHead``, with a label of -1 for ignored points.

        ``batch_gt_instances`` have invalid objects behind the valid ones.
        """
        valid, invalid = zip(*(split_appended(objects) for objects in batch_gt_instances))
        labels, *others = super().get_targets(points, list(valid))
        if any(objects is not None and len(objects) for objects in invalid):
            of_invalid, *_ = super().get_targets(
                points, [_as_class_0(v, i) for v, i in zip(valid, invalid)]
            )
            labels = [
                own.masked_fill((own == self.num_classes) & (other != self.num_classes), -1)
                for own, other in zip(labels, of_invalid)
            ]
        return labels, *others


def _as_class_0(valid: InstanceData, invalid: InstanceData | None) -> InstanceData:
    """The invalid objects, all of a class that an RPN has, too."""
    objects = valid[:0] if invalid is None else invalid
    return InstanceData(bboxes=objects.bboxes, labels=torch.zeros_like(objects.labels))


class SNIPERSetPredictionMixin:
    """Lets a head of the DETR family ignore invalid objects; use it as the first base class.

    Every decoder layer, and the encoder where it proposes, matches the valid objects as stock
    MMDetection does. The queries that are then matched with the invalid objects get a
    classification weight of 0 (:class:`~mmsniper.models.IgnoreInvalidAssigner`). Denoising is
    about the valid objects only.

    It fits heads with ``DETRHead._get_targets_single`` and a sigmoid classification loss.

    Args:
        *args, **kwargs: As for the head.

    Raises:
        TypeError: If the assigner in ``train_cfg`` is no ``IgnoreInvalidAssigner``.

    Example:
        >>> @MODELS.register_module()
        ... class SNIPERDABDETRHead(SNIPERSetPredictionMixin, DABDETRHead):
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
