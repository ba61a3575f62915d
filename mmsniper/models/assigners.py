"""Label assignment of priors: what an invalid object would have is ignored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.assigners import (
    AssignResult,
    BaseAssigner,
    HungarianAssigner,
    MaxIoUAssigner,
)
from mmdet.registry import TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, cat_boxes
from mmengine.structures import InstanceData
from torch import Tensor

from mmsniper.datasets.ignored_order import INVALID_FIRST
from mmsniper.utils.box_types import is_rotated
from mmsniper.utils.checks import check_box_shape

# (m boxes, n priors) -> IoU (m, n)
IoUCalculator = Callable[[Tensor | BaseBoxes, Tensor | BaseBoxes], Tensor]

# IoUs computed at a time: the calculator's temporaries take about 40 bytes for each.
_MAX_PAIRS = 2**22


def split_ignored(ignored: InstanceData | None) -> tuple[InstanceData | None, InstanceData | None]:
    """Split ignored instances into ignore regions and invalid objects.

    :class:`~mmsniper.datasets.ScaleRangeFilter` gives regions in which nothing is to be learned
    (crowd, difficult) the label -1. An object that is out of its level's range keeps its class.
    Where :class:`~mmsniper.datasets.ChipDataset` has sorted them, a GPU is not waited for, and
    nothing is copied if all are of one kind.

    Args:
        ignored (InstanceData | None): A data sample's ``ignored_instances``.

    Returns:
        tuple[InstanceData | None, InstanceData | None]: The ignore regions (labels of -1) and the
        invalid objects (labels >= 0); None, or empty, where there are none. Without labels all are
        regions.
    """
    if ignored is None or 'labels' not in ignored:
        return ignored, None
    if (sorted_as := ignored.get(INVALID_FIRST)) and sorted_as.total == len(ignored):
        if not sorted_as.invalid:
            return ignored, None
        if sorted_as.invalid == sorted_as.total:
            return None, ignored
        return ignored[sorted_as.invalid :], ignored[: sorted_as.invalid]
    invalid = ignored.labels >= 0
    return ignored[~invalid], ignored[invalid]


def append_invalid(valid: InstanceData, invalid: InstanceData | None) -> InstanceData:
    """Put invalid objects behind the valid ones, for heads that hand on ground truth only.

    Args:
        valid (InstanceData): A data sample's ``gt_instances``; left as they are.
        invalid (InstanceData | None): As found by :func:`split_ignored`.

    Returns:
        InstanceData: All objects, with the number of valid ones as ``num_valid`` in the metainfo.

    Raises:
        ValueError: If invalid objects lack a field that the valid ones have, such as masks.
    """
    objects = InstanceData(**dict(valid.items()))
    if invalid is not None and len(invalid):
        fields = valid.keys()
        missing = sorted(set(fields) - set(invalid.keys()))
        if missing:
            raise ValueError(
                f'ignored_instances lack {missing}, which gt_instances have; invalid objects take '
                f'part in assignment and need the same fields'
            )
        same_fields = {key: invalid[key] for key in fields}
        if 'masks' in fields:
            # The data preprocessor pads the masks of gt_instances only.
            same_fields['masks'] = invalid.masks.pad((valid.masks.height, valid.masks.width))
        objects = InstanceData.cat([objects, InstanceData(**same_fields)])
    objects.set_field(len(valid), 'num_valid', field_type='metainfo')
    return objects


def with_appended_invalid(sample: DetDataSample) -> DetDataSample:
    """The sample with its invalid objects where a head hands them on to the assignment.

    Args:
        sample (DetDataSample): With ``gt_instances`` (valid objects) and maybe
            ``ignored_instances`` (see :func:`split_ignored`). Left as it is.

    Returns:
        DetDataSample: A copy that shares data and metainfo. Its ``gt_instances`` are made by
        :func:`append_invalid`; only ignore regions remain in ``ignored_instances``. A sample that
        was made so is returned as it is.

    Raises:
        ValueError: If invalid objects lack a field that the valid ones have, such as masks.
    """
    if 'num_valid' in sample.gt_instances:
        return sample
    regions, invalid = split_ignored(sample.get('ignored_instances'))
    copy = type(sample)()
    for name, value in sample.metainfo_items():  # new() would copy each value
        copy.set_field(value, name, field_type='metainfo')
    for name, value in sample.items():
        if name not in ('gt_instances', 'ignored_instances'):
            copy.set_field(value, name)
    copy.gt_instances = append_invalid(sample.gt_instances, invalid)
    if regions is not None:
        copy.ignored_instances = regions
    return copy


def split_appended(objects: InstanceData) -> tuple[InstanceData, InstanceData | None]:
    """Undo :func:`append_invalid`: the valid and the invalid objects.

    The latter are None where :func:`append_invalid` was not called.
    """
    count = objects.get('num_valid')
    return (objects, None) if count is None else (objects[:count], objects[count:])


def valid_part(sample: DetDataSample) -> DetDataSample:
    """The sample with its valid objects only, for what makes queries of objects (denoising)."""
    valid, _ = split_appended(sample.gt_instances)
    return DetDataSample(metainfo=sample.metainfo, gt_instances=valid)


def of_a_class_among(num_classes: int, invalid: InstanceData) -> InstanceData:
    """Invalid objects with labels that a head knows.

    In place of an RPN a head has one class. Two-stage detectors give the valid objects that one,
    and leave ``ignored_instances`` theirs.

    Args:
        num_classes (int): Of the head.
        invalid (InstanceData): As found by :func:`split_ignored`; left as they are.
    """
    labels = invalid.labels.clamp(max=num_classes - 1)
    return invalid.new(**{**dict(invalid.items()), 'labels': labels})


def ignore_near_invalid(
    assign_result: AssignResult,
    priors: Tensor | BaseBoxes,
    invalid_boxes: Tensor | BaseBoxes,
    ignore_iou_thr: float,
    iou_calculator: IoUCalculator,
    max_pairs: int = _MAX_PAIRS,
) -> AssignResult:
    """Ignore priors that overlap an invalid object, whatever label they had (SNIPER section 3).

    This is the whole rule, for any assigner: call it on the assigner's result. Memory stays bounded
    for thousands of boxes and hundreds of thousands of priors.

    Args:
        assign_result (AssignResult): Result for the n priors; changed in place.
        priors (Tensor | BaseBoxes): Shape (n, 4), xyxy, or n rotated ones.
        invalid_boxes (Tensor | BaseBoxes): Shape (m, 4), xyxy, or m rotated ones, in the same
            frame.
        ignore_iou_thr (float): Priors whose IoU with any invalid box exceeds this are ignored.
        iou_calculator (IoUCalculator): Such as MMDetection's ``BboxOverlaps2D()``, or MMRotate's
            for rotated boxes.
        max_pairs (int): IoUs that are computed at a time. Defaults to 2 ** 22.

    Returns:
        AssignResult: ``assign_result``, with ``gt_inds`` and ``labels`` of -1 for those priors.

    Raises:
        ValueError: If a tensor has another shape.
    """
    for boxes, name in ((priors, 'priors'), (invalid_boxes, 'invalid_boxes')):
        if not is_rotated(boxes):  # MMDetection's calculator takes a fifth number for a score
            check_box_shape(boxes.shape, name)
    if len(priors) and len(invalid_boxes):
        for chunk in invalid_boxes.split(max(1, max_pairs // len(priors))):
            _ignore_near(assign_result, iou_calculator(chunk, priors), ignore_iou_thr)
    return assign_result


def _ignore_near(result: AssignResult, iou: Tensor, ignore_iou_thr: float) -> None:
    """Ignore the n priors whose IoU with one of m invalid boxes, shape (m, n), is too large."""
    near = (iou > ignore_iou_thr).any(dim=0)
    result.gt_inds.masked_fill_(near, -1)
    if result.labels is not None:
        result.labels.masked_fill_(near, -1)


class _Objects(NamedTuple):
    """Boxes of valid and invalid objects, and the labels of the valid ones, which come first."""

    bboxes: Tensor | BaseBoxes
    labels: Tensor


@TASK_UTILS.register_module()
class ValidRangeAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` that ignores priors near objects that are out of the level's range.

    The rule is IoU, so a large invalid box does not silence the small anchors inside it, as
    ``ignore_iof_thr`` (intersection over the *anchor*) would. Ignore regions get MMDetection's own
    treatment, ``ignore_iof_thr``.

    Needs :class:`~mmsniper.datasets.ScaleRangeFilter` in the pipeline, which marks both.

    Args:
        *args: As for ``MaxIoUAssigner``.
        ignore_iou_thr (float): Priors whose IoU with any invalid box exceeds this are ignored.
            Defaults to 0.3, as in the paper.
        **kwargs: As for ``MaxIoUAssigner``.

    Raises:
        ValueError: If ``ignore_iou_thr`` is not in [0, 1].
    """

    def __init__(self, *args: Any, ignore_iou_thr: float = 0.3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= ignore_iou_thr <= 1:
            raise ValueError(
                f'ignore_iou_thr is an IoU and must be in [0, 1], got {ignore_iou_thr!r}; '
                f'1 ignores nothing'
            )
        self.ignore_iou_thr = ignore_iou_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assign as ``MaxIoUAssigner`` does, then ignore what is near an invalid object.

        Args:
            pred_instances (InstanceData): With ``priors`` (n, 4).
            gt_instances (InstanceData): Valid objects: ``bboxes`` (k, 4) and ``labels`` (k,).
            gt_instances_ignore (InstanceData | None): Ignore regions and invalid objects, see
                :func:`split_ignored`. Defaults to None.
            **kwargs: As for ``MaxIoUAssigner``.

        Returns:
            AssignResult: Per prior: 0 for background, i + 1 for object i, -1 for ignored.
        """
        regions, invalid = split_ignored(gt_instances_ignore)
        if invalid is None or not len(invalid):
            return super().assign(pred_instances, gt_instances, regions, **kwargs)
        if len(invalid) * len(pred_instances.priors) > _MAX_PAIRS:
            result = super().assign(pred_instances, gt_instances, regions, **kwargs)
            return ignore_near_invalid(
                result,
                pred_instances.priors,
                invalid.bboxes,
                self.ignore_iou_thr,
                self.iou_calculator,
            )
        boxes = cat_boxes([gt_instances.bboxes, invalid.bboxes])
        objects = _Objects(boxes, gt_instances.labels)
        # Without valid objects all is background for MaxIoUAssigner, whatever the regions.
        regions = regions if len(gt_instances) else None
        return super().assign(pred_instances, objects, regions, **kwargs)

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign by the IoUs with all objects, which are computed at once.

        Args:
            overlaps (Tensor): Shape (k + m, n): of k valid and m invalid objects with n priors.
            gt_labels (Tensor): Labels of the valid objects, shape (k,).

        Returns:
            AssignResult: As of :meth:`assign`.
        """
        num_valid = len(gt_labels)
        if len(overlaps) == num_valid:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        result = super().assign_wrt_overlaps(overlaps[:num_valid], gt_labels)
        _ignore_near(result, overlaps[num_valid:], self.ignore_iou_thr)
        return result


@TASK_UTILS.register_module()
class IgnoreInvalidAssigner(BaseAssigner):
    """Any assigner, with the priors ignored that it would give to objects out of range.

    The wrapped assigner assigns the valid objects, and then the invalid ones, as if each group were
    alone. A prior that is background for the valid objects and not for the invalid ones is ignored.
    So an invalid object makes nothing positive, takes nothing from a valid object, and is not
    taught as background either.

    Where each object gets one prediction (Hungarian matching), the invalid objects are matched
    with the predictions that the valid ones left over. Otherwise both could choose the same
    prediction, and the invalid object's second choice would be background.

    Invalid objects are found by :func:`split_ignored`, or come behind the valid ones
    (:func:`append_invalid`). Ignore regions go to the wrapped assigner.

    Args:
        assigner (dict | BaseAssigner): The assigner to wrap, or its config. Its attributes are this
            assigner's, too.
        one_to_one (bool | None): Match invalid objects with left over predictions only. Defaults to
            None: whether the wrapped assigner is a ``HungarianAssigner``.

    Raises:
        TypeError: If the wrapped assigner's ``assign`` does not take arguments named
            ``pred_instances`` and ``gt_instances``.

    Example:
        >>> train_cfg = dict(
        ...     assigner=dict(
        ...         type='IgnoreInvalidAssigner', assigner=dict(type='ATSSAssigner', topk=9)))
    """

    def __init__(
        self, assigner: Mapping[str, Any] | BaseAssigner, one_to_one: bool | None = None
    ) -> None:
        if isinstance(assigner, Mapping):
            assigner = TASK_UTILS.build(assigner)
        known = inspect.signature(assigner.assign).parameters
        missing = {'pred_instances', 'gt_instances'} - set(known)
        if missing:
            raise TypeError(
                f'IgnoreInvalidAssigner cannot wrap {type(assigner).__name__}: its assign() does '
                f'not take {sorted(missing)}. Use an assigner with the signature of MMDetection 3'
            )
        self.assigner = assigner
        self._argument_names = tuple(known)
        is_hungarian = isinstance(assigner, HungarianAssigner)
        self.one_to_one = is_hungarian if one_to_one is None else one_to_one

    def __getattr__(self, name: str) -> Any:
        # A copy that is being made has no attributes yet.
        if name == 'assigner' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.assigner, name)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.assigner!r}, one_to_one={self.one_to_one})'

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Assign valid objects, then ignore what the invalid ones would have.

        Args:
            *args, **kwargs: As for the wrapped assigner.

        Returns:
            AssignResult: The wrapped assigner's result for the valid objects, with ``gt_inds`` and
            ``labels`` of -1 for the priors that are ignored.
        """
        arguments = {**dict(zip(self._argument_names, args)), **kwargs}
        arguments['gt_instances'], invalid = split_appended(arguments['gt_instances'])
        if 'gt_instances_ignore' in arguments:
            regions, ignored_objects = split_ignored(arguments['gt_instances_ignore'])
            arguments['gt_instances_ignore'] = regions
            invalid = ignored_objects if invalid is None else invalid
        result = self.assigner.assign(**arguments)
        if invalid is None or not len(invalid):
            return result
        background = result.gt_inds == 0
        scores = arguments['pred_instances'].get('scores')
        if scores is not None:  # an assigner that looks at these looks labels up in them
            invalid = of_a_class_among(scores.shape[-1], invalid)
        arguments['gt_instances'] = invalid
        if self.one_to_one:
            arguments['pred_instances'] = arguments['pred_instances'][background]
        with torch.no_grad():
            wanted = self.assigner.assign(**arguments).gt_inds != 0
        if self.one_to_one:
            ignored = background.masked_scatter(background, wanted)
        else:
            ignored = background & wanted
        result.gt_inds[ignored] = -1  # of background, `labels` are -1 already
        return result
