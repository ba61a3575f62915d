"""RoI heads that learn, at each pyramid level, from the proposals whose size suits it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmdet.models.roi_heads import BaseRoIHead, MultiInstanceRoIHead, SparseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.assigners import AssignResult, BboxOverlaps2D
from mmdet.models.task_modules.samplers import PseudoSampler, SamplingResult
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.utils import InstanceList, reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.assigners import IgnoreInvalidAssigner, with_appended_invalid
from mmsniper.models.joined_classes import JoinedWithHead
from mmsniper.models.level_range import LevelRange, out_of_range
from mmsniper.utils.box_types import enclosing, is_rotated

# R-CNN's foreground threshold: a proposal this close to an adopted object is one of its own.
_FOREGROUND_IOU = 0.5


def with_invalid_objects(sample: DetDataSample, level_range: LevelRange) -> DetDataSample:
    """The sample as R-CNN sees it: invalid objects take part in assignment (SNIPER section 3).

    Args:
        sample (DetDataSample): As for :func:`~mmsniper.models.assigners.with_appended_invalid`.
        level_range (LevelRange): Sizes that count in this input.

    Returns:
        DetDataSample: As made there, with ``level_range`` in the metainfo of its ``gt_instances``.

    Raises:
        ValueError: If invalid objects lack a field that the valid ones have, such as masks.
    """
    sample = with_appended_invalid(sample)
    sample.gt_instances.set_field(level_range, 'level_range', field_type='metainfo')
    return sample


class _InRangeAssignResult(AssignResult):
    """An assignment to which only those ground truth boxes are added that are in range.

    It has its fields in common with the one that it is made of, so that a head that looks at that
    afterwards (Dynamic R-CNN) sees what a sampler has added.
    """

    def __init__(self, of: AssignResult, gt_outside: Tensor) -> None:
        self.__dict__ = of.__dict__
        self._gt_outside = gt_outside

    def add_gt_(self, gt_labels: Tensor) -> None:
        super().add_gt_(gt_labels)
        _ignore(self, self._gt_outside)


def _ignore(assigned: AssignResult, outside: Tensor) -> None:
    """Ignore those of the first n boxes that are out of range, shape (n,)."""
    assigned.gt_inds[: len(outside)].masked_fill_(outside, -1)
    assigned.max_overlaps[: len(outside)].masked_fill_(outside, 0)


class InRangeSampler:
    """A bbox sampler that never samples a proposal whose size is out of the level's range.

    Out-of-range proposals count as ignored, foreground or background, and so do out-of-range
    ground truth boxes where the sampler adds ground truth as proposals. Everything else is left
    to the wrapped sampler.

    An upright proposal on a rotated object is larger than the object. Those with an IoU of at least
    0.5 with the box that encloses a valid object are kept, whatever their size.

    Args:
        sampler (Any): Any of MMDetection's bbox samplers.
        adopt_orphans (bool): Also keep proposals with an IoU of at least 0.5 with an *adopted*
            object, one that is valid although it is out of range (see ``ScalePyramid``). Defaults
            to False.
    """

    def __init__(self, sampler: Any, adopt_orphans: bool = False) -> None:
        self.sampler = sampler
        self.adopt_orphans = adopt_orphans
        self.num_positives = 0  # of all samples since someone has set it to 0

    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        **kwargs: Any,
    ) -> SamplingResult:
        """Sample from the proposals in range.

        Args:
            assign_result (AssignResult): Assignment of the n proposals; the ignored ones are
                changed in place.
            pred_instances (InstanceData): With ``priors``, n boxes, in the input's pixels, and
                ``outside`` (n,), out of range, where it is known.
            gt_instances (InstanceData): As made by :func:`with_invalid_objects`, with ``outside``
                where it is known.

        Returns:
            SamplingResult: What the wrapped sampler returns; for a ``ScoreHLRSampler``, with the
            weights of the negative ones.
        """
        level_range, num_valid = gt_instances.level_range, gt_instances.num_valid
        gt_outside, outside = gt_instances.get('outside'), pred_instances.get('outside')
        if gt_outside is None:
            gt_outside = ~level_range.contains(gt_instances.bboxes)
        if outside is None:
            outside = ~level_range.contains(pred_instances.priors)
        boxes, priors = gt_instances.bboxes, pred_instances.priors
        larger_than_theirs = is_rotated(boxes) and not is_rotated(priors)
        if self.adopt_orphans or larger_than_theirs:
            adopted = gt_outside.clone()
            adopted[num_valid:] = False
            if self.adopt_orphans:
                gt_outside = gt_outside & ~adopted
            near = boxes[:num_valid] if larger_than_theirs else boxes[adopted]
            iou = BboxOverlaps2D()(enclosing(near), enclosing(priors))
            outside = outside & ~(iou >= _FOREGROUND_IOU).any(dim=0)
        _ignore(assign_result, outside)
        in_range = _InRangeAssignResult(assign_result, gt_outside)
        sampled = self.sampler.sample(in_range, pred_instances, gt_instances, **kwargs)
        found, *weights = sampled if isinstance(sampled, tuple) else (sampled,)
        self.num_positives += len(found.pos_inds)
        if weights and weights[0] is None:  # without negatives, which stock images always have
            return found, found.priors.new_ones(len(found.neg_inds))
        return sampled


class SNIPERRoIMixin(BaseRoIHead):
    """Puts SNIPER's R-CNN rules in front of a RoI head; use it as the first base class.

    Two things change in training, at every stage of the head, and nothing in inference (SNIPER
    section 3):

    - Invalid objects take part in the assignment of proposals. Otherwise a proposal on one would
      be background.
    - Proposals whose sqrt(area), in original pixels, is out of the level's range are ignored,
      foreground or background. That includes ground truth boxes that the bbox sampler adds as
      proposals (``add_gt_as_proposals``). The size is that of the box as cropped by the chip.

    With ``adopt_orphans`` in the pyramid, proposals on an adopted object are kept whatever their
    size. Here a valid object counts as adopted if its *cropped* box is out of range.

    The metainfo tells the level (:func:`~mmsniper.chips.input_level.levels_of_input`). The pipeline
    needs :class:`~mmsniper.datasets.ScaleRangeFilter`: without it crowd boxes pass for invalid
    objects.

    Args:
        *args: As for the head.
        pyramid (ScalePyramid | dict): The config's pyramid, see
            :class:`~mmsniper.chips.pyramid.ScalePyramid`.
        **kwargs: As for the head.

    Example:
        >>> @MODELS.register_module()
        ... class MySNIPERRoIHead(SNIPERRoIMixin, MyRoIHead):
        ...     pass
    """

    bbox_sampler: Any  # one, one of each stage, or none

    def __init__(
        self, *args: Any, pyramid: ScalePyramid | Mapping[str, Any], **kwargs: Any
    ) -> None:
        self.pyramid = ScalePyramid.from_config(pyramid)
        super().__init__(*args, **kwargs)

    def init_assigner_sampler(self) -> None:
        """Initialize assigners and samplers; the samplers skip what is out of range."""
        super().init_assigner_sampler()
        adopt = self.pyramid.adopt_orphans
        if isinstance(self.bbox_sampler, list):
            self.bbox_sampler = [InRangeSampler(s, adopt) for s in self.bbox_sampler]
        elif self.bbox_sampler is not None:
            self.bbox_sampler = InRangeSampler(self.bbox_sampler, adopt)

    def loss(
        self, x: tuple[Tensor, ...], rpn_results_list: InstanceList, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Losses of the head on the proposals in range.

        Args:
            x (tuple[Tensor, ...]): Feature maps, each of shape (N, C, H, W).
            rpn_results_list (InstanceList): Proposals of each input, in its pixels.
            batch_data_samples (SampleList): Ground truth of each input; left as it is.

        Returns:
            dict[str, Tensor]: The head's losses.

        Raises:
            ValueError: If a sample's metainfo does not tell the level, or the sample has another
                scale than its level.
        """
        level_ranges = [
            LevelRange.of_input(sample.metainfo, self.pyramid) for sample in batch_data_samples
        ]
        samples = [
            with_invalid_objects(sample, level_range)
            for sample, level_range in zip(batch_data_samples, level_ranges)
        ]
        # Here for all inputs at once; a cascade's next stages have other proposals.
        known = [*(sample.gt_instances for sample in samples), *rpn_results_list]
        outside = out_of_range(level_ranges * 2, [boxes.bboxes for boxes in known])
        for boxes, of_boxes in zip(known, outside):
            boxes.outside = of_boxes
        samplers = _as_list(self.bbox_sampler)
        for sampler in samplers:
            sampler.num_positives = 0
        with _refined_boxes(_as_list(self.bbox_head)):
            losses = super().loss(x, rpn_results_list, samples)
        # Without positive proposals a head leaves out parts of its losses, and without any of them
        # all. Distributed training needs a gradient for every parameter.
        if not all(sampler.num_positives for sampler in samplers):
            last_stage = f's{self.num_stages - 1}.' if hasattr(self, 'num_stages') else ''
            name = f'{last_stage}loss_cls'
            losses[name] = losses.get(name, 0) + _no_loss(self)
        return losses

    def bbox_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the head's. Where there are no proposals, only the stages of a cascade are asked."""
        loss = super().bbox_loss
        if hasattr(self, 'num_stages') or any(map(_count, _sampled(loss, args, kwargs))):
            return loss(*args, **kwargs)
        return dict(loss_bbox={}, bbox_feats=None)

    def mask_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the head's; without positive proposals 0, which not every head can make of none."""
        loss = super().mask_loss
        if any(len(of_input.pos_inds) for of_input in _sampled(loss, args, kwargs)):
            return loss(*args, **kwargs)
        return dict(loss_mask=dict(loss_mask=_no_loss(self)))


