"""The region proposals of a detector, on their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import EmbeddingRPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import RPN, BaseDetector
from mmengine.structures import InstanceData
from torch import nn

from mmsniper.utils.box_types import enclosing, typed


def proposal_head(model: BaseDetector) -> BaseDenseHead:
    """The part of a detector that proposes regions.

    Args:
        model (BaseDetector): A two-stage detector (Faster, Cascade, Mask R-CNN, ...) or an ``RPN``.

    Returns:
        BaseDenseHead: Its ``rpn_head``, or the ``bbox_head`` of an ``RPN``.

    Raises:
        ValueError: If it has none, or one whose boxes are the same for every image (Sparse R-CNN).
    """
    head = model.bbox_head if isinstance(model, RPN) else getattr(model, 'rpn_head', None)
    if head is None or isinstance(head, EmbeddingRPNHead):
        what = 'no rpn_head' if head is None else 'learned boxes for an rpn_head'
        raise ValueError(
            f'{type(model).__name__} has {what}, so there are no proposals to mine negative '
            f'chips from. Mine them with another detector or from any proposals, '
            f'tools/analysis_tools/mine_negatives.py, and give the file to '
            f'ChipAwareSampler(negatives=FILE) instead of using NegativeChipHook'
        )
    return head


@torch.no_grad()
def propose(model: BaseDetector, batch: Mapping[str, Any]) -> list[InstanceData]:
    """Run a detector as far as its region proposals, as many as its ``test_cfg.rpn`` says.

    Args:
        model (BaseDetector): A detector with a :func:`proposal_head`, in evaluation mode.
        batch (dict): ``inputs`` and ``data_samples``, as a data loader gives them.

    Returns:
        list[InstanceData]: For each input ``bboxes`` (n, 4), xyxy in the input's pixels, and
        ``scores`` (n,), descending. Of rotated proposals what encloses them.
    """
    data = model.data_preprocessor(batch, training=False)
    features = model.extract_feat(data['inputs'])
    if (query_head := getattr(model, 'query_head', None)) is not None:  # Co-DETR's encoder
        features = query_head(features, [sample.metainfo for sample in data['data_samples']])[-1]
    found = proposal_head(model).predict(features, data['data_samples'], rescale=False)
    for of_input in found:
        of_input.bboxes = enclosing(typed(of_input.bboxes))
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; then each module has its mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        # Not by train(), which would undo what the user has frozen.
        for module, training in modes:
            module.training = training
