"""FocusPixels: their targets, their loss, where they attach."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmdet.datasets.transforms import PackDetInputs, RandomFlip
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmsniper.datasets import Chip, ChipSampler, ScaleRangeFilter
from mmsniper.models import FocusHead, PyramidFocusHead, focus_targets
from mmsniper.models.focus_head import uncut_objects


def boxes(*rows):
    return torch.tensor(rows).reshape(-1, 4).float()


def square(x, y, side):
    return [x, y, x + side, y + side]


def targets(objects, regions=(), shape=(4, 4)):
    return focus_targets(boxes(*objects), boxes(*regions), shape).tolist()


def sample(valid, ignored=(), labels=None):
    data = DetDataSample()
    data.gt_instances = InstanceData(bboxes=boxes(*valid), labels=torch.zeros(len(valid)).long())
    data.ignored_instances = InstanceData(bboxes=boxes(*ignored))
    if labels is not None:
        data.ignored_instances.labels = torch.tensor(labels)
    return data


# Targets -----------------------------------------------------------------------------------------


def test_cells_that_overlap_a_small_object_are_positive():
    """20 px from (10, 20): columns 0 and 1, rows 1 and 2."""
    assert targets([square(10, 20, 20)]) == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0] * 4]


def test_cells_that_an_object_only_touches_are_not():
    assert targets([square(16, 16, 16)]) == [[0] * 4, [0, 1, 0, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize(
    ('side', 'expected'),
    [(5, -1), (5.01, 1), (63.9, 1), (64, -1), (89.9, -1), (90, 0), (300, 0), (1, -1)],
)
def test_sizes(side, expected):
    assert targets([square(0, 0, side)], shape=(1, 1)) == [[expected]]


def test_the_size_is_that_of_the_area():
    assert targets([[0, 0, 160, 20]], shape=(1, 1)) == [[1]]  # sqrt(3200) = 56.6


def test_a_positive_wins_over_a_dont_care():
    assert targets([square(0, 0, 80), square(0, 0, 10)], shape=(1, 2)) == [[1, -1]]


def test_regions_are_dont_care():
    assert targets([], [[0, 0, 30, 10]], shape=(1, 3)) == [[-1, -1, 0]]
    assert targets([square(0, 0, 10)], [[0, 0, 30, 10]], shape=(1, 3)) == [[1, -1, 0]]


def test_no_objects():
    assert targets([]) == [[0] * 4] * 4


BOX = st.tuples(st.floats(-20, 70), st.floats(-20, 70), st.floats(0, 100), st.floats(0, 100))


@given(st.lists(BOX, max_size=6), st.lists(BOX, max_size=2))
@settings(max_examples=150, deadline=None)
def test_targets_are_those_of_the_definition(objects, regions):
    objects, regions = ([[x, y, x + w, y + h] for x, y, w, h in b] for b in (objects, regions))
    found = targets(objects, regions)
    # In single precision, as the targets are.
    objects, regions = boxes(*objects).tolist(), boxes(*regions).tolist()
    for row in range(4):
        for column in range(4):

            def overlaps(box, row=row, column=column):
                x1, y1, x2, y2 = box
                return (
                    x1 < column * 16 + 16
                    and x2 > column * 16
                    and y1 < row * 16 + 16
                    and y2 > row * 16
                )

            sizes = [
                float((boxes(b)[:, 2:] - boxes(b)[:, :2]).prod().sqrt())
                for b in objects
                if overlaps(b)
            ]
            expected = 0
            if any(map(overlaps, regions)) or any(s <= 5 or 64 <= s < 90 for s in sizes):
                expected = -1
            if any(5 < s < 64 for s in sizes):
                expected = 1
            assert found[row][column] == expected


# The head ----------------------------------------------------------------------------------------


@pytest.fixture
def head():
    torch.manual_seed(0)
    return FocusHead(in_channels=4, feat_channels=8)


def pyramid_features(size=64, strides=(4, 8, 16, 32)):
    return [torch.randn(2, 4, size // s, size // s) for s in strides]


def test_it_uses_the_map_of_its_stride_wherever_that_is(head):
    feats = pyramid_features()
    assert head.select(feats, (64, 64)) is feats[2]
    assert head.select(feats[2:], (64, 64)) is feats[2]
    assert head.predict(feats, (64, 64), 1).shape == (2, 4, 4)


def test_a_detector_without_that_stride_is_refused(head):
    with pytest.raises(ValueError, match=r'stride 16, the detector gives it strides \[4, 8\]'):
        head.select(pyramid_features(strides=(4, 8)), (64, 64))


def test_probabilities_are_of_the_positive_class(head):
    with torch.no_grad():
        head.cls.weight.zero_()
        head.cls.bias.copy_(torch.tensor([0.0, math.log(3.0)]))
    assert torch.allclose(head.predict(pyramid_features(), (64, 64), 1), torch.tensor(0.75))


def test_invalid_objects_are_objects_and_unlabelled_or_crowd_boxes_are_regions(head):
    """What is out of the level's range is what to look for at another level."""
    logits, look = torch.zeros(2, 1, 4), head.look_of({})
    valid, invalid, crowd = square(0, 0, 10), square(16, 0, 10), square(32, 0, 10)
    assert head.targets(sample([valid], [invalid, crowd], [3, -1]), look, logits).tolist() == [
        [1, 1, -1, 0]
    ]
    assert head.targets(sample([valid], [invalid]), look, logits).tolist() == [[1, -1, 0, 0]]


