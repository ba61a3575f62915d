"""Rotated boxes in assignment, RoI heads, dense heads and merging."""

import math

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, box_iou_rotated
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import RotatedBoxes

from mmsniper.convert.model import MMROTATES_ASSIGNERS, MMROTATES_HEADS, POINTS_HEADS
from mmsniper.models import LevelRange
from mmsniper.models.assigners import ValidRangeAssigner
from mmsniper.models.focus_head import focus_targets, uncut_objects
from mmsniper.models.level_range import out_of_range
from mmsniper.models.nms import MERGE_NMS, best_first
from mmsniper.models.roi_heads import InRangeSampler


def rotated(*boxes):
    return RotatedBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5))


def objects(boxes, labels=None):
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels)
    return InstanceData(bboxes=boxes, labels=labels)


THIN = (50, 50, 80, 8, math.pi / 4)
"""Of size 25.3, enclosed by a box of size 62."""


def test_a_rotated_box_is_in_range_by_its_own_size():
    boxes = rotated(THIN, (50, 50, 62, 62, 0))
    small, large = LevelRange(((0.0, 30.0),)), LevelRange(((30.0, 90.0),), 1.0)
    assert small.contains(boxes).tolist() == [True, False]
    outside = out_of_range([small, large], [boxes, HorizontalBoxes(torch.tensor([[0.0, 0, 9, 9]]))])
    assert [one.tolist() for one in outside] == [[False, True], [True]]


@pytest.mark.parametrize('calculator', ['RBboxOverlaps2D', 'RBbox2HBboxOverlaps2D'])
def test_anchors_near_an_invalid_rotated_object_are_ignored(calculator):
    if calculator == 'RBboxOverlaps2D':
        priors = rotated(THIN, (50, 50, 80, 8, -math.pi / 4), (150, 50, 20, 20, 0))
        ignored = [True, False, False]  # crossed, they share a tenth
    else:
        priors = HorizontalBoxes(
            torch.tensor([[19.0, 19, 81, 81], [19, 19, 50, 50], [99, 0, 150, 9]])
        )
        ignored = [True, False, False]
    assigner = ValidRangeAssigner(
        pos_iou_thr=0.5, neg_iou_thr=0.4, ignore_iou_thr=0.3, ignore_iof_thr=-1,
        iou_calculator=dict(type=f'mmrotate.{calculator}'),
    )  # fmt: skip
    valid = objects(rotated((150, 50, 20, 20, 0)))
    result = assigner.assign(InstanceData(priors=priors), valid, objects(rotated(THIN), [1]))
    assert (result.gt_inds == -1).tolist() == ignored
    alone = assigner.assign(InstanceData(priors=priors), valid)
    kept = ~torch.tensor(ignored)
    assert torch.equal(result.gt_inds[kept], alone.gt_inds[kept])


def test_upright_proposals_on_a_valid_rotated_object_are_kept_though_they_are_larger():
    gt = objects(rotated(THIN))
    gt.set_field(LevelRange(((0.0, 30.0),)), 'level_range', field_type='metainfo')
    gt.set_field(1, 'num_valid', field_type='metainfo')
    around = HorizontalBoxes(torch.tensor([[19.0, 19, 81, 81], [100.0, 19, 162, 81]]))
    proposals = InstanceData(priors=around)
    assign = TASK_UTILS.build(
        dict(
            type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False,
            iou_calculator=dict(type='mmrotate.RBbox2HBboxOverlaps2D'),
        )
    ).assign(proposals, gt)  # fmt: skip
    sampler = InRangeSampler(RandomSampler(8, 0.5, add_gt_as_proposals=False))
    found = sampler.sample(assign, proposals, gt)
    assert found.pos_inds.tolist() == [0]
    assert found.neg_inds.tolist() == []  # of a size that is out of range, and on nothing


def detections(number, seed=0, angle=math.pi):
    rng = np.random.default_rng(seed)
    boxes = np.stack(
        [
            *rng.uniform(0, 120, (2, number)),
            *rng.uniform(10, 60, (2, number)),
            rng.uniform(-angle, angle, number) if angle else np.zeros(number),
        ],
        axis=1,
    )
    return InstanceData(
        bboxes=rotated(*boxes.tolist()),
        scores=torch.from_numpy(rng.uniform(0.01, 1, number).astype(np.float32)),
        labels=torch.from_numpy(rng.integers(0, 3, number)),
    )


def test_soft_nms_of_rotated_boxes_is_that_of_upright_ones_at_angle_zero():
    found = detections(60, angle=0)
    ours = best_first(found, MERGE_NMS)
    upright = found.bboxes.convert_to('hbox').tensor
    boxes, order = batched_nms(upright, found.scores, found.labels, MERGE_NMS)
    assert len(ours) == len(order) > 20
    torch.testing.assert_close(ours.scores, boxes[:, 4], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.bboxes.convert_to('hbox').tensor, boxes[:, :4])


