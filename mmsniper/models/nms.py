"""Non-maximum suppression of boxes of any type, by which detections are merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmcv.ops import batched_nms, box_iou_rotated
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

from mmsniper.utils.box_types import enclosing, is_rotated

# Sigma and least score of SNIPER's authors (paper, section 4; release).
MERGE_NMS = dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001)
"""How the detections of all levels are merged where a config does not say it."""

# What the types of mmcv are called for rotated boxes; Soft-NMS is ours.
_ROTATED = {'nms': 'nms_rotated', 'nms_rotated': 'nms_rotated'}


def best_first(found: InstanceData, nms: Mapping[str, Any] | None) -> InstanceData:
    """What an NMS leaves of detections, by score; all with None.

    Args:
        found (InstanceData): ``bboxes``, (n, 4) or n rotated ones, ``scores`` and ``labels``.
        nms (dict | None): As ``test_cfg.nms`` has it. For rotated boxes ``nms`` is
            ``nms_rotated``, and ``soft_nms`` goes by their own IoUs.

    Returns:
        InstanceData: Some of them, with new scores after a Soft-NMS.
    """
    if not len(found):
        return found
    if nms is None or not is_rotated(found.bboxes):
        order, scores = _upright(found, nms)
    elif nms['type'] == 'soft_nms':
        order, scores = _rotated_soft_nms(found, {**MERGE_NMS, **nms})
    else:
        order, scores = _rotated_nms(found, nms)
    found = found[order]
    found.scores = scores
    return found


def _upright(found: InstanceData, nms: Mapping[str, Any] | None) -> tuple[Tensor, Tensor]:
    boxes, order = batched_nms(enclosing(found.bboxes), found.scores, found.labels, nms)
    return order, boxes[:, 4]


def _rotated_nms(found: InstanceData, nms: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    rotated = found.bboxes.convert_to('rbox').tensor
    nms = {**nms, 'type': _ROTATED.get(nms['type'], nms['type'])}
    boxes, order = batched_nms(rotated, found.scores, found.labels, nms)
    return order, boxes[:, 5]


def _rotated_soft_nms(found: InstanceData, nms: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    rotated = found.bboxes.convert_to('rbox').tensor.detach().cpu()
    around = enclosing(found.bboxes).detach().cpu().numpy()
    scores = found.scores.detach().cpu().numpy().astype(np.float64)
    labels = found.labels.cpu().numpy()
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        scores[of_class] = _decayed(rotated[of_class], around[of_class], scores[of_class], nms)
    order = np.argsort(-scores, kind='stable')
    order = torch.from_numpy(order[scores[order] > nms['min_score']]).to(found.scores.device)
    return order, torch.from_numpy(scores).to(found.scores)[order]


def _decayed(
    boxes: Tensor, around: NDArray, scores: NDArray[np.float64], nms: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Scores of the boxes of one class after a Soft-NMS (Bodla et al., 2017).

    Args:
        boxes (Tensor): Rotated boxes, shape (n, 5).
        around (NDArray): What encloses them, shape (n, 4).
        scores (NDArray): Shape (n,).
        nms (dict): ``method`` (``gaussian``, ``linear`` or ``naive``), ``sigma``,
            ``iou_threshold`` of the latter two, and ``min_score``, below which a box decays no
            other.
    """
    left, scores = np.ones(len(scores), bool), scores.copy()
    for _ in range(len(scores)):
        best = int(np.where(left, scores, -1).argmax())
        if scores[best] <= nms['min_score']:
            break
        left[best] = False
        near = (around[:, :2] < around[best, 2:]) & (around[:, 2:] > around[best, :2])
        others = np.flatnonzero(near.all(axis=1) & left)
        if len(others):
            iou = box_iou_rotated(boxes[best : best + 1], boxes[others])[0].double().numpy()
            scores[others] *= _decay(iou, nms)
    return scores


def _decay(iou: NDArray[np.float64], nms: Mapping[str, Any]) -> NDArray[np.float64]:
    method, threshold = nms.get('method', 'linear'), nms.get('iou_threshold', 0.3)
    if method == 'gaussian':
        return np.exp(-(iou**2) / nms['sigma'])
    return np.where(iou < threshold, 1.0, 1 - iou if method == 'linear' else 0.0)