@pytest.mark.parametrize('shape', [(20, 33), (20, 33, 3)])
def test_cells_in_the_padding_are_dont_care(head, shape):
    """An image of 33x20 px in an input of 64x48: it ends in the third column and second row."""
    data = sample([square(0, 0, 10), square(30, 0, 30)])
    data.set_metainfo(dict(img_shape=shape))
    found = head.targets(data, head.look_of({}), torch.zeros(2, 3, 4)).tolist()
    assert found == [[1, 1, 1, -1], [0, 1, 1, -1], [-1] * 4]


def test_padding_has_no_part_in_the_loss(head):
    feats = [torch.randn(1, 4, 4, 4)]
    data = sample([square(0, 0, 10)])
    whole = head.loss(feats, (64, 64), [data])['loss_focus']
    data.set_metainfo(dict(img_shape=(64, 32)))
    loss = head.loss(feats, (64, 64), [data])['loss_focus']
    logits = head(feats[0])[0, 0].permute(1, 2, 0)[:, :2].reshape(-1, 2)
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, torch.tensor([1] + [0] * 7)).item()
    )
    assert loss != whole


# Sizes of whole objects ---------------------------------------------------------------------------

CHIPS = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 16)),
        dict(resize=dict(factor=1.0), valid_range=(12, None)),
    ],
)


def cut_out(boxes, regions=(), window=(0, 40, 40, 104, 104), flips=()):
    """The packed sample of a chip (level, x1, y1, x2, y2) of a 200x160 image."""
    level, *window = window
    every = np.array([*boxes, *regions], np.float32).reshape(-1, 4)
    pipeline = [
        ChipSampler(CHIPS),
        ScaleRangeFilter(CHIPS),
        *(RandomFlip(prob=1.0, direction=direction) for direction in flips),
        PackDetInputs(meta_keys=('img_shape', 'homography_matrix', 'uncut_objects')),
    ]
    results = dict(
        img=np.zeros((160, 200, 3), np.uint8),
        img_shape=(160, 200),
        ori_shape=(160, 200),
        chip=Chip(level, tuple(map(float, window)), 0),
        gt_bboxes=HorizontalBoxes(every),
        gt_bboxes_labels=np.arange(len(every)),
        gt_ignore_flags=np.arange(len(every)) >= len(boxes),
    )
    return Compose(pipeline)(results)['data_samples']


def targets_of(data, **kwargs):
    head = FocusHead(4, feat_channels=8, **kwargs)
    return head.targets(data, head.look_of({}), torch.zeros(2, 4, 4)).tolist()


def test_a_large_object_that_the_chip_cuts_counts_by_its_whole_size():
    """Of 84x120 px the chip shows 44x64 at factor 1, and of an object of 20 px all."""
    boxes = [[0, 0, 84, 120], square(80, 80, 20)]
    data = cut_out(boxes, window=(1, 40, 40, 104, 104))
    assert targets_of(data) == [[1, 1, 1, 0]] * 2 + [[1] * 4] * 2
    assert targets_of(data, uncut_sizes=True) == [[0] * 4] * 2 + [[0, 0, 1, 1]] * 2


