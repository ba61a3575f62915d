"""Priors near invalid objects, or assigned to them alone, are ignored (spec section 5)."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.assigners import (
    AssignResult,
    ATSSAssigner,
    BboxOverlaps2D,
    HungarianAssigner,
    MaxIoUAssigner,
    TaskAlignedAssigner,
)
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmsniper.models import (
    IgnoreInvalidAssigner,
    ValidRangeAssigner,
    assigners,
    ignore_near_invalid,
    split_ignored,
)
from mmsniper.models.assigners import append_invalid, split_appended

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


@pytest.mark.parametrize('ignore_iof_thr', [-1, 0.5])
@pytest.mark.parametrize('max_pairs', [2**22, 300], ids=['at once', 'in two goes'])
def test_it_is_max_iou_assigner_and_then_the_rule(monkeypatch, ignore_iof_thr, max_pairs):
    """The IoUs with both kinds of objects are computed at once, and change nothing."""
    monkeypatch.setattr(assigners, '_MAX_PAIRS', max_pairs)
    rng = np.random.default_rng(3)
    for num_valid, num_invalid, num_regions in itertools.product((0, 1, 4), (0, 2), (0, 3)):
        given = priors(random_boxes(rng, 200))
        valid = objects(random_boxes(rng, num_valid), rng.integers(0, 3, num_valid).tolist())
        invalid, regions = (objects(random_boxes(rng, n)) for n in (num_invalid, num_regions))
        ignored = InstanceData(bboxes=torch.cat([invalid.bboxes, regions.bboxes]))
        ignored.labels = torch.tensor([2] * num_invalid + [-1] * num_regions).long()
        expected = MaxIoUAssigner(**RPN, ignore_iof_thr=ignore_iof_thr).assign(
            given, valid, regions
        )
        iou = BboxOverlaps2D()
        ignore_near_invalid(expected, given.priors, invalid.bboxes, 0.3, iou)
        found = ValidRangeAssigner(**RPN, ignore_iof_thr=ignore_iof_thr).assign(
            given, valid, ignored
        )
        assert found.num_gts == num_valid
        for name in ('gt_inds', 'labels', 'max_overlaps'):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_the_overlaps_are_computed_once():
    calls = []

    def iou(*args, **kwargs):
        calls.append(len(args[0]))
        return BboxOverlaps2D()(*args, **kwargs)

    assigner = ValidRangeAssigner(**RPN)
    assigner.iou_calculator = iou
    assigner.assign(priors([FAR, strip(0.9)]), objects([FAR], [0]), objects([INVALID], [1]))
    assert calls == [2]


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

    def near_invalid(max_pairs):
        result = AssignResult(1, torch.ones(20, dtype=torch.long), torch.ones(20), None)
        ignore_near_invalid(result, priors, invalid, 0.3, iou, max_pairs)
        return result.gt_inds == -1

    near = near_invalid(max_pairs=100)
    assert near.tolist() == (BboxOverlaps2D()(invalid, priors) > 0.3).any(dim=0).tolist()
    assert 0 < near.sum() < 20
    assert max(held) <= 100
    # A single box at a time, where even its pairs are too many.
    assert near_invalid(max_pairs=1).tolist() == near.tolist()


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


MAX_IOU = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.5)
# A query's cost is its centre's and size's distance from the box.
HUNGARIAN = dict(
    type='HungarianAssigner', match_costs=[dict(type='BBoxL1Cost', weight=1.0, box_format='xywh')]
)
SHAPE = {'img_shape': (1000, 1000)}


def wrap(config, **kwargs):
    return TASK_UTILS.build({'type': 'IgnoreInvalidAssigner', 'assigner': config, **kwargs})


def priors(boxes):
    return InstanceData(priors=torch.tensor(boxes).reshape(-1, 4).float())


def test_what_the_invalid_object_alone_would_have_is_ignored():
    # IoU with the invalid box: positive, undecided (0.4 to 0.5), background.
    given = priors([strip(0.6), strip(0.45), strip(0.3), FAR])
    result = wrap(MAX_IOU).assign(given, objects([FAR], [1]), objects([INVALID], [2]))
    assert result.gt_inds.tolist() == [-1, -1, 0, 1]
    assert result.labels.tolist() == [-1, -1, -1, 1]


def test_a_prior_of_a_valid_object_stays_with_it():
    given = priors([strip(0.6), FAR])
    result = wrap(MAX_IOU).assign(
        given, objects([FAR, strip(0.6)], [1, 3]), objects([INVALID], [2])
    )
    assert result.gt_inds.tolist() == [2, 1]
    assert result.labels.tolist() == [3, 1]


def test_regions_are_the_wrapped_assigners_and_not_invalid():
    config = {**MAX_IOU, 'ignore_iof_thr': 0.5}
    given = priors([[40.0, 40.0, 50.0, 50.0], strip(0.9)])
    region, invalid = (objects([INVALID], [label]) for label in (-1, 2))
    gt = objects([FAR], [1])
    assert wrap(config).assign(given, gt, region).gt_inds.tolist() == [-1, -1]
    assert wrap(MAX_IOU).assign(given, gt, region).gt_inds.tolist() == [0, 0]
    assert wrap(config).assign(given, gt, invalid).gt_inds.tolist() == [0, -1]


def test_invalid_objects_may_come_behind_the_valid_ones():
    valid, invalid = objects([FAR], [1]), objects([INVALID], [2])
    joined = append_invalid(valid, invalid)
    assert [len(part) for part in split_appended(joined)] == [1, 1]
    assert split_appended(valid) == (valid, None)
    given = priors([strip(0.6), FAR])
    assert wrap(MAX_IOU).assign(given, joined).gt_inds.tolist() == [-1, 1]
    assert wrap(MAX_IOU).assign(given, append_invalid(valid, None)).gt_inds.tolist() == [0, 1]


def random_boxes(rng, number, sides=(20, 120)):
    corner, side = rng.uniform(0, 200, (number, 2)), rng.uniform(*sides, (number, 2))
    return np.concatenate([corner, corner + side], axis=1).tolist()


class TestAnySignature:
    """Each assigner is called as its head calls it; the rule is checked against the rule's text."""

    @staticmethod
    def check(config, pred, call, labels=3):
        """``call(assign, pred, gt, ignored)`` calls as the head does."""
        rng = np.random.default_rng(4)
        valid, invalid = (
            objects(random_boxes(rng, 3), rng.integers(0, labels, 3).tolist()) for _ in range(2)
        )
        stock = TASK_UTILS.build(config).assign
        alone, of_invalid = call(stock, pred, valid, None), call(stock, pred, invalid, None)
        result = call(wrap(config).assign, pred, valid, invalid)
        ignored = (alone.gt_inds == 0) & (of_invalid.gt_inds != 0)
        assert 0 < ignored.sum() < len(ignored) - (alone.gt_inds > 0).sum()
        assert (result.gt_inds[ignored] == -1).all()
        assert torch.equal(result.gt_inds[~ignored], alone.gt_inds[~ignored])
        assert torch.equal(result.labels, alone.labels)
        return alone, result

    @staticmethod
    def predictions(number=400):
        rng = np.random.default_rng(3)
        boxes = torch.tensor(random_boxes(rng, number)).float()
        torch.manual_seed(0)
        return InstanceData(
            priors=boxes, bboxes=boxes + torch.rand(number, 4), scores=torch.rand(number, 3)
        )

    @pytest.mark.parametrize('by_name', [False, True])
    def test_atss(self, by_name):
        def call(assign, pred, gt, ignored):
            pred = InstanceData(priors=pred.priors)
            if by_name:
                return assign(pred, [300, 100], gt_instances=gt, gt_instances_ignore=ignored)
            return assign(pred, [300, 100], gt, ignored)

        self.check(dict(type='ATSSAssigner', topk=9), self.predictions(), call)

    def test_task_aligned(self):
        def call(assign, pred, gt, ignored):
            return assign(pred, gt, ignored, 1, beta=6)

        alone, result = self.check(
            dict(type='TaskAlignedAssigner', topk=13), self.predictions(), call
        )
        assert torch.equal(result.assign_metrics, alone.assign_metrics)

    def test_dynamic_soft_label(self):
        pred = self.predictions()
        centres = (pred.priors[:, :2] + pred.priors[:, 2:]) / 2
        pred.priors = torch.cat([centres, torch.full_like(centres, 8)], dim=1)

        def call(assign, pred, gt, ignored):
            return assign(pred, gt, ignored)

        self.check(dict(type='DynamicSoftLabelAssigner', topk=13), pred, call)


