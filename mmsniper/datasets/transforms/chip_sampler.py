"""The transform that cuts a chip out of its image."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type

from mmsniper.chips import POSITIVE, AnnotationTable, PositiveChipPlanner, ScalePyramid
from mmsniper.chips.windows import CHIP_SLACK, chip_window
from mmsniper.datasets.chip_dataset import Chip
from mmsniper.datasets.transforms.instances import clip_to_image, is_object, keep_instances
from mmsniper.utils.box_types import box_areas, enclosing, is_rotated, outlines, visible_shares
from mmsniper.utils.image_header import turned_by_exif

# Covers are kept for images with so many boxes: those of fewer are found in milliseconds, which
# decoding hides.
_MIN_KEPT = 100
# Boxes of all images whose covers a transform, in each worker, keeps: up to 80 bytes each (a box in
# the table, and a chip at each of three levels), 40 MB.
_MAX_KEPT = 500_000


@TRANSFORMS.register_module()
class ChipSampler(BaseTransform):
    """Cut a chip out of the image and resize it to its level (SNIPER section 3).

    Takes the chip that ``ChipDataset`` attached. Without one (a stock data set and sampler) it
    plans the image's positive chips and draws one; covers of images with many boxes are kept, in
    each worker, as long as their boxes do not change. Only the chip's own source region is resized,
    never the image. Where the image is smaller than a chip, the chip is smaller, too; the data
    preprocessor pads the batch.

    Boxes are cropped to the chip, and masks with them. A box that the chip cuts to less than
    ``min_visible_size`` is dropped. A box that lies whole in the chip stays, however small, unless
    it is no object at all: NaN, or less than one original pixel wide or high within the image.
    Rotated boxes (``RotatedBoxes``, ``QuadriBoxes``) are judged by the upright boxes that enclose
    them, and stay as they are: what is left of one that is cut would be no rectangle. How much of
    it is seen is noted.

    Comes before every transform that moves pixels (``RandomFlip``, ``RandomCrop``, ...). What
    changes the scale or mixes images (``Resize``, ``RandomAffine``, ``Mosaic``, ...) must not
    follow. ``ChipDataset`` refuses it. Where a chip is drawn here, an error is raised when
    ``scale_factor`` is overwritten; mixing by ``MultiImageMixDataset`` is not noticed.

    Required Keys:

    - img
    - ori_shape
    - chip (Chip) (optional)
    - height, width (of the annotations) (optional)
    - gt_bboxes (BaseBoxes[torch.float32] or np.float32) (optional)
    - gt_bboxes_labels (np.int64) (optional)
    - gt_ignore_flags (bool) (optional)
    - gt_masks (BitmapMasks | PolygonMasks) (optional)
    - gt_seg_map (np.uint8) (optional)

    Modified Keys:

    - img
    - img_shape
    - gt_bboxes
    - gt_bboxes_labels
    - gt_ignore_flags
    - gt_masks
    - gt_seg_map

    Added Keys:

    - chip (Chip)
    - level (int): the chip's
    - scale_factor (tuple[float, float]): chip pixels per original pixel, in x and in y
    - keep_ratio (bool)
    - homography_matrix (np.float32): original to chip pixels
    - gt_full_bboxes (np.float32): the uncropped boxes, clipped to the image, original pixels; of
      rotated ones what encloses them
    - gt_sizes (np.float64): of rotated boxes, their sizes, original pixels
    - gt_visible (np.float32): of rotated boxes, the share of the area that the chip shows
    - uncut_objects (np.float32): the uncropped boxes that are objects, no ignore regions, for the
      metainfo, original pixels; of rotated ones their corners (n, 8). Whatever follows leaves them
      as they are

    Args:
        pyramid (dict): The scale pyramid.
        min_visible_size (float): The least width and height, in chip pixels, of what is left of a
            box that the chip cuts. Defaults to 10, as in the authors' release.
        interpolation (str): As in ``mmcv.imresize``. Defaults to 'bilinear'.
    """

    def __init__(
        self,
        pyramid: ScalePyramid | Mapping[str, Any],
        min_visible_size: float = 10.0,
        interpolation: str = 'bilinear',
    ) -> None:
        self.pyramid = ScalePyramid.from_config(pyramid)
        self.min_visible_size = min_visible_size
        self.interpolation = interpolation
        self._planners = _Planners()

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Cut out the chip.

        Raises:
            ValueError: If the image has another size than its annotations say, an earlier
                transform moved its pixels, or the chip was planned with another pyramid.
        """
        height, width = results['img'].shape[:2]
        _check_image(results, width, height)
        planned = results.get('chip') is not None
        if not planned:
            results['chip'] = _draw_chip(results, self.pyramid, width, height, self._planners)
        chip: Chip = results['chip']
        _check_chip(chip, self.pyramid, width, height)
        window, size = chip_window(chip.box, chip.level, self.pyramid, width, height)
        results['level'] = chip.level
        self._crop_image(results, window, size)
        self._crop_boxes(results, window)
        return results if planned else _ScaleKept(results)

    def _crop_image(
        self, results: dict, window: tuple[int, int, int, int], size: tuple[int, int]
    ) -> None:
        (x1, y1, x2, y2), (w, h), img = window, size, results['img']
        if hasattr(img, 'read'):  # by windows of its file, see ImageWindows
            crop = img.read(window, (w, h), self.interpolation)
        else:
            crop = mmcv.imresize(img[y1:y2, x1:x2], (w, h), interpolation=self.interpolation)
        results['img'] = crop.reshape(h, w, *img.shape[2:])
        results['img_shape'] = (h, w)
        if results.get('gt_seg_map') is not None:
            results['gt_seg_map'] = mmcv.imresize(
                results['gt_seg_map'][y1:y2, x1:x2], (w, h), interpolation='nearest'
            )
        sx, sy = w / (x2 - x1), h / (y2 - y1)
        results['scale_factor'] = (sx, sy)
        results['keep_ratio'] = True
        results['homography_matrix'] = np.array(
            [[sx, 0, -sx * x1], [0, sy, -sy * y1], [0, 0, 1]], np.float32
        )

    def _crop_boxes(self, results: dict, window: tuple[int, int, int, int]) -> None:
        if 'gt_bboxes' not in results:
            return
        h, w = results['img_shape']
        scale = np.tile(results['scale_factor'], 2)
        boxes = results['gt_bboxes']
        full = clip_to_image(enclosing(boxes).numpy(), results['ori_shape'])
        moved = (full.astype(np.float64) - np.tile(window[:2], 2)) * scale
        cropped = np.clip(moved, 0, [w, h, w, h])
        cut = (np.abs(cropped - moved) > CHIP_SLACK * scale).any(axis=1)
        sides = cropped[:, 2:] - cropped[:, :2]
        least = np.where(cut, self.min_visible_size, 0.0)[:, None]
        keep = is_object(full) & ((sides > 0) & (sides >= least)).all(axis=1)
        keep_instances(results, keep)
        boxes = results['gt_bboxes']
        results['gt_full_bboxes'] = uncut = full[keep]
        if is_rotated(boxes):
            uncut = outlines(boxes)
            results['gt_sizes'] = box_areas(boxes).sqrt().numpy()
            boxes = results['gt_bboxes'] = boxes.clone()  # it would be moved in place
            boxes.translate_((-window[0], -window[1]))
            boxes.rescale_(results['scale_factor'])
            results['gt_visible'] = visible_shares(boxes, w, h).numpy()
        else:
            boxes.tensor = boxes.tensor.new_tensor(cropped[keep])
        regions = np.asarray(results.get('gt_ignore_flags', np.zeros(keep.sum())), bool)
        results['uncut_objects'] = uncut[~regions]
        if results.get('gt_masks') is not None:
            results['gt_masks'] = results['gt_masks'].crop(np.array(window)).resize((h, w))

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(pyramid={self.pyramid}, '
            f'min_visible_size={self.min_visible_size}, interpolation={self.interpolation!r})'
        )


