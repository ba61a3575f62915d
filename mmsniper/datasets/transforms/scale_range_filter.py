"""The transform that decides which boxes count at an input's scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes, autocast_box_type
from numpy.typing import NDArray

from mmsniper.chips import ScalePyramid
from mmsniper.chips.input_level import levels_of_input
from mmsniper.datasets.transforms.instances import clip_to_image, is_object, keep_instances
from mmsniper.utils.box_types import box_areas, enclosing, is_rotated

# Label of an ignored box that is no object to learn at another scale but a region to leave alone.
IGNORE_REGION = -1


@TRANSFORMS.register_module()
class ScaleRangeFilter(BaseTransform):
    """Mark the boxes that are not valid at the input's level as ignored (SNIP section 5).

    A box is valid if its full size, sqrt(area) in original pixels, is in the level's valid range
    and at least ``min_visible`` of its area is visible; of a rotated box its own area. The others,
    the *invalid* ones, are kept as ignored instances with their labels, because they take part in
    label assignment (``ValidRangeAssigner``, ``SNIPERRoIHead``). Boxes that were ignored before,
    crowd and difficult ones, get the label -1, by which they are told from invalid ones.

    The level is that of ``ChipSampler`` or, on whole images, ``LevelResize`` (SNIP). Without either
    it is the level nearest to the image's scale factor: plain multi-scale training with ranges. Of
    whole images, boxes that are no objects are dropped, as ``ChipSampler`` drops them.

    Required Keys:

    - gt_bboxes (BaseBoxes[torch.float32] or np.float32)
    - gt_bboxes_labels (np.int64)
    - gt_ignore_flags (bool)
    - ori_shape
    - scale_factor (without: 1)
    - level, homography_matrix (optional)
    - chip, gt_full_bboxes, of rotated boxes gt_sizes, gt_visible (after ChipSampler)
    - gt_masks (BitmapMasks | PolygonMasks) (optional)

    Modified Keys:

    - gt_bboxes
    - gt_bboxes_labels
    - gt_ignore_flags
    - gt_masks

    Args:
        pyramid (dict): The scale pyramid.
        min_visible (float): The least visible fraction of a valid box's area. Defaults to 0.5.
    """

    def __init__(self, pyramid: ScalePyramid | Mapping[str, Any], min_visible: float = 0.5) -> None:
        if not 0 <= min_visible <= 1:
            raise ValueError(f'min_visible is a fraction from 0 to 1, got {min_visible!r}')
        self.pyramid = ScalePyramid.from_config(pyramid)
        self.min_visible = min_visible

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Mark invalid boxes.

        Raises:
            KeyError: If boxes, labels or ignore flags have not been loaded.
            ValueError: If a chip was planned but not cut out, boxes were added or dropped since,
                or the input's scale was changed since.
        """
        for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags'):
            if key not in results:
                raise KeyError(
                    f'ScaleRangeFilter needs {key!r}: put it after LoadAnnotations(with_bbox=True)'
                )
        height, width = results['ori_shape']
        scale = np.array(results.get('scale_factor', (1.0, 1.0)), np.float64)
        seen = enclosing(results['gt_bboxes']).numpy() / np.tile(scale, 2)
        if results.get('chip') is None:
            seen = clip_to_image(seen, (height, width))
            objects = is_object(seen)
            keep_instances(results, objects)
            seen = full = seen[objects]
            sizes = _own_sizes(results['gt_bboxes'], scale)
        else:  # what is seen is relative to the chip's corner
            full, sizes = _full_boxes(results), results.get('gt_sizes')
        levels, _ = levels_of_input({'scale_factor': (1.0, 1.0), **results}, self.pyramid)
        valid, _ = self.pyramid.valid_and_fits(full, width, height, sizes)
        if 'gt_visible' in results:
            visible = results['gt_visible'] >= self.min_visible
        else:
            visible = _area(seen) >= self.min_visible * _area(full)
        ignored = np.asarray(results['gt_ignore_flags'], bool)
        labels = results['gt_bboxes_labels'].copy()
        labels[ignored] = IGNORE_REGION
        results['gt_bboxes_labels'] = labels
        results['gt_ignore_flags'] = ignored | ~(valid[:, list(levels)].any(axis=1) & visible)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(pyramid={self.pyramid}, min_visible={self.min_visible})'


def _full_boxes(results: Mapping[str, Any]) -> NDArray[np.float32]:
    full = results.get('gt_full_bboxes')
    if full is None:
        raise ValueError(
            'a chip was planned but nothing has cut it out: put ChipSampler before ScaleRangeFilter'
        )
    if len(full) != len(results['gt_bboxes']):
        raise ValueError(
            f'there were {len(full)} boxes when ChipSampler cut the chip, now there are '
            f'{len(results["gt_bboxes"])}: put ScaleRangeFilter right after ChipSampler, before '
            f'transforms that add or drop boxes'
        )
    return full


def _own_sizes(boxes: BaseBoxes, scale: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Sizes of rotated boxes, original pixels; None of upright ones."""
    return (box_areas(boxes).numpy() / scale.prod()) ** 0.5 if is_rotated(boxes) else None


def _area(boxes: NDArray) -> NDArray:
    return (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
