"""Rotated boxes as they are planned, cut out of images and judged."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes

from mmsniper.chips import AnnotationTable, PositiveChipPlanner, ScalePyramid, plan_statistics
from mmsniper.chips.rotated_boxes import enclosing_boxes, rectangle_sides, smallest_rectangles
from mmsniper.datasets import ChipSampler, ScaleRangeFilter
from mmsniper.datasets.chip_dataset import Chip
from mmsniper.utils.box_types import box_areas, enclosing, typed, visible_shares

PYRAMID = dict(
    chip_size=100,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 30)),
        dict(resize=dict(factor=0.5), valid_range=(20, None)),
    ],
)
SIDE = 400


def rotated(*boxes):
    return RotatedBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5))


def corners(*boxes):
    return rotated(*boxes).convert_to('qbox').tensor.numpy()


def corner_sizes(quads):
    return np.sqrt(rectangle_sides(smallest_rectangles(quads)).prod(axis=1))


def results(boxes, chip=None, labels=None):
    number = len(boxes)
    found = dict(
        img=np.zeros((SIDE, SIDE, 3), np.uint8),
        ori_shape=(SIDE, SIDE),
        img_shape=(SIDE, SIDE),
        gt_bboxes=boxes,
        gt_bboxes_labels=np.arange(number) if labels is None else labels,
        gt_ignore_flags=np.zeros(number, bool),
    )
    return found if chip is None else {**found, 'chip': chip}


def cut(boxes, level, x, y, side):
    """What ChipSampler and ScaleRangeFilter make of boxes in a chip."""
    chip = Chip(level, (float(x), float(y), float(x + side), float(y + side)), 0)
    found = ChipSampler(PYRAMID).transform(results(boxes, chip))
    return ScaleRangeFilter(PYRAMID).transform(found)


@given(
    st.lists(
        st.tuples(
            st.floats(50, 300), st.floats(50, 300), st.floats(2, 90), st.floats(2, 90),
            st.floats(-math.pi, math.pi),
        ),
        min_size=1,
        max_size=8,
    )
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_sizes_and_enclosing_boxes_of_corners_are_those_of_the_rotated_boxes(boxes):
    quads = corners(*boxes)
    np.testing.assert_allclose(
        corner_sizes(quads), [math.sqrt(w * h) for _, _, w, h, _ in boxes], rtol=1e-3
    )
    np.testing.assert_allclose(
        enclosing_boxes(quads), enclosing(rotated(*boxes)).numpy(), atol=1e-3
    )


@given(st.lists(st.tuples(*[st.floats(0, 100)] * 8), min_size=1, max_size=8))
@settings(deadline=None, max_examples=50)
def test_the_size_of_any_four_points_is_that_of_the_smallest_rectangle_around_them(quads):
    quads = np.array(quads, np.float32)
    smallest = [cv2.minAreaRect(quad.reshape(4, 2))[1] for quad in quads]
    ours = corner_sizes(quads) ** 2
    theirs = np.array([w * h for w, h in smallest])
    # OpenCV's is never smaller, but for rounding, and larger where points coincide.
    assert (ours <= theirs * (1 + 1e-4) + 0.1).all()


def test_a_plan_goes_by_what_encloses_a_box_and_by_its_own_size():
    # 80 long and 8 wide, size 25.3, at 45 degrees: it is enclosed by 62x62 px, size 62.
    turned = corners((200, 200, 80, 8, math.pi / 4))
    table = AnnotationTable.from_images([(SIDE, SIDE, turned, None)])
    assert table.sizes_of(slice(None)) == pytest.approx([math.sqrt(640)], rel=1e-4)
    planner = PositiveChipPlanner(table, ScalePyramid.from_config(PYRAMID))
    plan = planner.plan(0)
    assert plan.level.tolist() == [0, 1]
    around = enclosing_boxes(turned)[0]
    assert (plan.box[:, :2] <= around[:2] + 0.01).all()
    assert (plan.box[:, 2:] >= around[2:] - 0.01).all()
    stats = plan_statistics(table, planner.pyramid, plan)
    assert (stats.orphans, stats.too_small, stats.too_large) == (0, [0, 0], [0, 0])


def test_upright_and_rotated_boxes_share_a_table():
    upright = np.array([[0.0, 0, 10, 40]])
    images = [(SIDE, SIDE, upright, None), (SIDE, SIDE, [], None)]
    images.append((SIDE, SIDE, corners((200, 200, 80, 8, 1.0)), None))
    table = AnnotationTable.from_images(images)
    expected = [20.0, math.sqrt(640)]
    assert table.sizes_of(slice(None)) == pytest.approx(expected, rel=1e-4)
    joined = AnnotationTable.joined(
        [AnnotationTable.from_images(images[:1]), AnnotationTable.from_images(images[2:])]
    )
    assert joined.sizes_of(np.array([1, 0])) == pytest.approx(expected[::-1], rel=1e-4)
    assert AnnotationTable.from_images(images[:2]).corners is None


def test_a_chip_moves_and_scales_a_rotated_box():
    found = cut(rotated((210, 190, 60, 20, 0.5)), 1, 100, 100, 200)
    expected = [[55, 45, 30, 10, 0.5]]
    np.testing.assert_allclose(found['gt_bboxes'].tensor.numpy(), expected, atol=1e-4)
    assert isinstance(found['gt_bboxes'], RotatedBoxes)
    assert found['gt_visible'] == pytest.approx([1.0], abs=1e-4)
    assert found['gt_ignore_flags'].tolist() == [False]


def test_loaded_boxes_stay_where_they_are():
    boxes = rotated((210, 190, 60, 20, 0.5))
    before = boxes.tensor.clone()
    cut(boxes, 1, 100, 100, 200)
    assert torch.equal(boxes.tensor, before)


def test_a_box_of_which_too_little_is_seen_is_invalid_and_of_which_nothing_is_left_out():
    # Chip from 100 to 200. Of the first 60% are seen, of the second 40%, of the third nothing.
    boxes = rotated((194, 150, 60, 12, 0), (206, 120, 60, 12, 0), (300, 180, 20, 12, 0.3))
    found = cut(boxes, 0, 100, 100, 100)
    assert found['gt_bboxes_labels'].tolist() == [0, 1]
    assert found['gt_visible'] == pytest.approx([0.6, 0.4], abs=1e-3)
    assert found['gt_ignore_flags'].tolist() == [False, True]
    assert len(found['gt_bboxes']) == 2
    assert found['uncut_objects'].shape == (2, 8)


def test_the_size_that_counts_is_that_of_the_box_and_not_of_what_encloses_it():
    boxes = rotated((150, 150, 80, 8, math.pi / 4), (150, 150, 62, 62, 0.0))
    found = cut(boxes, 0, 100, 100, 100)
    assert found['gt_ignore_flags'].tolist() == [False, True]
    assert found['gt_sizes'] == pytest.approx([math.sqrt(640), 62.0], rel=1e-4)


def test_four_corners_are_kept_as_such():
    boxes = QuadriBoxes(torch.from_numpy(corners((210, 190, 60, 20, 0.5))))
    found = cut(boxes, 1, 100, 100, 200)
    expected = corners((55, 45, 30, 10, 0.5))
    np.testing.assert_allclose(found['gt_bboxes'].tensor.numpy(), expected, atol=1e-3)


@given(
    st.lists(
        st.tuples(st.floats(1, 250), st.floats(1, 250), st.floats(2, 120), st.floats(2, 120)),
        max_size=6,
    ),
    st.integers(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_at_angle_zero_all_is_as_with_upright_boxes(boxes, level):
    upright = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32).reshape(-1, 4)
    turned = HorizontalBoxes(torch.from_numpy(upright)).convert_to('rbox')
    side = 100 * 2**level
    ours = cut(turned, level, 50, 50, side)
    theirs = cut(HorizontalBoxes(torch.from_numpy(upright)), level, 50, 50, side)
    assert ours['gt_bboxes_labels'].tolist() == theirs['gt_bboxes_labels'].tolist()
    # Half of a box may be seen to within rounding.
    sure = np.abs(ours.get('gt_visible', np.zeros(0)) - 0.5) > 1e-3
    assert (ours['gt_ignore_flags'] == theirs['gt_ignore_flags'])[sure].all()
    table = AnnotationTable.from_images([(SIDE, SIDE, turned.convert_to('qbox').numpy(), None)])
    same = AnnotationTable.from_images([(SIDE, SIDE, upright, None)])
    pyramid = ScalePyramid.from_config(PYRAMID)
    plans = [PositiveChipPlanner(one, pyramid).plan(0) for one in (table, same)]
    assert plans[0].level.tolist() == plans[1].level.tolist()


def test_a_stock_data_set_draws_chips_around_rotated_boxes():
    np.random.seed(0)
    sampler = ChipSampler(PYRAMID)
    for _ in range(5):
        found = sampler.transform(results(rotated((200, 200, 40, 10, 0.7))))
        assert found['gt_visible'] == pytest.approx([1.0], abs=1e-4)


def test_whole_images_are_judged_by_the_boxes_own_sizes():
    """SNIP: no chip was cut."""
    boxes = rotated((150, 150, 80, 8, math.pi / 4), (150, 150, 62, 62, 0.0))
    found = ScaleRangeFilter(PYRAMID).transform(results(boxes) | dict(scale_factor=(1.0, 1.0)))
    assert found['gt_ignore_flags'].tolist() == [False, True]


def test_areas_of_any_boxes():
    assert box_areas(rotated((5, 5, 4, 3, 1.0), (5, 5, -4, 3, 1.0))).tolist()[0] == 12.0
    assert math.isnan(box_areas(rotated((5, 5, -4, 3, 1.0)))[0])
    assert box_areas(torch.tensor([[0.0, 0, 4, 3]])).tolist() == [12.0]


def test_predictions_have_their_type_by_the_numbers_of_a_box():
    assert isinstance(typed(torch.zeros(2, 5)), RotatedBoxes)
    assert isinstance(typed(torch.zeros(2, 4)), HorizontalBoxes)
    with pytest.raises(ValueError, match=r'must have the shape \(n, 4\)'):
        typed(torch.zeros(2, 7))


@pytest.mark.parametrize('angle', [0.0, 0.4, math.pi / 2])
def test_the_visible_share_is_that_of_the_pixels(angle):
    box = (100.0, 60.0, 80.0, 30.0, angle)
    canvas = np.zeros((400, 400), np.uint8)
    points = corners((box[0] + 100, box[1] + 100, *box[2:])).reshape(4, 2)
    cv2.fillPoly(canvas, [points.round().astype(np.int32)], 1)
    share = canvas[100:200, 100:200].sum() / canvas.sum()
    assert visible_shares(rotated(box), 100, 100) == pytest.approx([share], abs=0.03)