class TestOneToOne:
    @staticmethod
    def queries(boxes):
        return InstanceData(bboxes=torch.tensor(boxes).float(), scores=torch.zeros(len(boxes), 3))

    def test_an_invalid_object_is_matched_with_what_the_valid_ones_left_over(self):
        # The first query is the best of both objects, and the second is near.
        queries = self.queries([[10, 10, 50, 50], [14, 14, 54, 54], FAR])
        valid = objects([[10.0, 10.0, 50.0, 50.0]], [1])
        invalid = objects([[11.0, 11.0, 51.0, 51.0]], [2])
        joined = append_invalid(valid, invalid)
        result = wrap(HUNGARIAN).assign(pred_instances=queries, gt_instances=joined, img_meta=SHAPE)
        assert result.gt_inds.tolist() == [1, -1, 0]
        assert result.labels.tolist() == [1, -1, -1]
        swallowed = wrap(HUNGARIAN, one_to_one=False).assign(queries, joined, SHAPE)
        assert swallowed.gt_inds.tolist() == [1, 0, 0]

    def test_as_many_are_ignored_as_there_are_invalid_objects_or_queries_left(self):
        queries = self.queries([[10, 10, 50, 50], [14, 14, 54, 54], FAR])
        valid = objects([FAR], [1])
        for number, expected in ((0, 0), (1, 1), (2, 2), (5, 2)):
            invalid = objects([INVALID] * number, [0] * number)
            result = wrap(HUNGARIAN).assign(queries, append_invalid(valid, invalid), SHAPE)
            assert result.gt_inds[2] == 1
            assert (result.gt_inds == -1).sum() == expected

    def test_ignored_instances_may_be_given_to_an_assigner_that_does_not_know_them(self):
        queries = self.queries([[10, 10, 50, 50], FAR])
        invalid = objects([[10.0, 10.0, 50.0, 50.0]], [0])
        result = wrap(HUNGARIAN).assign(
            queries, objects([FAR], [1]), img_meta=SHAPE, gt_instances_ignore=invalid
        )
        assert result.gt_inds.tolist() == [-1, 1]

    def test_every_query_taken_leaves_none_to_ignore(self):
        queries = self.queries([FAR])
        joined = append_invalid(objects([FAR], [1]), objects([INVALID], [0]))
        assert wrap(HUNGARIAN).assign(queries, joined, SHAPE).gt_inds.tolist() == [1]


def test_the_wrapped_assigners_attributes_are_reachable():
    wrapped = wrap(dict(type='ATSSAssigner', topk=7))
    assert wrapped.topk == 7
    assert isinstance(wrapped.assigner, ATSSAssigner)
    assert not wrapped.one_to_one
    assert wrap(HUNGARIAN).one_to_one
    with pytest.raises(AttributeError, match='bottomk'):
        wrapped.bottomk  # noqa: B018
    for twin in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert twin.topk == 7


def test_an_assigner_object_may_be_wrapped():
    assigner = TaskAlignedAssigner(topk=3)
    assert IgnoreInvalidAssigner(assigner).assigner is assigner
    assert isinstance(wrap(HUNGARIAN).assigner, HungarianAssigner)


def test_an_assigner_of_another_signature_is_refused():
    with pytest.raises(TypeError, match=r'TopkHungarianAssigner.*gt_instances.*pred_instances'):
        wrap(dict(type='TopkHungarianAssigner', topk=4))
