"""Multi-scale inference: every level keeps the detections that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.level_range import LevelRange

# Sigma and least score of SNIPER's authors (paper, section 4; release).
MERGE_NMS = dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001)
"""How the detections of all levels are merged where a config does not say it."""


def keep_in_test_range(view: DetDataSample, pyramid: ScalePyramid) -> DetDataSample:
    """Drop the detections whose size is out of the test range of the view's level.

    Args:
        view (DetDataSample): Predictions on one level of the pyramid, flipped or not, with
            ``bboxes`` in original pixels. The metainfo tells the level
            (:func:`~mmsniper.chips.input_level.levels_of_input`). Left as it is.
        pyramid (ScalePyramid): The pyramid that the view was made with.

    Returns:
        DetDataSample: A copy of the view without those detections.
    """
    in_range = LevelRange.of_input(view.metainfo, pyramid, test=True).in_original_pixels()
    kept = view.new()
    kept.pred_instances = view.pred_instances[in_range.contains(view.pred_instances.bboxes)]
    return kept


@MODELS.register_module()
class SNIPERTTAModel(DetTTAModel):
    """Test-time model that runs every level of the pyramid (SNIPER section 4).

    Each level keeps the detections whose sqrt(area), in original pixels, is in its test range;
    ``tta_cfg`` says how levels and flips are merged, as in ``DetTTAModel``. The result is boxes: a
    mask head is taken off, as there is no merging of masks.

    Args:
        pyramid (ScalePyramid | dict): The config's pyramid.
        tta_cfg (dict): ``nms`` and ``max_per_img`` of the merge.
        view_test_cfg (dict | None): Merged into the detector's ``test_cfg`` while views are tested.
            The merge can only choose among what the views return, and a view's cap on detections
            counts those that its level then drops. Defaults to None, the detector's own.
        **kwargs: ``module``, the detector (filled in by ``tools/test.py --tta``), and
            ``data_preprocessor``, as in ``DetTTAModel``.

    Raises:
        ValueError: If ``tta_cfg`` lacks ``nms`` or ``max_per_img``, or ``view_test_cfg`` is given
            for a detector that is already built.

    Example:
        >>> tta_model = dict(
        ...     type='SNIPERTTAModel',
        ...     pyramid=pyramid,
        ...     tta_cfg=dict(
        ...         nms=dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001),
        ...         max_per_img=100),
        ...     view_test_cfg=dict(rcnn=dict(score_thr=0.01, nms=None, max_per_img=500)))
    """

    def __init__(
        self,
        pyramid: ScalePyramid | Mapping[str, Any],
        tta_cfg: Mapping[str, Any],
        module: Mapping[str, Any] | nn.Module,
        view_test_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(tta_cfg, Mapping) or not {'nms', 'max_per_img'} <= set(tta_cfg):
            raise ValueError(
                f'tta_cfg must say how detections are merged, such as '
                f'{dict(nms=MERGE_NMS, max_per_img=100)}; got {tta_cfg!r}'
            )
        if view_test_cfg:
            module = _with_test_cfg(module, view_test_cfg)
        # DetTTAModel reads attributes, which a plain dict does not have.
        merge = Config({'tta_cfg': tta_cfg}).tta_cfg
        super().__init__(tta_cfg=merge, module=module, **kwargs)
        detector = getattr(self.module, 'detector', self.module)  # in an AutoFocus
        roi_head = getattr(detector, 'roi_head', None)
        if getattr(roi_head, 'with_mask', False):
            roi_head.mask_head = None
        self.pyramid = ScalePyramid.from_config(pyramid)

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        """Merge the views of one image, of each what is in its level's range."""
        return super()._merge_single_sample(
            [keep_in_test_range(view, self.pyramid) for view in data_samples]
        )


def _with_test_cfg(
    module: Mapping[str, Any] | nn.Module, test_cfg: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The detector's config with ``test_cfg`` merged into its own."""
    if not isinstance(module, Mapping):
        raise ValueError(
            f'view_test_cfg needs the config of the detector, not the detector itself '
            f'({type(module).__name__}); set its test_cfg instead'
        )
    key = 'module.detector.test_cfg' if module['type'] == 'AutoFocus' else 'module.test_cfg'
    config = Config({'module': module})
    config.merge_from_dict({key: dict(test_cfg)})
    return config.module