def test_ignore_regions_stay_regions():
    data = cut_out([], [[0, 0, 56, 160]], window=(1, 40, 40, 104, 104))
    for uncut in (False, True):
        assert targets_of(data, uncut_sizes=uncut) == [[-1, 0, 0, 0]] * 4


SOME_BOXES = st.lists(
    st.tuples(st.floats(-20, 190), st.floats(-20, 150), st.floats(1, 150), st.floats(1, 150)),
    max_size=5,
)


@given(
    SOME_BOXES,
    st.sampled_from([0, 1]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(st.sampled_from(['horizontal', 'vertical', 'diagonal']), max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_uncut_objects_are_where_the_chip_shows_them_and_whole(boxes, level, x, y, flips):
    side = (32, 64)[level]
    x, y = x * (200 - side), y * (160 - side)
    boxes = [[x1, y1, x1 + w, y1 + h] for x1, y1, w, h in boxes]
    data = cut_out(boxes, window=(level, x, y, x + side, y + side), flips=flips)
    uncut = uncut_objects(data.metainfo).tensor
    parts = (data.gt_instances, data.ignored_instances)
    labels = torch.cat([part.labels for part in parts])
    shown = torch.cat([part.bboxes.tensor for part in parts])[labels.argsort()]
    height, width = data.img_shape
    edges = torch.tensor([width, height, width, height])
    torch.testing.assert_close(torch.minimum(uncut.clamp(min=0), edges), shown, atol=5e-3, rtol=0)
    # Of their size in the image, at the scale of the level but for the rounding of the window.
    whole = data.uncut_objects[:, 2:] - data.uncut_objects[:, :2]
    scale = ((uncut[:, 2:] - uncut[:, :2]) / torch.from_numpy(whole)).flatten()
    assert ((scale / (2, 1)[level] - 1).abs() < 0.1).all()


@pytest.mark.parametrize('window', [(0, 40, 40, 72, 72), (1, 40, 40, 104, 104)])
def test_without_a_cut_both_sizes_give_the_same(window):
    data = cut_out([square(45, 45, 12), square(60, 60, 7)], window=window, flips=['horizontal'])
    assert targets_of(data) == targets_of(data, uncut_sizes=True)


def test_uncut_sizes_without_uncut_objects_name_what_brings_them():
    with pytest.raises(ValueError, match=r"needs \['uncut_objects'.*ChipDataset packs"):
        targets_of(sample([square(0, 0, 10)]), uncut_sizes=True)


# The third level's range starts at 60 and the second's ends at 160 px of the image.
PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 60)),
        dict(resize=dict(factor=0.5), valid_range=(20, 160)),
        dict(resize=dict(factor=0.25), valid_range=(60, None)),
    ],
)


def sizes_of(head, side, factor, image=(640, 640)):
    data = sample([square(0, 0, side)])
    data.set_metainfo(dict(scale_factor=(factor, factor), ori_shape=image))
    look = head.look_of(data.metainfo)
    return head.targets(data, look, torch.zeros(2, 1, 1)).item()


@pytest.mark.parametrize(
    ('factor', 'side', 'expected'),
    [
        (0.25, 1, 1),
        (0.25, 14.9, 1),
        (0.25, 15, -1),
        (0.25, 39.9, -1),
        (0.25, 40, 0),
        (0.5, 1, 1),
        (0.5, 9.9, 1),
        (0.5, 10, -1),
        (0.5, 29.9, -1),
        (0.5, 30, 0),
        (1.0, 1, -1),
        (1.0, 50, -1),
        (1.0, 600, -1),
    ],
)  # nothing is finer than the finest level
def test_with_a_pyramid_each_level_has_its_own_sizes(factor, side, expected):
    assert sizes_of(PyramidFocusHead(4, PYRAMID), side, factor) == expected


def test_an_input_of_levels_that_coincide_looks_for_what_the_coarsest_of_them_lacks():
    long_side = dict(resize=dict(long_side=320), valid_range=(60, None))
    pyramid = dict(PYRAMID, levels=[*PYRAMID['levels'][:2], long_side])
    head = PyramidFocusHead(4, pyramid)
    assert sizes_of(head, 29, 0.5, image=(640, 640)) == 1  # 58 px, of levels 1 and 2
    assert sizes_of(head, 29, 0.5, image=(320, 1000)) == -1  # level 2 has another scale


def test_a_level_of_a_chip_must_be_known():
    with pytest.raises(ValueError, match='scale_factor'):
        PyramidFocusHead(4, PYRAMID).look_of({})


