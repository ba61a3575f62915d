"""Dense heads taught what the level's range means, where an assigner is not enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmdet.models.dense_heads import (
    AnchorFreeHead,
    CenterNetUpdateHead,
    FCOSHead,
    FoveaHead,
    FreeAnchorRetinaHead,
    NASFCOSHead,
    PAAHead,
    RPNHead,
    RTMDetInsHead,
    RTMDetInsSepBNHead,
    VFNetHead,
    YOLOXHead,
)
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.assigners import (
    of_a_class_among,
    split_appended,
    split_ignored,
    with_appended_invalid,
)
from mmsniper.models.joined_classes import JoinedWithHead
from mmsniper.models.level_range import LevelRange, batch_limits, in_limits, uploaded
from mmsniper.utils.box_types import box_areas


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
        keep = in_limits(box_areas(boxes), limits).split([d.shape[1] for d in deltas], dim=1)
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


def _without_invalid(own: Any, of_invalid: Any, background: int) -> Any:
    """Labels of points, or of each map's points, with -1 where only invalid objects have one."""
    if isinstance(own, list):
        return [_without_invalid(*labels, background) for labels in zip(own, of_invalid)]
    return own.masked_fill((own == background) & (of_invalid != background), -1)


class _AppendsInvalid(BaseDenseHead):
    """Hands a head the invalid objects behind the valid ones; use it as the first base class."""

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the head; arguments as there. The samples are left as they are."""
        return super().loss(x, [with_appended_invalid(sample) for sample in batch_data_samples])

    def loss_and_predict(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Tensor], InstanceList]:
        """Losses and predictions, in place of an RPN; arguments as for the head."""
        samples = [with_appended_invalid(sample) for sample in batch_data_samples]
        return super().loss_and_predict(x, samples, *args, **kwargs)


class SNIPERPointsMixin(_AppendsInvalid, AnchorFreeHead):
    """Lets a head that labels points without an assigner ignore those of invalid objects.

    Use it as the first base class. A point that would have an invalid object if the valid ones were
    not there, and has no valid one, is neither foreground nor background. All else learns from
    foreground points only.

    It fits heads whose ``_get_targets_single`` gives labels first, and whose ``loss_cls`` is called
    with scores and labels.

    Args:
        *args, **kwargs: As for the head.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hook = partial(_weigh_ignored_labels, background=self.num_classes)
        self.loss_cls.register_forward_pre_hook(hook, with_kwargs=True)

    def _get_targets_single(
        self, gt_instances: InstanceData, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Targets of one input, with a label of -1 for ignored points.

        ``gt_instances`` have invalid objects behind the valid ones.
        """
        valid, invalid = split_appended(gt_instances)
        labels, *others = super()._get_targets_single(valid, *args, **kwargs)
        if invalid is not None and len(invalid):
            # Of a class that an RPN has, too.
            objects = InstanceData(bboxes=invalid.bboxes, labels=torch.zeros_like(invalid.labels))
            of_invalid, *_ = super()._get_targets_single(objects, *args, **kwargs)
            labels = _without_invalid(labels, of_invalid, self.num_classes)
        return labels, *others


@MODELS.register_module()
class SNIPERPointsHead(JoinedWithHead, SNIPERPointsMixin):
    """Any head that labels points without an assigner, see :class:`SNIPERPointsMixin`.

    It *is* the head that ``head`` names, such as MMRotate's ``RotatedFCOSHead``: an instance of its
    class, with its parts and the keys of its weights.

    Args:
        head (str | type): Type of the head, a subclass of ``AnchorFreeHead``.
        **kwargs: As for the head.

    Raises:
        ValueError: If the head is not registered, or labels no points.

    Example:
        >>> bbox_head = dict(type='SNIPERPointsHead', head='mmrotate.RotatedFCOSHead', ...)
    """

    @staticmethod
    def head_class(head: str | type | None) -> type:
        """The class of a head that labels points."""
        kind = MODELS.get(head) if isinstance(head, str) else head
        if kind is None or not issubclass(kind, AnchorFreeHead):
            raise ValueError(
                f'SNIPERPointsHead needs head=..., a registered AnchorFreeHead, got {head!r}'
            )
        return kind


@MODELS.register_module()
class SNIPERFCOSHead(SNIPERPointsMixin, FCOSHead):
    """``FCOSHead`` that ignores the points of invalid objects, see :class:`SNIPERPointsMixin`.

    Args:
        *args, **kwargs: As for ``FCOSHead``.
    """


@MODELS.register_module()
class SNIPERNASFCOSHead(SNIPERPointsMixin, NASFCOSHead):
    """``NASFCOSHead`` that ignores the points of invalid objects.

    Args:
        *args, **kwargs: As for ``NASFCOSHead``; see :class:`SNIPERPointsMixin`.
    """


@MODELS.register_module()
class SNIPERFoveaHead(SNIPERPointsMixin, FoveaHead):
    """``FoveaHead`` (FoveaBox) that ignores the points of invalid objects.

    Args:
        *args, **kwargs: As for ``FoveaHead``; see :class:`SNIPERPointsMixin`.
    """


@MODELS.register_module()
class SNIPERYOLOXHead(YOLOXHead):
    """``YOLOXHead`` whose objectness ignores the predictions of invalid objects.

    A prediction that SimOTA would give to an invalid object if the valid ones were not there, and
    that no valid object has, has no objectness loss. Classes and boxes are learned from the
    predictions of valid objects only, and their number is what all losses are divided by, as
    in ``YOLOXHead``.

    Args:
        *args, **kwargs: As for ``YOLOXHead``. ``loss_obj`` must be a ``CrossEntropyLoss`` with
            ``use_sigmoid=True``, as it is by default: it leaves targets below 0 out.

    Raises:
        ValueError: If ``loss_obj`` is another loss.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not (isinstance(self.loss_obj, CrossEntropyLoss) and self.loss_obj.use_sigmoid):
            raise ValueError(
                f'SNIPERYOLOXHead needs loss_obj=dict(type="CrossEntropyLoss", use_sigmoid=True), '
                f'which leaves targets of -1 out, got a {type(self.loss_obj).__name__}'
            )

    def _get_targets_single(
        self,
        priors: Tensor,
        cls_preds: Tensor,
        decoded_bboxes: Tensor,
        objectness: Tensor,
        gt_instances: InstanceData,
        img_meta: dict[str, Any],
        gt_instances_ignore: InstanceData | None = None,
    ) -> tuple[Any, ...]:
        """Targets of one input, with an objectness of -1 for ignored predictions."""
        of_head, predicted = super()._get_targets_single, (priors, cls_preds, decoded_bboxes)
        regions, invalid = split_ignored(gt_instances_ignore)
        targets = of_head(*predicted, objectness, gt_instances, img_meta, regions)
        if invalid is not None and len(invalid):
            foreground, _, objectness_target, *_ = targets
            invalid = of_a_class_among(self.num_classes, invalid)
            of_invalid, *_ = of_head(*predicted, objectness, invalid, img_meta)
            objectness_target[of_invalid & ~foreground] = -1
        return targets


class SNIPERRTMDetInsMixin(RTMDetInsHead):
    """Lets the assigner of RTMDet-Ins know the masks of invalid objects; use it as the first base.

    It goes by the centres of masks. What it ignores, being an ``IgnoreInvalidAssigner``, the head
    leaves out of its classification loss; boxes and masks are learned from valid objects only.
    Arguments are the head's.
    """

    def get_targets(
        self, *args: Any, batch_gt_instances_ignore: OptInstanceList = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Targets of all cells, arguments as for the head. The ignored instances are left alone."""
        ignored = [
            of_input if of_input is None or 'masks' not in of_input else _with_mask_tensor(of_input)
            for of_input in batch_gt_instances_ignore or [None] * len(args[0])
        ]
        return super().get_targets(*args, batch_gt_instances_ignore=ignored, **kwargs)


def _with_mask_tensor(objects: InstanceData) -> InstanceData:
    masks = objects.masks.to_tensor(torch.bool, objects.bboxes.device)
    return objects.new(**{**dict(objects.items()), 'masks': masks})


@MODELS.register_module()
class SNIPERRTMDetInsHead(SNIPERRTMDetInsMixin):
    """``RTMDetInsHead`` that ignores the cells of invalid objects.

    Arguments are those of ``RTMDetInsHead``; see :class:`SNIPERRTMDetInsMixin`.
    """


@MODELS.register_module()
class SNIPERRTMDetInsSepBNHead(SNIPERRTMDetInsMixin, RTMDetInsSepBNHead):
    """``RTMDetInsSepBNHead`` (RTMDet-Ins) that ignores the cells of invalid objects.

    Arguments are those of ``RTMDetInsSepBNHead``; see :class:`SNIPERRTMDetInsMixin`.
    """


@MODELS.register_module()
class SNIPERVFNetHead(VFNetHead):
    """``VFNetHead`` whose classification loss has the weights that its assigner's results have.

    Stock MMDetection computes these weights and uses them in another loss only, so that an ignored
    anchor is background. The assigner has to be an ``IgnoreInvalidAssigner``.

    Args:
        *args, **kwargs: As for ``VFNetHead``, with ``use_atss`` and ``use_vfl``, the defaults.

    Raises:
        ValueError: If one of the two is False.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not (self.use_atss and self.use_vfl):
            raise ValueError(
                'SNIPERVFNetHead needs use_atss=True and use_vfl=True, the defaults of VFNetHead'
            )
        self._label_weights: Tensor | None = None
        self.loss_cls.register_forward_pre_hook(self._weigh, with_kwargs=True)

    def get_targets(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Targets of all points; their weights are kept for the loss."""
        targets = super().get_targets(*args, **kwargs)
        self._label_weights = targets[1]
        return targets

    def _get_targets_single(
        self, flat_anchors: Tensor, valid_flags: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Targets of one input. Anchors in the padding are background, as in ``VFNetHead``."""
        anchors, labels, weights, *others = super()._get_targets_single(
            flat_anchors, valid_flags, *args, **kwargs
        )
        return anchors, labels, weights.masked_fill(~valid_flags, 1), *others

    def _weigh(
        self, _: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Forward pre-hook of the classification loss."""
        weights, self._label_weights = self._label_weights, None
        return args, {**kwargs, 'weight': None if weights is None else weights[:, None]}


@MODELS.register_module()
class SNIPERPAAHead(PAAHead):
    """``PAAHead`` that ignores the anchors of invalid objects.

    PAA's assigner finds candidates, of which a mixture of two Gaussians chooses by their losses. An
    anchor that it would choose for an invalid object if the valid ones were not there, and that it
    does not choose for a valid one, is neither positive nor negative. Inputs with invalid objects
    are fitted twice.

    Args:
        *args, **kwargs: As for ``PAAHead``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._of_invalid: Iterator[Tensor] = iter(())
        self._labels: list[Tensor] = []

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        iou_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """Losses of ``PAAHead``; arguments as there."""
        of_head, outputs = super().loss_by_feat, (cls_scores, bbox_preds, iou_preds)
        ignored = batch_gt_instances_ignore or [None] * len(batch_img_metas)
        regions, invalid = map(list, zip(*map(split_ignored, ignored)))
        self._of_invalid, self._labels = iter(()), []
        if any(objects is not None and len(objects) for objects in invalid):
            objects = [
                valid[:0] if found is None else of_a_class_among(self.num_classes, found)
                for valid, found in zip(batch_gt_instances, invalid)
            ]
            with torch.no_grad():
                of_head(*outputs, objects, batch_img_metas)
            self._of_invalid = iter(self._labels)
        known = regions if any(r is not None for r in regions) else None
        return of_head(*outputs, batch_gt_instances, batch_img_metas, known)

    def paa_reassign(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Labels and weights of one input, as ``PAAHead`` chooses, without those of the ignored."""
        labels, weights, *others = super().paa_reassign(*args, **kwargs)
        of_invalid = next(self._of_invalid, None)
        if of_invalid is None:
            self._labels.append(labels)
        else:
            ignored = (labels == self.num_classes) & (of_invalid != self.num_classes)
            weights = weights.masked_fill(ignored, 0)
        return labels, weights, *others


@MODELS.register_module()
class SNIPERFreeAnchorRetinaHead(_AppendsInvalid, FreeAnchorRetinaHead):
    """``FreeAnchorRetinaHead`` that ignores the anchors of invalid objects.

    An anchor is an object's if it is in the object's bag, or if the box that it predicts overlaps
    the object by more than ``bbox_thr``. One that is an invalid object's and no valid object's has
    no part in the negative bag loss.

    Its arguments are those of ``FreeAnchorRetinaHead``.
    """

    def positive_loss_single(
        self, cls_prob: Tensor, bbox_pred: Tensor, flat_anchors: Tensor, gt_instances: InstanceData
    ) -> tuple[Tensor, Tensor, int]:
        """Box probabilities (anchors, classes), losses and number of the valid objects.

        The probability of what is ignored is 1, by which the negative loss is 0.
        """
        of_head, predicted = super().positive_loss_single, (cls_prob, bbox_pred, flat_anchors)
        valid, invalid = split_appended(gt_instances)
        probabilities, *others = of_head(*predicted, valid)
        if invalid is not None and len(invalid):
            invalid = of_a_class_among(self.num_classes, invalid)
            with torch.no_grad():
                of_invalid, *_ = of_head(*predicted, invalid)
            ignored = (of_invalid > 0).any(dim=1) | self._in_bags(invalid, flat_anchors)
            ignored &= ~((probabilities > 0).any(dim=1) | self._in_bags(valid, flat_anchors))
            probabilities = probabilities.masked_fill(ignored[:, None], 1)
        return probabilities, *others

    def _in_bags(self, objects: InstanceData, anchors: Tensor) -> Tensor:
        """Which anchors are in an object's bag."""
        overlaps = bbox_overlaps(objects.bboxes, anchors)
        in_bags = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        in_bags[overlaps.topk(self.pre_anchor_topk, dim=1).indices.flatten()] = True
        return in_bags


@MODELS.register_module()
class SNIPERCenterNetUpdateHead(_AppendsInvalid, CenterNetUpdateHead):
    """``CenterNetUpdateHead`` that ignores the points of invalid objects.

    A point on the heat map of an invalid object, whatever its class, and on that of no valid one is
    neither foreground nor background. All else is about valid objects. An input without any is
    background; stock MMDetection multiplies its loss by the fourth power of the number of classes.

    Its arguments are those of ``CenterNetUpdateHead``.
    """

    def _get_targets_single(
        self, gt_instances: InstanceData, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Heat maps (points, classes) and boxes of one input.

        The heat of what is ignored is 1, by which the loss of the background is 0.
        """
        valid, invalid = split_appended(gt_instances)
        heat, boxes = super()._get_targets_single(valid, *args, **kwargs)
        if not len(valid):
            heat = boxes.new_zeros(heat.shape)
        if invalid is not None and len(invalid):
            invalid = of_a_class_among(self.num_classes, invalid)
            of_invalid, _ = super()._get_targets_single(invalid, *args, **kwargs)
            ignored = (of_invalid > 0).any(dim=1) & (heat == 0).all(dim=1)
            heat = heat.masked_fill(ignored[:, None], 1)
        return heat, boxes

    def add_cls_pos_inds(
        self,
        flatten_points: Tensor,
        flatten_bbox_preds: Tensor,
        featmap_sizes: Tensor,
        batch_gt_instances: InstanceList,
    ) -> tuple[Tensor, Tensor]:
        """Positive points of valid objects; arguments as for ``CenterNetUpdateHead``."""
        valid = [split_appended(objects)[0] for objects in batch_gt_instances]
        found = super().add_cls_pos_inds(flatten_points, flatten_bbox_preds, featmap_sizes, valid)
        # Of None the loss takes a heat of 1 for positive.
        none = torch.zeros(0, dtype=torch.long, device=flatten_points.device)
        return (none, none) if found[0] is None else found
