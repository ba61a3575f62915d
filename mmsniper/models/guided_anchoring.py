"""Guided Anchoring: where anchors are, and of what shape, is learned as well."""

from __future__ import annotations

import inspect
from typing import Any

from mmdet.models.dense_heads import GARetinaHead, GARPNHead, GuidedAnchorHead
from mmdet.registry import MODELS
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmsniper.models.assigners import split_ignored


class SNIPERGuidedAnchorMixin(GuidedAnchorHead):
    """Ignores in the map of places what an invalid object alone would have made of it.

    Of the places that are background for the valid objects, those within an invalid object's
    centre, or within what Guided Anchoring itself ignores around it, have no weight. Which anchors
    are ignored, and which shapes learned, is up to the assigners (``ValidRangeAssigner``,
    ``IgnoreInvalidAssigner``).

    In testing the places of the first input of a batch are taken for all: use
    ``batch_pixels=1`` in the ``PyramidDetector``, as the fragment does.
    """

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the head's; the invalid objects are kept for the map of places."""
        given = inspect.signature(super().loss_by_feat).bind(*args, **kwargs).arguments
        ignored = given.get('batch_gt_instances_ignore') or [None] * len(
            given['batch_gt_instances']
        )
        self._invalid = [split_ignored(of_input)[1] for of_input in ignored]
        try:
            return super().loss_by_feat(*args, **kwargs)
        finally:
            del self._invalid

    def ga_loc_targets(
        self, batch_gt_instances: InstanceList, featmap_sizes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor], float]:
        """Targets and weights of the places, each (N, 1, H, W), and what losses are divided by."""
        targets, weights, factor = super().ga_loc_targets(batch_gt_instances, featmap_sizes)
        invalid = [
            InstanceData(bboxes=valid.bboxes[:0]) if found is None else found
            for valid, found in zip(batch_gt_instances, self._invalid)
        ]
        if any(map(len, invalid)):
            alone = super().ga_loc_targets(invalid, featmap_sizes)[1]
            nothing = super().ga_loc_targets([one[:0] for one in invalid], featmap_sizes)[1]
            for target, weight, of_invalid, of_none in zip(targets, weights, alone, nothing):
                weight[(target == 0) & (of_invalid != of_none)] = 0
        return targets, weights, factor


@MODELS.register_module()
class SNIPERGARPNHead(SNIPERGuidedAnchorMixin, GARPNHead):
    """``GARPNHead`` with SNIPER's rules, see :class:`SNIPERGuidedAnchorMixin`."""


@MODELS.register_module()
class SNIPERGARetinaHead(SNIPERGuidedAnchorMixin, GARetinaHead):
    """``GARetinaHead`` with SNIPER's rules, see :class:`SNIPERGuidedAnchorMixin`."""
