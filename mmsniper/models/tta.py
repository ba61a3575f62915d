"""MMDetection's ``--tta`` for a detector that is tested at every level anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import ConfigDict
from torch import nn

from mmsniper.models.pyramid_detector import PyramidDetector
from mmsniper.utils.box_types import is_rotated, typed


@MODELS.register_module()
class SNIPERTTAModel(DetTTAModel):
    """Test-time augmentation of a ``PyramidDetector``, which sees all levels of each view.

    A single view is tested as without augmentation, masks included. The levels of several, such as
    the image and its mirror image, are merged once, as the detector merges levels: boxes only,
    upright or rotated.

    Args:
        module (dict | nn.Module): The ``PyramidDetector``; filled in by ``tools/test.py --tta``.
        **kwargs: As for ``DetTTAModel``, but ``tta_cfg``, which is the detector's ``merge_cfg``.

    Raises:
        TypeError: If the module is another detector.

    Example:
        >>> tta_model = dict(type='SNIPERTTAModel')
    """

    def __init__(self, module: Mapping[str, Any] | nn.Module, **kwargs: Any) -> None:
        super().__init__(tta_cfg=ConfigDict(), module=module, **kwargs)
        if not isinstance(self.module, PyramidDetector):
            raise TypeError(
                f'SNIPERTTAModel is for a PyramidDetector, got {type(self.module).__name__}. Of '
                f'another detector all levels are seen with model = '
                f"dict(type='PyramidDetector', detector='{type(self.module).__name__}', ...)"
            )
        self.tta_cfg = self.module.merge_cfg

    def test_step(self, data: Mapping[str, Any]) -> SampleList:
        """Test the views of images.

        Args:
            data (dict): ``inputs`` and ``data_samples``, each a list of views, of each image one.

        Returns:
            SampleList: Merged predictions.
        """
        views = [dict(zip(data, view)) for view in zip(*data.values())]
        if len(views) == 1:
            return self.module.test_step(views[0])
        return self.merge_preds(list(zip(*map(self.module.unmerged_step, views))))

    def _merge_single_sample(self, data_samples: SampleList) -> DetDataSample:
        """Merge the views of an image; the stock method knows upright boxes."""
        found = [sample.pred_instances for sample in data_samples]
        boxes = [typed(of_view.bboxes).clone() for of_view in found]
        if not any(map(is_rotated, boxes)):
            return super()._merge_single_sample(data_samples)
        for sample, of_view, of_image in zip(data_samples, found, boxes):
            if sample.flip:
                of_image.flip_(sample.ori_shape, sample.flip_direction)
            of_view.bboxes = of_image
        merged, result = self.module.merge(found), data_samples[0]
        merged.bboxes = merged.bboxes.tensor
        result.pred_instances = merged
        return result
