"""Rotated boxes have five numbers: four of them are not five boxes, but an error everywhere."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult, BboxOverlaps2D
from mmdet.structures.bbox import BaseBoxes

from mmsniper.chips import AnnotationTable, ScalePyramid, merge_rectangles
from mmsniper.chips.pyramid import box_sizes
from mmsniper.chips.windows import Window
from mmsniper.datasets import ChipSampler, ScaleRangeFilter
from mmsniper.datasets.chip_dataset import Chip
from mmsniper.models import LevelRange, focus_targets, ignore_near_invalid
from mmsniper.models.level_range import out_of_range
from mmsniper.models.views import uncut
from mmsniper.utils.box_types import box_areas

PYRAMID = ScalePyramid.from_config(
    dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
)
ROTATED = np.array([[30.0, 30.0, 10.0, 20.0, 0.5]] * 4)
BOXES = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
WINDOW = Window(0, 0, (0, 0, 64, 64), (0, 0, 64, 64), (64, 64))


class Rotated(BaseBoxes):
    """Boxes (cx, cy, w, h, angle), as MMRotate has them; nothing else is asked of them."""

    box_dim = 5


Rotated.__abstractmethods__ = frozenset()


def loaded():
    return dict(
        img=np.zeros((64, 64, 3), np.uint8),
        img_shape=(64, 64),
        ori_shape=(64, 64),
        gt_bboxes=Rotated(torch.tensor(ROTATED)),
        gt_bboxes_labels=np.zeros(4, int),
        gt_ignore_flags=np.zeros(4, bool),
    )


def near_invalid(priors, boxes):
    result = AssignResult(1, torch.zeros(len(priors), dtype=torch.long), None, None)
    ignore_near_invalid(result, priors, boxes, 0.3, BboxOverlaps2D())


def take_boxes():
    """What takes boxes, by name."""
    rotated, chip = torch.tensor(ROTATED), Chip(0, (0.0, 0.0, 64.0, 64.0), 1)
    return {
        'ScalePyramid.valid_and_fits': lambda: PYRAMID.valid_and_fits(ROTATED, 64, 64),
        'box_sizes': lambda: box_sizes(ROTATED),
        'AnnotationTable': lambda: AnnotationTable.from_images([(64, 64, ROTATED, None)]),
        'merge_rectangles': lambda: merge_rectangles(ROTATED, 8, 64, 64),
        'Window.owns': lambda: WINDOW.owns(rotated, 64, 64),
        'LevelRange.contains': lambda: LevelRange(((0, 9),)).contains(rotated),
        'out_of_range': lambda: out_of_range([LevelRange(((0, 9),))], [rotated]),
        'box_areas': lambda: box_areas(rotated[None]),
        'uncut': lambda: uncut(rotated, (0, 0, 64, 64), (64, 64), 1.0),
        'focus_targets': lambda: focus_targets(rotated, BOXES, (4, 4)),
        'focus_targets, regions': lambda: focus_targets(BOXES, rotated, (4, 4)),
        'ignore_near_invalid': lambda: near_invalid(BOXES, rotated),
        'ignore_near_invalid, priors': lambda: near_invalid(rotated, BOXES),
        'ChipSampler': lambda: ChipSampler(PYRAMID).transform(dict(loaded(), chip=chip)),
        'ScaleRangeFilter': lambda: ScaleRangeFilter(PYRAMID).transform(loaded()),
    }


@pytest.mark.parametrize('name', take_boxes())
def test_rotated_boxes_are_refused(name):
    with pytest.raises(
        ValueError, match=r'must have the shape \(n, 4\), xyxy, got \(.*5\); rotated boxes'
    ):
        take_boxes()[name]()


def test_no_boxes_are_boxes():
    assert PYRAMID.valid_and_fits([], 64, 64)[0].shape == (0, 1)
    assert len(AnnotationTable.from_images([(64, 64, [], None)]).boxes) == 0
    assert merge_rectangles([], 8, 64, 64).shape == (0, 4)