def _sampled(
    loss: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Sequence[SamplingResult]:
    """What was sampled of each input, among the arguments of a head's loss."""
    return inspect.signature(loss).bind(*args, **kwargs).arguments['sampling_results']


def _count(sampled: SamplingResult) -> int:
    return len(sampled.pos_inds) + len(sampled.neg_inds)


def _as_list(parts: Any) -> Sequence[Any]:
    """The parts of each stage, or the one part of a head without stages."""
    return list(parts) if isinstance(parts, list | nn.ModuleList) else [parts]


def _no_loss(head: nn.Module) -> Tensor:
    """A loss of 0 with a gradient of 0 for every parameter."""
    return sum((p.sum() * 0 for p in head.parameters()), torch.zeros(()))


@contextmanager
def _refined_boxes(heads: Iterable[BBoxHead]) -> Iterator[None]:
    """Let bbox heads make no boxes of no boxes. They would give None, which not all stages know."""

    def refine(
        stock: Any,
        sampling_results: Sequence[SamplingResult],
        bbox_results: Mapping[str, Any],
        batch_img_metas: Sequence[Mapping[str, Any]],
    ) -> InstanceList:
        refined = stock(sampling_results, bbox_results, batch_img_metas)
        if refined is None:
            return [InstanceData(bboxes=of_input.priors) for of_input in sampling_results]
        return refined

    heads = [head for head in heads if hasattr(head, 'refine_bboxes')]
    for head in heads:
        head.refine_bboxes = partial(refine, head.refine_bboxes)
    try:
        yield
    finally:
        for head in heads:
            del head.refine_bboxes


@MODELS.register_module()
class SNIPERRoIHead(JoinedWithHead, SNIPERRoIMixin):
    """Any RoI head that samples proposals, with SNIPER's rules, see :class:`SNIPERRoIMixin`.

    It *is* the head that ``head`` names: an instance of its class, with its parts and the keys of
    its weights.

    Args:
        head (str | type): Type of the head. Defaults to 'StandardRoIHead' (Faster and Mask R-CNN);
            others are 'CascadeRoIHead', 'HybridTaskCascadeRoIHead' or one of your own.
        pyramid (ScalePyramid | dict): The config's pyramid.
        **kwargs: As for the head.

    Raises:
        ValueError: If :func:`roi_head_fault` finds one.

    Example:
        >>> roi_head = dict(type='SNIPERRoIHead', head='CascadeRoIHead', pyramid=pyramid)
    """

    @staticmethod
    def head_class(head: str | type | None) -> type:
        """The class of a RoI head that samples proposals."""
        head = head or 'StandardRoIHead'
        kind = MODELS.get(head) if isinstance(head, str) else head
        if fault := roi_head_fault(kind):
            raise ValueError(f'there is no SNIPER version of {head}: {fault}')
        return kind


def roi_head_fault(kind: type | None) -> str:
    """Why :class:`SNIPERRoIHead` cannot be made of a class; '' if it can.

    Args:
        kind (type | None): The class of a RoI head, None if it is not known.
    """
    if kind is None:
        return 'it is not registered; custom_imports names the module that has it'
    if not issubclass(kind, BaseRoIHead):
        return 'it is no RoI head'
    if issubclass(kind, MultiInstanceRoIHead):
        return 'it gives two objects to a proposal, of which one may be valid and the other not'
    if issubclass(kind, SparseRoIHead):
        return 'it has queries instead of proposals; SNIPERSparseRoIHead is its version'
    return ''


class _QuerySampler(PseudoSampler):
    """A ``PseudoSampler`` for queries of which some are ignored: neither positive nor negative."""

    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        **kwargs: Any,
    ) -> SamplingResult:
        """All queries; the ignored ones are among ``neg_priors``, but not in ``neg_inds``.

        By the former ``DIIHead`` counts its queries, to the latter it gives a weight.
        """
        found = super().sample(assign_result, pred_instances, gt_instances, **kwargs)
        found.neg_priors = pred_instances.priors[assign_result.gt_inds <= 0]
        return found


