"""Anchors near invalid objects are ignored (spec section 5, RPN)."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmsniper.models import ValidRangeAssigner
from mmsniper.models.assigners import near_any, split_ignored

RPN = {'pos_iou_thr': 0.7, 'neg_iou_thr': 0.3, 'min_pos_iou': 0.3}
INVALID = [0.0, 0.0, 100.0, 100.0]
FAR = [500.0, 500.0, 540.0, 540.0]


def strip(fraction):
    """A prior whose IoU with INVALID is ``fraction``."""
    return [0.0, 0.0, 100.0 * fraction, 100.0]


def objects(boxes, labels=None):
    data = InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4).float())
    if labels is not None:
        data.labels = torch.tensor(labels, dtype=torch.long)
    return data


def assign(priors, gt, gt_labels, ignored, ignored_labels, **kwargs):
    assigner = TASK_UTILS.build({'type': 'ValidRangeAssigner', **RPN, **kwargs})
    priors = InstanceData(priors=torch.tensor(priors).reshape(-1, 4).float())
    return assigner.assign(priors, objects(gt, gt_labels), objects(ignored, ignored_labels))


def test_an_invalid_box_ignores_an_anchor_at_iou_031_and_not_at_029():
    result = assign([strip(0.31), strip(0.29)], [FAR], [0], [INVALID], [2])
    assert result.gt_inds.tolist() == [-1, 0]
    assert result.labels.tolist() == [-1, -1]


def test_without_any_valid_object_too():
    result = assign([strip(0.31), strip(0.29)], [], [], [INVALID], [2])
    assert result.gt_inds.tolist() == [-1, 0]


def test_an_anchor_that_is_positive_for_a_valid_box_is_ignored_too():
    result = assign([strip(0.31), FAR], [strip(0.31), FAR], [1, 0], [INVALID], [2])
    assert result.gt_inds.tolist() == [-1, 2]
    assert result.labels.tolist() == [-1, 0]


def test_the_threshold_itself_is_not_exceeded():
    result = assign([strip(0.5), strip(0.51)], [FAR], [0], [INVALID], [2], ignore_iou_thr=0.5)
    assert result.gt_inds.tolist() == [0, -1]


def test_any_of_several_invalid_boxes_suffices():
    result = assign([strip(0.5), FAR], [], [], [FAR, INVALID], [0, 1])
    assert result.gt_inds.tolist() == [-1, -1]


def test_a_small_anchor_inside_a_large_invalid_box_is_background():
    # Its intersection over the anchor, the measure of ignore_iof_thr, is 1.
    result = assign([[40.0, 40.0, 50.0, 50.0]], [FAR], [0], [INVALID], [2], ignore_iof_thr=0.5)
    assert result.gt_inds.tolist() == [0]


def test_crowd_is_treated_by_iof_and_not_by_iou():
    # IoF 1 and IoU 0.01; IoF 0.25 and IoU 0.2.
    inside, half_out = [40.0, 40.0, 50.0, 50.0], [75.0, 0.0, 175.0, 100.0]
    crowd = assign([inside, half_out], [FAR], [0], [INVALID], [-1], ignore_iof_thr=0.5)
    assert crowd.gt_inds.tolist() == [-1, 0]
    stock_default = assign([strip(0.9)], [FAR], [0], [INVALID], [-1])
    assert stock_default.gt_inds.tolist() == [0]


@pytest.mark.parametrize('labels', [True, False], ids=['labels of -1', 'no labels'])
@pytest.mark.parametrize('ignore_iof_thr', [-1, 0.5])
def test_ignore_regions_are_treated_as_by_max_iou_assigner(labels, ignore_iof_thr):
    rng = np.random.default_rng(0)

    def boxes(n):
        corner, side = rng.uniform(0, 80, (n, 2)), rng.uniform(5, 60, (n, 2))
        return np.concatenate([corner, corner + side], axis=1).tolist()

    priors, gt, regions = boxes(300), boxes(5), boxes(4)
    mine = assign(
        priors, gt, [0] * 5, regions, [-1] * 4 if labels else None, ignore_iof_thr=ignore_iof_thr
    )
    stock = MaxIoUAssigner(**RPN, ignore_iof_thr=ignore_iof_thr).assign(
        InstanceData(priors=torch.tensor(priors).float()), objects(gt, [0] * 5), objects(regions)
    )
    assert mine.gt_inds.tolist() == stock.gt_inds.tolist()
    assert mine.max_overlaps.tolist() == stock.max_overlaps.tolist()
    if ignore_iof_thr > 0:
        assert (stock.gt_inds == -1).sum() > 20


def test_nothing_ignored_and_nothing_given():
    priors = InstanceData(priors=torch.tensor([FAR, strip(0.9)]))
    for ignored in (None, objects([], []), objects([])):
        result = ValidRangeAssigner(**RPN).assign(priors, objects([FAR], [1]), ignored)
        assert result.gt_inds.tolist() == [1, 0]
    assert assign([], [FAR], [0], [INVALID], [1]).gt_inds.tolist() == []


def test_box_types_are_as_good_as_tensors():
    invalid = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([INVALID])), labels=torch.tensor([2])
    )
    priors = InstanceData(priors=HorizontalBoxes(torch.tensor([strip(0.31), strip(0.29)])))
    gt = InstanceData(bboxes=HorizontalBoxes(torch.tensor([FAR])), labels=torch.tensor([0]))
    assert ValidRangeAssigner(**RPN).assign(priors, gt, invalid).gt_inds.tolist() == [-1, 0]


def test_mixed_precision_leaves_the_threshold_sharp():
    with torch.autocast('cpu', torch.bfloat16):
        result = assign([strip(0.301), strip(0.299)], [FAR], [0], [INVALID], [2])
    assert result.gt_inds.tolist() == [-1, 0]


def test_moving_many_objects_to_the_cpu_is_left_to_max_iou_assigner():
    result = assign([strip(0.31)], [FAR] * 3, [0] * 3, [INVALID], [2], gpu_assign_thr=2)
    assert result.gt_inds.tolist() == [-1]


def test_memory_is_bounded_however_many_boxes_there_are():
    rng = np.random.default_rng(1)
    corner = torch.tensor(rng.uniform(0, 90, (57, 2)))
    boxes = torch.cat([corner, corner + torch.tensor(rng.uniform(1, 40, (57, 2)))], dim=1)
    priors, invalid = boxes[:20], boxes[20:]
    held = []

    def iou(a, b):
        held.append(len(a) * len(b))
        return BboxOverlaps2D()(a, b)

    near = near_any(priors, invalid, 0.3, iou, max_pairs=100)
    assert near.tolist() == (BboxOverlaps2D()(invalid, priors) > 0.3).any(dim=0).tolist()
    assert 0 < near.sum() < 20
    assert max(held) <= 100
    # A single box at a time, where even its pairs are too many.
    assert near_any(priors, invalid, 0.3, iou, max_pairs=1).tolist() == near.tolist()


def test_split_tells_regions_from_objects_and_leaves_the_input_alone():
    ignored = objects([INVALID, FAR, strip(0.5)], [2, -1, 0])
    regions, invalid = split_ignored(ignored)
    assert regions.bboxes.tolist() == [FAR]
    assert invalid.labels.tolist() == [2, 0]
    assert len(ignored) == 3
    assert split_ignored(None) == (None, None)


@pytest.mark.parametrize('value', [-0.1, 1.5, float('nan')])
def test_a_threshold_that_is_no_iou_is_refused(value):
    with pytest.raises(ValueError, match=r'ignore_iou_thr.*\[0, 1\]'):
        ValidRangeAssigner(**RPN, ignore_iou_thr=value)
