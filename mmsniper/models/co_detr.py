"""Co-DETR on chips: what an invalid object does to its queries, and to the heads that teach them.

Its heads are in MMDetection's ``projects/CO-DETR`` and in no package, so the versions here are
joined with them when they are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.models.layers import CdnQueryGenerator
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from mmengine.model import BaseModule
from torch import Tensor

from mmsniper.models.assigners import valid_part
from mmsniper.models.joined_classes import JoinedWithHead
from mmsniper.models.roi_heads import SNIPERRoIHead
from mmsniper.models.set_prediction_heads import SNIPERDINOHead

_LEAST_QUERIES = 9  # of an input, that stock makes of an auxiliary head's samples
_SAMPLED = 'sampled'  # among the losses, until they are complete


def project_class(head: str | type | None, default: str) -> type:
    """The class of one of Co-DETR's heads.

    Args:
        head (str | type | None): Its type.
        default (str): What it is if ``head`` is None.

    Raises:
        ValueError: If it is not registered.
    """
    head = head or default
    kind = MODELS.get(head) if isinstance(head, str) else head
    if kind is None:
        raise ValueError(
            f"{head} is not registered. It is in MMDetection's projects/CO-DETR, in no package: "
            f"copy that folder, name it in custom_imports = dict(imports=['projects.CO-DETR."
            f"codetr']), and run where it lies, with PYTHONPATH=. (docs/detectors.md)"
        )
    return kind


class _NoiseOfValid(CdnQueryGenerator):
    """A ``CdnQueryGenerator`` that makes noise of valid objects only."""

    def __call__(self, batch_data_samples: SampleList) -> tuple[Any, ...]:
        return super().__call__([valid_part(sample) for sample in batch_data_samples])


@MODELS.register_module()
class SNIPERCoDINOHead(JoinedWithHead, SNIPERDINOHead):
    """Co-DETR's ``CoDINOHead`` that ignores invalid objects, and denoises the valid ones.

    Queries learn as those of :class:`~mmsniper.models.SNIPERDINOHead`. The queries that the other
    heads teach are made of what these have sampled, without what they ignore. Where an input has
    too little background to fill them up, or there is no GPU, which stock needs for it, they are
    filled up with queries that have no weight (stock's ``use_zero_padding``).

    Args:
        head (str | type | None): Type of the head. Defaults to None, ``CoDINOHead``.
        **kwargs: As for the head.

    Raises:
        ValueError: If the head is not registered.
        TypeError: If the assigner in ``train_cfg`` is no ``IgnoreInvalidAssigner``.
    """

    transformer: BaseModule
    dn_generator: CdnQueryGenerator
    max_pos_coords: int
    use_zero_padding: bool

    @staticmethod
    def head_class(head: str | type | None) -> type:
        """The class of Co-DETR's query head."""
        return project_class(head, 'CoDINOHead')

    def init_denoising(self, dn_cfg: dict[str, Any]) -> None:
        """Initialize the generator of noise; ``dn_cfg`` gets what the head knows, as in stock."""
        super().init_denoising(dn_cfg)
        self.dn_generator = _NoiseOfValid(**dn_cfg)

    def init_weights(self) -> None:
        """Initialize the transformer, too, as the authors do.

        Stock leaves the embeddings of its levels as memory was, which may be NaN.
        """
        self.transformer.init_weights()
        super().init_weights()

    def loss(  # type: ignore[override]
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Losses and encoded features of ``CoDINOHead``; the samples are left as they are."""
        found: Any = super().loss(x, batch_data_samples=batch_data_samples)
        return found

    def get_aux_targets(
        self,
        pos_coords: tuple[Any, ...],
        img_metas: Sequence[Mapping[str, Any]],
        mlvl_feats: Sequence[Tensor],
        head_idx: int,
    ) -> tuple[Any, ...]:
        """The queries that another head teaches, and their targets.

        Args:
            pos_coords (tuple): What that head has sampled: of each input boxes (n, 4), labels (n,),
                of which -1 is ignored and ``num_classes`` background, and targets (n, 4).
            img_metas (Sequence[dict]): Metainfo of each input.
            mlvl_feats (Sequence[Tensor]): Encoded features.
            head_idx (int): Number of the head.

        Returns:
            tuple: As ``CoDINOHead``. Queries without weight see only themselves: in stock they see
            nothing, of which attention makes NaN.
        """
        labels = pos_coords[1]
        positive = max(int(((of >= 0) & (of < self.num_classes)).sum()) for of in labels)
        wanted = max(_LEAST_QUERIES, min(positive, self.max_pos_coords))
        enough = all(int((of >= 0).sum()) >= wanted for of in labels) and _on_gpu(labels[0])
        own, self.use_zero_padding = self.use_zero_padding, self.use_zero_padding or not enough
        try:
            *targets, masks = super().get_aux_targets(pos_coords, img_metas, mlvl_feats, head_idx)
        finally:
            self.use_zero_padding = own
        if masks is not None:
            masks.diagonal(dim1=-2, dim2=-1).fill_(False)
        return *targets, masks


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


@MODELS.register_module()
class SNIPERCoATSSHead(JoinedWithHead, ATSSHead):
    """Co-DETR's ``CoATSSHead`` whose ignored anchors teach no queries.

    Which anchors are ignored is up to its assigner, an ``IgnoreInvalidAssigner``.

    Args:
        head (str | type | None): Type of the head. Defaults to None, ``CoATSSHead``.
        **kwargs: As for the head.

    Raises:
        ValueError: If the head is not registered.
    """

    @staticmethod
    def head_class(head: str | type | None) -> type:
        """The class of Co-DETR's ATSS head."""
        return project_class(head, 'CoATSSHead')

    def get_targets(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Targets of all inputs; in those for the queries ignored anchors have the label -1."""
        *targets, anchors, labels, boxes = super().get_targets(*args, **kwargs)
        weights = torch.cat(targets[2], dim=1)  # of each level (inputs, anchors)
        labels = [torch.where(w > 0, of, -1) for w, of in zip(weights, labels)]
        return *targets, anchors, labels, boxes


@MODELS.register_module()
class SNIPERCoRoIHead(SNIPERRoIHead):
    """Co-DETR's ``CoStandardRoIHead`` with SNIPER's rules, see :class:`SNIPERRoIMixin`.

    All proposals that are sampled teach queries. (Stock takes as many of each input as the input
    with the fewest has. On images all have the same number, but chips may have few in range.)

    Args:
        head (str | type | None): Type of the head. Defaults to None, ``CoStandardRoIHead``.
        pyramid (ScalePyramid | dict): The config's pyramid.
        **kwargs: As for the head.

    Raises:
        ValueError: If the head is not registered, or samples no proposals.
    """

    @staticmethod
    def head_class(head: str | type | None) -> type:
        """The class of Co-DETR's RoI head."""
        return SNIPERRoIHead.head_class(project_class(head, 'CoStandardRoIHead'))

    def loss(
        self, x: tuple[Tensor, ...], rpn_results_list: InstanceList, batch_data_samples: SampleList
    ) -> dict[str, Any]:
        """Losses of the head on the proposals in range, and ``pos_coords``, what was sampled."""
        losses = super().loss(x, rpn_results_list, batch_data_samples)
        losses['pos_coords'] = losses.pop(_SAMPLED)
        return losses

    def bbox_loss(
        self, x: tuple[Tensor, ...], sampling_results: Sequence[SamplingResult]
    ) -> dict[str, Any]:
        """As the head's, with what was sampled among the losses."""
        results = super().bbox_loss(x, sampling_results)
        if 'bbox_targets' not in results:  # there were no proposals
            none, channels = x[0].new_zeros(0), x[0].shape[1]
            boxes = none.reshape(0, 4)
            results['bbox_targets'] = none.long(), none, boxes, boxes
            results['bbox_feats'] = none.reshape(0, channels, 1, 1)
        labels, _, targets, _ = results['bbox_targets']
        parts = labels, targets, results['bbox_feats'].mean(dim=(-2, -1))
        priors = [of_input.priors for of_input in sampling_results]
        counts = list(map(len, priors))
        of_inputs = (part.split(counts) for part in parts)
        results['loss_bbox'] = {**results['loss_bbox'], _SAMPLED: (priors, *of_inputs, 'rcnn')}
        return results