@MODELS.register_module()
class SNIPERSparseRoIHead(SparseRoIHead):
    """``SparseRoIHead`` (Sparse R-CNN, QueryInst) that ignores queries on invalid objects.

    In training, at each stage, queries are matched with the valid objects as if these were alone.
    Those that are then matched with the invalid objects, among the queries left over, are neither
    positive nor background (:class:`~mmsniper.models.assigners.IgnoreInvalidAssigner`). Boxes and
    masks are learned from the queries of valid objects. Testing is ``SparseRoIHead``'s.

    Where no input of a batch has a valid object, the classification loss is a sum. Stock divides
    it by the number of objects, which is then 0; it never sees such images.

    Arguments are those of ``SparseRoIHead``.
    """

    bbox_assigner: Any  # one of each stage
    bbox_sampler: Any

    def init_assigner_sampler(self) -> None:
        """Initialize assigners and samplers that know what is ignored."""
        super().init_assigner_sampler()
        self.bbox_assigner = [
            one if isinstance(one, IgnoreInvalidAssigner) else IgnoreInvalidAssigner(one)
            for one in self.bbox_assigner
        ]
        self.bbox_sampler = [
            _QuerySampler() if isinstance(one, PseudoSampler) else one for one in self.bbox_sampler
        ]

    def loss(
        self, x: tuple[Tensor, ...], rpn_results_list: InstanceList, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """As ``SparseRoIHead``; the samples are left as they are."""
        samples = [with_appended_invalid(sample) for sample in batch_data_samples]
        return super().loss(x, rpn_results_list, samples)

    def bbox_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As ``SparseRoIHead``, with a finite loss where no object is valid."""
        results = super().bbox_loss(*args, **kwargs)
        losses = results['loss_bbox']
        count = sum(len(of_input.pos_inds) for of_input in results['sampling_results'])
        none = reduce_mean(losses['loss_cls'].new_tensor(float(count))) == 0
        # The losses divide by the number of objects, plus this.
        losses['loss_cls'] = losses['loss_cls'] * torch.where(
            none, torch.finfo(torch.float32).eps, 1.0
        )
        return results
