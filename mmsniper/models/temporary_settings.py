"""Other test settings for a detector, for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mmdet.models.dense_heads import DDQDETRHead, DETRHead, GroundingDINOHead
from mmdet.models.detectors import BaseDetector
from mmdet.models.roi_heads import GridRoIHead, SparseRoIHead
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import ModuleList

from mmsniper.models.mask_prediction import mask_prediction

_ALL = 10**9


@contextmanager
def everything_found(
    detector: BaseDetector, score_thr: float, rpn: Mapping[str, Any] | None = None
) -> Iterator[Mapping[str, Any] | None]:
    """Let a detector give all boxes of a score, before its NMS and its best k, without masks.

    PAA's score voting, which follows its NMS, is left out.

    Args:
        detector (BaseDetector): A one-stage, two-stage or set-prediction detector.
        score_thr (float): Least score, where the detector has a threshold that is not less. Grid
            R-CNN keeps its own.
        rpn (dict | None): Settings for its RPN. Defaults to None, its own.

    Returns:
        Iterator[Mapping | None]: The NMS that a one-stage detector now leaves to be done. A
        two-stage detector's is left out: merging is to see all that it finds. None for those and
        for set predictions.
    """
    head = box_head(detector)
    own = getattr(head, 'test_cfg', None) or {}
    changes: dict[str, Any] = dict(max_per_img=_ALL)
    # What Grid R-CNN finds it then refines, box by box, which takes as long as masks.
    if 'score_thr' in own and not isinstance(head, GridRoIHead):
        changes['score_thr'] = min(own['score_thr'], score_thr)
    if 'nms' in own:
        changes['nms'] = None
    if isinstance(head, DETRHead):  # it takes the best of (query, class), or of queries
        by_class = head.loss_cls.use_sigmoid and not isinstance(head, GroundingDINOHead)
        classes = head.num_classes if by_class else 1  # of a text there may be fewer
        changes['max_per_img'] = _number_of_queries(detector) * classes
    elif isinstance(head, SparseRoIHead):
        changes['max_per_img'] = detector.rpn_head.num_proposals * head.bbox_head[-1].num_classes
    with ExitStack() as stack:
        if head is not None:  # Mask2Former has none, and all that its queries find is found
            stack.enter_context(_test_cfg(head, changes))
        if isinstance(head, DDQDETRHead):
            stack.enter_context(_every_distinct_query(head))
        if rpn:
            stack.enter_context(_test_cfg(detector.rpn_head, rpn))
        if getattr(head, 'with_score_voting', False):  # PAA: boxes vote after its NMS
            stack.callback(setattr, head, 'with_score_voting', True)
            head.with_score_voting = False
        if masks := mask_prediction(detector):
            stack.enter_context(masks.left_out(score_thr))
        yield None if _is_second_stage(head, detector) else own.get('nms')


def box_head(detector: BaseDetector) -> Any:
    """The head whose boxes a detector gives, None if it has none (Mask2Former).

    Of MMRotate's R3Det and S2ANet it is the last dense one, of Co-DETR what its ``eval_module``
    chooses.
    """
    if module := getattr(detector, 'eval_module', None):
        heads = {'one-stage': 'bbox_head', 'two-stage': 'roi_head'}
        if module not in heads:
            return detector.query_head
        return getattr(detector, heads[module])[detector.eval_index]
    if (roi_head := getattr(detector, 'roi_head', None)) is not None:
        return roi_head
    refining = getattr(detector, 'bbox_head_refine', None)
    return refining[-1] if refining else getattr(detector, 'bbox_head', None)


def _is_second_stage(head: Any, detector: BaseDetector) -> bool:
    """Whether a detector's head is its RoI head, or one of several."""
    roi_head = getattr(detector, 'roi_head', None)
    return any(
        one is head for one in (roi_head if isinstance(roi_head, ModuleList) else [roi_head])
    )


def _number_of_queries(detector: BaseDetector) -> int:
    """Of a set-prediction detector; Co-DETR's are those of its head."""
    in_head = getattr(detector, 'query_head', None)
    return detector.num_queries if in_head is None else in_head.num_query


@contextmanager
def fewer_proposals(
    detector: BaseDetector, share: float, min_proposals: int | None
) -> Iterator[None]:
    """Let the RPN of a two-stage detector give a share of its proposals, before and after NMS.

    ``share`` is at most 1. At least ``min_proposals`` remain, if it gives as many; with None the
    detector stays as it is.
    """
    if min_proposals is None:
        yield
        return
    own = detector.rpn_head.test_cfg
    number = max(math.ceil(share * own.max_per_img), min(min_proposals, own.max_per_img))
    before = math.ceil(own.nms_pre * number / own.max_per_img)
    with _test_cfg(detector.rpn_head, dict(max_per_img=number, nms_pre=before)):
        yield


@contextmanager
def _every_distinct_query(head: DDQDETRHead) -> Iterator[None]:
    """Let DDQ give all boxes of an input, of which its NMS of queries leaves another number."""
    own = head._predict_by_feat_single

    def every(scores: Tensor, *args: Any, **kwargs: Any) -> InstanceData:
        with _test_cfg(head, dict(max_per_img=scores.numel())):
            return own(scores, *args, **kwargs)

    head._predict_by_feat_single = every
    try:
        yield
    finally:
        del head._predict_by_feat_single


@contextmanager
def _test_cfg(head: BaseModule, changes: Mapping[str, Any]) -> Iterator[None]:
    own = head.test_cfg
    head.test_cfg = ConfigDict({**(own or {}), **changes})
    try:
        yield
    finally:
        head.test_cfg = own
