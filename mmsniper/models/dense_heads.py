"""Dense heads taught what the level's range means, where an assigner is not enough."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmdet.models.dense_heads import DeformableDETRHead, DETRHead, DINOHead, FCOSHead, RPNHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.assigners import IgnoreInvalidAssigner, split_appended, with_appended_invalid
from mmsniper.models.level_range import LevelRange, batch_limits, in_limits, uploaded


@MODELS.register_module()
class SNIPERRPNHead(RPNHead):
    """``RPNHead`` that, in training, proposes only what has the level's sizes.

    The R-CNN learns from nothing else (:class:`~mmsniper.models.roi_heads.InRangeSampler`). Others
    are left out before the best are chosen and before NMS, as in the authors' release, so that it
    gets as many as ``train_cfg.rpn_proposal`` asks for. Testing is ``RPNHead``'s.

    With ``adopt_orphans`` in the pyramid nothing is left out: an object that is valid although it
    is out of range has proposals of its size.

    An option, ``sniper = dict(range_first=True)``: of three data sets two were better without
    (docs/benchmarks.md).

    Args:
        *args: As for ``RPNHead``.
        pyramid (ScalePyramid | dict): The config's pyramid.
        **kwargs: As for ``RPNHead``.

    Raises:
        ValueError: If the head scores by softmax.
    """

    def __init__(
        self, *args: Any, pyramid: ScalePyramid | Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if not self.use_sigmoid_cls:
            raise ValueError('SNIPERRPNHead scores by a sigmoid: loss_cls=dict(use_sigmoid=True)')
        self.pyramid = ScalePyramid.from_config(pyramid)
        self._last_priors: tuple[Any, Tensor] = (None, torch.empty(0))

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        batch_img_metas: list[dict[str, Any]] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> InstanceList:
        """Proposals of each input, of the level's sizes first if training; as ``RPNHead``."""
        if self.training and batch_img_metas is not None and not self.pyramid.adopt_orphans:
            cls_scores = self._scores_in_range(cls_scores, bbox_preds, batch_img_metas)
        return super().predict_by_feat(
            cls_scores, bbox_preds, score_factors, batch_img_metas, *args, **kwargs
        )

    @torch.no_grad()
    def _scores_in_range(
        self, scores: list[Tensor], deltas: list[Tensor], infos: list[dict[str, Any]]
    ) -> list[Tensor]:
        """Logits (N, A, H, W) of each map, without hope for boxes of other sizes.

        All inputs and maps at once: one by one they take longer than the network.
        """
        device, count = scores[0].device, len(infos)
        level_ranges = [LevelRange.of_input(info, self.pyramid) for info in infos]
        limits = batch_limits(level_ranges, device)[:, None].unbind(dim=-1)
        deltas = [
            d.permute(0, 2, 3, 1).reshape(count, -1, d.shape[1] // s.shape[1])
            for d, s in zip(deltas, scores)
        ]
        priors = self._priors([s.shape[-2:] for s in scores], scores[0].dtype, device)
        decoded = self.bbox_coder.decode(
            priors.repeat(count, 1), torch.cat(deltas, dim=1).flatten(end_dim=1)
        )
        boxes = get_box_tensor(decoded).view(count, -1, 4)
        if getattr(self.bbox_coder, 'clip_border', True):
            sides = [info['img_shape'][1::-1] * 2 for info in infos]
            boxes = boxes.clamp(min=0).minimum(uploaded(sides, device)[:, None].to(boxes.dtype))
        keep = in_limits(boxes, limits).split([d.shape[1] for d in deltas], dim=1)
        return [
            s.masked_fill(~k.view(count, *s.shape[2:], -1).permute(0, 3, 1, 2), -torch.inf)
            for s, k in zip(scores, keep)
        ]

    def _priors(self, sizes: list[torch.Size], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The anchors (n, 4) of all maps, those of the last batch if it was as large."""
        key = (sizes, dtype, device)
        if self._last_priors[0] != key:
            maps = self.prior_generator.grid_priors(sizes, dtype=dtype, device=device)
            self._last_priors = (key, torch.cat([get_box_tensor(priors) for priors in maps]))
        return self._last_priors[1]


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


class SNIPERSetPredictionMixin(DETRHead):
    """Lets a head of the DETR family ignore invalid objects; use it as the first base class.

    Every decoder layer, and the encoder where it proposes, matches the valid objects as stock
    MMDetection does. The queries that are then matched with the invalid objects get a
    classification weight of 0 (:class:`~mmsniper.models.IgnoreInvalidAssigner`). Denoising is
    about the valid objects only.

    It fits heads with a sigmoid classification loss.

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
