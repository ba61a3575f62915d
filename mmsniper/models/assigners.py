"""Label assignment of anchors: what is near an invalid object is ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

# (boxes (m, 4), priors (n, 4)) -> IoU (m, n)
IoUCalculator = Callable[[Tensor, Tensor], Tensor]

# IoUs computed at a time: the calculator's temporaries take about 40 bytes for each.
_MAX_PAIRS = 2**22


def split_ignored(ignored: InstanceData | None) -> tuple[InstanceData | None, InstanceData | None]:
    """Split ignored instances into ignore regions and invalid objects.

    :class:`~mmsniper.datasets.ScaleRangeFilter` gives regions in which nothing is to be learned
    (crowd, difficult) the label -1 and lets an object that is out of its level's range keep its
    class.

    Args:
        ignored: A data sample's ``ignored_instances``, or None.

    Returns:
        The ignore regions (labels of -1) and the invalid objects (labels >= 0). Without labels,
        as in samples that are made by hand, all are regions: nothing says that they are objects.
    """
    if ignored is None or 'labels' not in ignored:
        return ignored, None
    invalid = ignored.labels >= 0
    return ignored[~invalid], ignored[invalid]


def near_any(
    priors: Tensor | BaseBoxes,
    boxes: Tensor | BaseBoxes,
    iou_thr: float,
    iou_calculator: IoUCalculator,
    max_pairs: int = _MAX_PAIRS,
) -> Tensor:
    """Which priors have an IoU above ``iou_thr`` with any of the boxes.

    Memory stays bounded for thousands of boxes and hundreds of thousands of priors.

    Args:
        priors: Shape (n, 4), xyxy.
        boxes: Shape (m, 4), xyxy, in the same frame.
        iou_thr: Threshold, exclusive.
        iou_calculator: Such as MMDetection's ``BboxOverlaps2D()``.
        max_pairs: Number of IoUs that are held at a time.

    Returns:
        Bool tensor of shape (n,).
    """
    priors, boxes = get_box_tensor(priors), get_box_tensor(boxes)
    near = torch.zeros(len(priors), dtype=torch.bool, device=priors.device)
    if len(priors) and len(boxes):
        for chunk in boxes.split(max(1, max_pairs // len(priors))):
            near |= (iou_calculator(chunk, priors) > iou_thr).any(dim=0)
    return near


def ignore_near_invalid(
    assign_result: AssignResult,
    priors: Tensor | BaseBoxes,
    invalid_boxes: Tensor | BaseBoxes,
    ignore_iou_thr: float,
    iou_calculator: IoUCalculator,
) -> AssignResult:
    """Ignore priors that overlap an invalid object, whatever label they had (SNIPER section 3).

    This is the whole rule, for any assigner: call it on the assigner's result.

    Args:
        assign_result: Result for the n priors; changed in place.
        priors: Shape (n, 4), xyxy.
        invalid_boxes: Shape (m, 4), xyxy, in the same frame.
        ignore_iou_thr: Priors whose IoU with any invalid box exceeds this are ignored.
        iou_calculator: Such as MMDetection's ``BboxOverlaps2D()``.

    Returns:
        ``assign_result``, with ``gt_inds`` and ``labels`` of -1 for those priors.
    """
    near = near_any(priors, invalid_boxes, ignore_iou_thr, iou_calculator)
    assign_result.gt_inds[near] = -1
    if assign_result.labels is not None:
        assign_result.labels[near] = -1
    return assign_result


@TASK_UTILS.register_module()
class ValidRangeAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` that ignores priors near objects that are out of the level's range.

    Labels come from the valid objects. The rule for invalid ones is IoU, so a large invalid box
    does not silence the small anchors inside it, as ``ignore_iof_thr`` (intersection over the
    *anchor*) would. Ignore regions, that is ignored instances with a label of -1 or without
    labels, get MMDetection's own treatment (``ignore_iof_thr``).

    Needs :class:`~mmsniper.datasets.ScaleRangeFilter` in the pipeline, which marks both.

    Args:
        *args: As for ``MaxIoUAssigner``.
        ignore_iou_thr: Priors whose IoU with any invalid box exceeds this are ignored.
            Default: 0.3, as in the paper.
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
            pred_instances: With ``priors``, shape (n, 4).
            gt_instances: Valid objects: ``bboxes``, shape (k, 4), and ``labels``, shape (k,).
            gt_instances_ignore: Ignore regions and invalid objects, see :func:`split_ignored`.

        Returns:
            Per prior: 0 for background, i + 1 for object i, -1 for ignored.
        """
        regions, invalid = split_ignored(gt_instances_ignore)
        result = super().assign(pred_instances, gt_instances, regions, **kwargs)
        if invalid is None:
            return result
        return ignore_near_invalid(
            result, pred_instances.priors, invalid.bboxes, self.ignore_iou_thr, self.iou_calculator
        )