class _ScaleKept(dict):
    """Results in which nothing may overwrite ``scale_factor``, as ``Resize`` would.

    ``ChipDataset`` checks this for itself. With a stock data set nothing else would: by default
    ``PackDetInputs`` packs only the overwritten ``scale_factor``, which tells a wrong level. A
    transform in between that makes a dict of its own ends this.
    """

    def __setitem__(self, key: str, value: Any) -> None:
        if key == 'scale_factor' and not np.array_equal(value, self.get(key, value)):
            raise ValueError(
                f'a transform after ChipSampler changes the scale of the chip (scale_factor from '
                f'{self[key]} to {value}), which must be that of its level: drop the transform '
                f'that raised this, such as Resize'
            )
        super().__setitem__(key, value)


class _Planners:
    """Planners of the images seen last, with the covers that they have found.

    An image is known by what its cover depends on, its size, boxes and ignore flags, and not by its
    file: a transform that comes before may change them. What is drawn is no part of a cover.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[ScalePyramid, bytes], PositiveChipPlanner] = OrderedDict()
        self._boxes = 0

    def get(self, table: AnnotationTable, pyramid: ScalePyramid) -> PositiveChipPlanner:
        """The planner of a table of one image."""
        count = len(table.boxes)
        if not _MIN_KEPT <= count <= _MAX_KEPT:
            return PositiveChipPlanner(table, pyramid)
        content = (table.width, table.height, table.boxes, table.ignore, table.corners)
        parts = (array.tobytes() for array in content if array is not None)
        digest = hashlib.blake2b(b''.join(parts), digest_size=16)
        key = pyramid, digest.digest()
        planner = self._kept.pop(key, None)
        if planner is None:
            planner = PositiveChipPlanner(table, pyramid)
            self._boxes += count
        self._kept[key] = planner
        while self._boxes > _MAX_KEPT:
            self._boxes -= len(self._kept.popitem(last=False)[1].table.boxes)
        return planner


def _draw_chip(
    results: Mapping[str, Any], pyramid: ScalePyramid, width: int, height: int, planners: _Planners
) -> Chip:
    """Plan the positive chips of one image and draw one of them, by ``numpy.random``.

    An image without a valid box gives a window at a random place of a random level.
    """
    boxes = np.zeros((0, 4), np.float32)
    if 'gt_bboxes' in results:
        boxes = outlines(results['gt_bboxes'])
    ignore = results.get('gt_ignore_flags', np.zeros(len(boxes), bool))
    table = AnnotationTable.from_images([(width, height, boxes, ignore)])
    planner = planners.get(table, pyramid)
    planner.seed = int(np.random.randint(2**31))
    plan = planner.plan()
    if len(plan):
        i = int(np.random.randint(len(plan)))
        return Chip(int(plan.level[i]), tuple(plan.box[i].tolist()), POSITIVE)
    level = int(np.random.randint(pyramid.num_levels))
    side = pyramid.chip_size / pyramid.scales(width, height)[level]
    x = np.random.uniform(0, max(width - side, 0))
    y = np.random.uniform(0, max(height - side, 0))
    return Chip(level, (x, y, min(x + side, width), min(y + side, height)), POSITIVE)


def _check_image(results: Mapping[str, Any], width: int, height: int) -> None:
    if 'homography_matrix' in results or results['img'].shape[:2] != tuple(results['ori_shape']):
        raise ValueError(
            'the image was flipped, resized or cropped before ChipSampler, whose chips are windows '
            'of the original image: put ChipSampler right after LoadAnnotations'
        )
    said = (results.get('width', width), results.get('height', height))
    if said != (width, height):
        path = results.get('img_path')
        stored = turned_by_exif(path) if path and said == (height, width) else None
        turned, load = '', ''
        if stored == said:
            turned = ' (turned by its EXIF data)'
            load = (
                ', or if the boxes belong to the unturned image load it with '
                "LoadImageFromFile(color_type='color_ignore_orientation')"
            )
        elif stored == (width, height):
            turned = ' (without the turn in its EXIF data)'
            load = (
                ', or if the boxes belong to the turned image load it with '
                "LoadImageFromFile(color_type='color')"
            )
        raise ValueError(
            f'{path} is {width}x{height} px{turned}, but its annotations say {said[0]}x{said[1]}: '
            f'boxes and chips would be misplaced. Correct width and height in the annotation file '
            f'(and the boxes, if they were drawn on the other size){load}'
        )


def _check_chip(chip: Chip, pyramid: ScalePyramid, width: int, height: int) -> None:
    """A chip's window must be what its level shows in a chip."""
    scale = dict(enumerate(pyramid.scales(width, height))).get(chip.level, math.nan)
    x1, y1, x2, y2 = chip.box
    sides = np.array([x2 - x1, y2 - y1]) * scale
    wanted = np.minimum(np.array([width, height]) * scale, pyramid.chip_size)
    if not (np.abs(sides - wanted) <= 2 * CHIP_SLACK * scale).all():
        raise ValueError(
            f'the {chip} does not belong to the pyramid of ChipSampler (chip size '
            f'{pyramid.chip_size}, {pyramid.num_levels} levels): give ChipAwareSampler and all '
            f'transforms the same pyramid'
        )
