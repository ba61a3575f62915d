"""RoI heads that learn, at each pyramid level, from the proposals whose size suits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models.roi_heads import BaseRoIHead, CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules.assigners import AssignResult, BboxOverlaps2D
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.assigners import with_appended_invalid
from mmsniper.models.level_range import LevelRange, out_of_range

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
    """An assignment to which only those ground truth boxes are added that are in range."""

    def __init__(self, of: AssignResult, gt_outside: Tensor) -> None:
        super().__init__(of.num_gts, of.gt_inds, of.max_overlaps, of.labels)
        self._gt_outside = gt_outside

    def add_gt_(self, gt_labels: Tensor) -> None:
        super().add_gt_(gt_labels)
        self.gt_inds[: len(gt_labels)].masked_fill_(self._gt_outside, -1)


class InRangeSampler:
    """A bbox sampler that never samples a proposal whose size is out of the level's range.

    Out-of-range proposals count as ignored, foreground or background, and so do out-of-range
    ground truth boxes where the sampler adds ground truth as proposals. Everything else is left
    to the wrapped sampler.

    Args:
        sampler (Any): Any of MMDetection's bbox samplers.
        adopt_orphans (bool): Also keep proposals with an IoU of at least 0.5 with an *adopted*
            object, one that is valid although it is out of range (see ``ScalePyramid``). Defaults
            to False.
    """

    def __init__(self, sampler: Any, adopt_orphans: bool = False) -> None:
        self.sampler = sampler
        self.adopt_orphans = adopt_orphans

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
            pred_instances (InstanceData): With ``priors``, shape (n, 4), in the input's pixels, and
                ``outside`` (n,), out of range, where it is known.
            gt_instances (InstanceData): As made by :func:`with_invalid_objects`, with ``outside``
                where it is known.

        Returns:
            SamplingResult: What the wrapped sampler returns.
        """
        level_range, num_valid = gt_instances.level_range, gt_instances.num_valid
        gt_outside, outside = gt_instances.get('outside'), pred_instances.get('outside')
        if gt_outside is None:
            gt_outside = ~level_range.contains(gt_instances.bboxes)
        if outside is None:
            outside = ~level_range.contains(pred_instances.priors)
        if self.adopt_orphans:
            adopted = gt_outside.clone()
            adopted[num_valid:] = False
            iou = BboxOverlaps2D()(gt_instances.bboxes[adopted], pred_instances.priors)
            outside = outside & ~(iou >= _FOREGROUND_IOU).any(dim=0)
            gt_outside = gt_outside & ~adopted
        assign_result.gt_inds.masked_fill_(outside, -1)
        in_range = _InRangeAssignResult(assign_result, gt_outside)
        return self.sampler.sample(in_range, pred_instances, gt_instances, **kwargs)


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
        ... class SNIPERHTCRoIHead(SNIPERRoIMixin, HybridTaskCascadeRoIHead):
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
        losses = super().loss(x, rpn_results_list, samples)
        # A head without a single sampled proposal has no classification loss, and a cascade then
        # skips its later stages. Distributed training needs a gradient for every parameter.
        last_stage = f's{self.num_stages - 1}.' if hasattr(self, 'num_stages') else ''
        if not any(name.startswith(f'{last_stage}loss_cls') for name in losses):
            losses[f'{last_stage}loss_cls'] = sum(p.sum() * 0 for p in self.parameters())
        return losses


@MODELS.register_module()
class SNIPERRoIHead(SNIPERRoIMixin, StandardRoIHead):
    """``StandardRoIHead`` (Faster and Mask R-CNN) with SNIPER's rules, see the mixin.

    Args:
        pyramid: The config's pyramid. The other arguments are those of ``StandardRoIHead``.
    """


@MODELS.register_module()
class SNIPERCascadeRoIHead(SNIPERRoIMixin, CascadeRoIHead):
    """``CascadeRoIHead`` (Cascade R-CNN, with masks too) with SNIPER's rules, see the mixin.

    Args:
        pyramid: The config's pyramid. The other arguments are those of ``CascadeRoIHead``.
    """