@pytest.mark.parametrize('method', ['gaussian', 'linear', 'naive'])
def test_soft_nms_of_rotated_boxes_is_what_brute_force_gives(method):
    found = detections(40, seed=1)
    nms = dict(type='soft_nms', method=method, sigma=0.5, iou_threshold=0.2, min_score=0.05)
    iou = box_iou_rotated(found.bboxes.tensor, found.bboxes.tensor).numpy()
    scores, left = found.scores.double().numpy().copy(), set(range(40))
    kept = []
    while left:
        best = max(left, key=lambda i: scores[i])
        if scores[best] <= 0.05:
            break
        left.remove(best)
        kept.append(best)
        for i in left:
            if found.labels[i] == found.labels[best]:
                v = iou[best, i]
                factor = math.exp(-v * v / 0.5)
                if method == 'linear':
                    factor = 1 - v if v >= 0.2 else 1
                elif method == 'naive':
                    factor = 0 if v >= 0.2 else 1
                scores[i] *= factor
    ours = best_first(found, nms)
    np.testing.assert_allclose(ours.scores.numpy(), scores[kept], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.bboxes.tensor, found.bboxes.tensor[kept])


def test_nms_of_rotated_boxes_is_mmcvs():
    found = detections(40, seed=2)
    ours = best_first(found, dict(type='nms', iou_threshold=0.1))
    nms = dict(type='nms_rotated', iou_threshold=0.1)
    boxes, _ = batched_nms(found.bboxes.tensor, found.scores, found.labels, nms)
    torch.testing.assert_close(ours.bboxes.tensor, boxes[:, :5])
    assert len(best_first(found, None)) == 40


def test_focus_pixels_go_by_a_rotated_objects_own_size():
    # 62 px wide and high to look at, but of size 25; a square of size 62 is don't-care.
    targets = focus_targets(rotated(THIN), torch.zeros(0, 4), (8, 8), 16, (5, 40), 90)
    assert (targets == 1).sum() == 25
    square = focus_targets(rotated((50, 50, 62, 62, 0)), torch.zeros(0, 4), (8, 8), 16, (5, 40), 90)
    assert (square == -1).sum() == 25


def test_uncut_rotated_objects_are_where_the_chip_shows_them():
    matrix = np.array([[0.5, 0, -10], [0, 0.5, -10], [0, 0, 1]], np.float32)
    whole = rotated((100, 80, 40, 10, 0.3)).convert_to('qbox').numpy()
    boxes = uncut_objects(dict(uncut_objects=whole, homography_matrix=matrix)).convert_to('rbox')
    assert boxes.tensor[0, :2].tolist() == pytest.approx([40, 30], abs=1e-3)
    assert boxes.areas.tolist() == pytest.approx([100.0], rel=1e-3)


FCOS = dict(
    type='mmrotate.RotatedFCOSHead', num_classes=3, in_channels=4, feat_channels=4, stacked_convs=1,
    strides=[8, 16], regress_ranges=((-1, 64), (64, 1e8)), center_sampling=True,
    loss_bbox=dict(type='mmrotate.GDLoss_v1', loss_type='kld', fun='log1p', tau=1),
    norm_cfg=None, scale_angle=True,
    bbox_coder=dict(type='mmrotate.DistanceAnglePointCoder', angle_version='le90'),
)  # fmt: skip


def fcos_sample(valid, invalid):
    data = DetDataSample(metainfo=dict(img_shape=(64, 64), batch_input_shape=(64, 64)))
    data.gt_instances, data.ignored_instances = objects(valid), objects(invalid)
    return data


def score_gradient(head, feats, data):
    """Of the loss with respect to the scores of each point, coarse map last."""
    scores, boxes, angles, centerness = head(feats)
    for one in scores:
        one.retain_grad()
    losses = head.loss_by_feat(
        scores, boxes, angles, centerness, [data.gt_instances], [data.metainfo], None
    )
    losses['loss_cls'].backward()
    return [one.grad.abs().sum(dim=1)[0] for one in scores]


@pytest.mark.parametrize('has_valid', [False, True])
def test_points_of_an_invalid_rotated_object_learn_nothing_in_fcos(has_valid):
    from mmsniper.models.assigners import with_appended_invalid

    torch.manual_seed(0)
    stock = MODELS.build(FCOS)
    ours = MODELS.build({**FCOS, 'type': 'mmdet.SNIPERPointsHead', 'head': FCOS['type']})
    ours.load_state_dict(stock.state_dict())
    feats = [torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)]
    valid = rotated((44, 44, 20, 12, 0.5)) if has_valid else rotated()
    invalid = rotated((16, 16, 24, 12, -0.5))
    targets = stock.get_targets(
        stock.prior_generator.grid_priors([(8, 8), (4, 4)], device='cpu'), [objects(invalid)]
    )[0]
    of_invalid = [(labels != 3).view(side, side) for labels, side in zip(targets, (8, 4))]
    assert sum(one.sum() for one in of_invalid) > 0
    data = with_appended_invalid(fcos_sample(valid, invalid))
    found = score_gradient(ours, feats, data)
    alone = score_gradient(stock, feats, fcos_sample(valid, rotated()))
    for gradient, expected, ignored in zip(found, alone, of_invalid):
        assert (gradient[ignored] == 0).all()
        torch.testing.assert_close(gradient[~ignored], expected[~ignored])


def test_all_that_is_named_of_mmrotate_exists():
    for name in MMROTATES_HEADS | POINTS_HEADS:
        assert MODELS.get(f'mmrotate.{name}')
    for name in MMROTATES_ASSIGNERS:
        assert TASK_UTILS.get(f'mmrotate.{name}')