def test_each_level_but_the_finest_has_an_output_of_its_own():
    head = PyramidFocusHead(4, PYRAMID, feat_channels=8)
    with torch.no_grad():
        head.cls.weight.zero_()
        head.cls.bias.copy_(torch.tensor([0.0, 0.0, 0.0, math.log(3.0)]))
    found = [head.predict(pyramid_features(), (64, 64), level) for level in range(3)]
    assert [part.mean().item() for part in found] == pytest.approx([0.5, 0.5, 0.75])


def test_an_input_teaches_the_output_of_its_level():
    head = PyramidFocusHead(4, PYRAMID, feat_channels=8)
    for factor, taught in ((0.25, [False, True]), (0.5, [True, False]), (1.0, [False, False])):
        data = sample([square(0, 0, 10)])
        data.set_metainfo(dict(scale_factor=(factor, factor), ori_shape=(640, 640)))
        head.zero_grad()
        head.loss([feat[:1] for feat in pyramid_features()], (64, 64), [data])[
            'loss_focus'
        ].backward()
        assert [bool(part.any()) for part in head.cls.bias.grad.view(2, 2)] == taught


def test_of_levels_that_coincide_an_input_teaches_that_of_its_own():
    levels = [dict(resize=dict(factor=f), valid_range=(0, None)) for f in (1.0, 0.505, 0.5)]
    head = PyramidFocusHead(4, dict(chip_size=64, levels=levels), feat_channels=8)
    made = dict(scale_factor=(0.5, 0.5), ori_shape=(640, 640))
    assert [head.look_of({**made, 'level': level}).output for level in (1, 2)] == [0, 1]
    assert head.look_of(made).output == 1


def test_a_pyramid_of_one_level_has_nothing_to_look_at():
    one = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
    with pytest.raises(ValueError, match='no finer level'):
        PyramidFocusHead(4, one)


def test_dont_care_cells_have_no_part_in_the_loss(head):
    feats = pyramid_features()
    data = [sample([square(0, 0, 80)]), sample([square(0, 0, 80)])]  # covers all: don't-care
    losses = head.loss(feats, (64, 64), data)
    assert losses['loss_focus'] == 0
    losses['loss_focus'].backward()
    assert all((p.grad == 0).all() for p in head.parameters())


@pytest.mark.parametrize('detach', [False, True])
def test_a_detached_head_leaves_the_detector_alone_and_learns_the_same(detach):
    torch.manual_seed(0)
    head = FocusHead(in_channels=4, feat_channels=8, detach=detach)
    feats = [feat.requires_grad_() for feat in pyramid_features()]
    loss = head.loss(feats, (64, 64), [sample([square(0, 0, 10)])] * 2)['loss_focus']
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    assert (feats[2].grad is None) == detach


def test_recall_and_precision_are_of_the_cells_that_count(head):
    """Four cells in a row: hit, miss, false alarm, and an alarm on a don't-care."""
    logits = torch.tensor([9.0, -9.0, 9.0, 9.0])
    both = torch.stack([torch.zeros(1, 1, 4), logits.view(1, 1, 4)], dim=1)
    head.forward = lambda x: both[:, None]
    data = [sample([square(0, 0, 10), square(16, 0, 10)], [square(48, 0, 10)], [-1])]
    losses = head.loss([torch.zeros(1, 4, 1, 4)], (16, 64), data)
    assert losses['focus_recall'] == 0.5
    assert losses['focus_precision'] == 0.5
    # Cross entropy of three cells: two are wrong by 9.
    assert losses['loss_focus'] == pytest.approx((9 + 9) / 3, abs=1e-3)


def test_the_names_that_only_inform_are_not_added_to_the_loss(head):
    losses = head.loss(pyramid_features(), (64, 64), [sample([square(0, 0, 20)])] * 2)
    assert [name for name in losses if 'loss' in name] == ['loss_focus']


@pytest.mark.parametrize('settings', [dict(small=(64, 5)), dict(small=(5, 100))])
def test_sizes_must_ascend(settings):
    with pytest.raises(ValueError, match='must ascend'):
        FocusHead(4, **settings)


def test_sizes_may_begin_at_0_and_end_where_others_are_ignored():
    assert FocusHead(4, small=(0, 64), ignored=64).small == (0, 64)
