"""Other test settings for a detector, for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.config import ConfigDict
from torch import nn


@contextmanager
def view_settings(detector: nn.Module, changes: Mapping[str, Any] | None) -> Iterator[None]:
    """Test a one-stage or two-stage detector without its mask head and with changed settings.

    ``changes`` are merged into its ``test_cfg``, for a two-stage detector its ``rpn`` and ``rcnn``.
    """
    changes = changes or {}
    roi_head = getattr(detector, 'roi_head', None)
    with ExitStack() as stack:
        if roi_head is None:
            stack.enter_context(_test_cfg(detector.bbox_head, changes))
        else:
            stack.enter_context(_test_cfg(roi_head, changes.get('rcnn')))
            if getattr(roi_head, 'mask_head', None) is not None:
                stack.callback(setattr, roi_head, 'mask_head', roi_head.mask_head)
                roi_head.mask_head = None
        if 'rpn' in changes:
            stack.enter_context(_test_cfg(detector.rpn_head, changes['rpn']))
        yield


@contextmanager
def fewer_proposals(detector: nn.Module, share: float, min_proposals: int | None) -> Iterator[None]:
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
def _test_cfg(head: nn.Module, changes: Mapping[str, Any] | None) -> Iterator[None]:
    own = head.test_cfg
    head.test_cfg = ConfigDict({**(own or {}), **(changes or {})})
    try:
        yield
    finally:
        head.test_cfg = own
