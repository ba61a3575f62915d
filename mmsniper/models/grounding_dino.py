"""Grounding DINO, fine-tuned on chips: what an invalid object does to its losses."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import GroundingDINOHead
from mmdet.models.detectors import GroundingDINO
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor

from mmsniper.models.assigners import valid_part, with_appended_invalid
from mmsniper.models.set_prediction_heads import SNIPERDINOHead


@MODELS.register_module()
class SNIPERGroundingDINOHead(SNIPERDINOHead, GroundingDINOHead):
    """``GroundingDINOHead`` that ignores invalid objects, and denoises the valid ones.

    It needs the detector :class:`SNIPERGroundingDINO`.

    Args:
        *args, **kwargs: As for ``GroundingDINOHead``; see
            :class:`~mmsniper.models.SNIPERSetPredictionMixin`.
    """


@MODELS.register_module()
class SNIPERGroundingDINO(GroundingDINO):
    """``GroundingDINO`` that finds the words of invalid objects, too, for its head to match them.

    The text is the names of the classes (``return_classes=True`` of the data set), which a chip has
    as well as its image. Denoising is about the valid objects only. Testing is ``GroundingDINO``'s.

    Its arguments are those of ``GroundingDINO``.
    """

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of ``GroundingDINO``; arguments as there. The samples are left as they are."""
        samples = [with_appended_invalid(sample) for sample in batch_data_samples]
        return super().loss(batch_inputs, samples)

    def pre_decoder(
        self, *args: Any, batch_data_samples: OptSampleList = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What goes into decoder and head, as of ``GroundingDINO``; noise is of valid objects."""
        if self.training and batch_data_samples is not None:
            batch_data_samples = [valid_part(sample) for sample in batch_data_samples]
        return super().pre_decoder(*args, batch_data_samples=batch_data_samples, **kwargs)
