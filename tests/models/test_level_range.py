"""Which sizes count in an input."""

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models import LevelRange
from mmsniper.models.level_range import out_of_range

PYRAMID = ScalePyramid.from_config(
    {
        'chip_size': 64,
        'levels': [
            {'resize': {'factor': 2.0}, 'valid_range': (0, 16), 'test_range': (0, 20)},
            {'resize': {'long_side': 64}, 'valid_range': (12, None), 'test_range': (14, None)},
        ],
    }
)


def meta(scale, ori_shape=(100, 128)):
    return {'scale_factor': scale, 'ori_shape': ori_shape}


def squares(*sides):
    return torch.tensor([[3.0, 5.0, 3.0 + s, 5.0 + s] for s in sides])


def test_the_range_is_that_of_the_level_nearest_to_the_scale():
    assert LevelRange.of_input(meta((2.0, 2.0)), PYRAMID).ranges == ((0, 16),)
    assert LevelRange.of_input(meta((1.99, 2.02)), PYRAMID).ranges == ((0, 16),)
    assert LevelRange.of_input(meta((0.5, 0.5)), PYRAMID).ranges == ((12, float('inf')),)


def test_sizes_are_in_original_pixels_and_ranges_half_open():
    fine = LevelRange.of_input(meta((2.0, 2.0)), PYRAMID)
    assert fine.contains(squares(0, 31.99, 32, 40)).tolist() == [True, True, False, False]
    coarse = LevelRange.of_input(meta((0.5, 0.5)), PYRAMID)
    assert coarse.contains(squares(5.99, 6, 5000)).tolist() == [False, True, True]


def test_both_axes_scale_the_area():
    # The sides are 15.9 and 16.1 by 2.1 and 1.9: one axis alone would misjudge one of the boxes.
    fine = LevelRange.of_input(meta((2.1, 1.9)), PYRAMID)
    side = torch.tensor([15.9, 16.1])
    boxes = torch.stack([0 * side, 0 * side, 2.1 * side, 1.9 * side], dim=1)
    assert fine.contains(boxes).tolist() == [True, False]


def test_boxes_in_original_pixels_need_no_scale():
    assert LevelRange(((0, 16),)).contains(squares(15.9, 16)).tolist() == [True, False]


def test_levels_that_coincide_for_the_image_both_count():
    both = LevelRange.of_input(meta((2.0, 2.0), (32, 32)), PYRAMID)
    assert both.contains(squares(10, 28, 200)).tolist() == [True, True, True]


def test_boxes_may_be_empty_half_or_box_type():
    fine = LevelRange.of_input(meta((2.0, 2.0)), PYRAMID)
    assert fine.contains(torch.zeros(0, 4)).shape == (0,)
    coarse = LevelRange.of_input(meta((0.5, 0.5)), PYRAMID)
    # An area of 400 * 400 does not exist in half precision.
    assert coarse.contains(squares(400).half()).tolist() == [True]
    assert fine.contains(HorizontalBoxes(squares(31, 33))).tolist() == [True, False]


def test_inverted_and_nan_boxes_are_out_of_range():
    fine = LevelRange.of_input(meta((2.0, 2.0)), PYRAMID)
    boxes = torch.tensor([[9.0, 9, 5, 5], [float('nan'), 0, 1, 1]])
    assert fine.contains(boxes).tolist() == [False, False]


@pytest.mark.parametrize('shape', [(4, 5), (4,), (2, 2, 4)])
def test_boxes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=rf'shape \(n, 4\).*got \({shape[0]},'):
        LevelRange.of_input(meta((2.0, 2.0)), PYRAMID).contains(torch.zeros(shape))


def test_the_level_that_the_input_was_made_for_counts():
    coinciding = meta((2.0, 2.0), (32, 32))
    for level, contained in ((0, [True, False, False]), (1, [False, True, True])):
        one = LevelRange.of_input({**coinciding, 'level': level}, PYRAMID)
        assert one.contains(squares(10, 36, 200)).tolist() == contained


@pytest.mark.parametrize('key', ['scale_factor', 'ori_shape'])
def test_missing_metainfo_is_named_with_its_fix(key):
    metainfo = meta((2.0, 2.0))
    del metainfo[key]
    with pytest.raises(ValueError, match=f"no '{key}' in its metainfo.*meta_keys"):
        LevelRange.of_input(metainfo, PYRAMID)


@pytest.mark.parametrize('value', [2.0, (2.0,), ('a', 'b'), (0.0, 1.0), (float('nan'), 1.0)])
def test_malformed_scale_factor_is_named(value):
    with pytest.raises(ValueError, match="'scale_factor' must be"):
        LevelRange.of_input(meta(value), PYRAMID)


def test_all_inputs_at_once_are_as_one_by_one():
    infos = [meta((2.0, 2.0)), meta((0.5, 0.5)), meta((2.0, 2.0), (32, 32)), meta((2.1, 1.9))]
    ranges = [LevelRange.of_input(info, PYRAMID) for info in infos]
    assert [len(r.ranges) for r in ranges] == [1, 1, 2, 1]
    boxes = [
        squares(0, 31.99, 32, 40),
        HorizontalBoxes(squares(5.99, 6, 5000)),
        torch.cat([squares(10, 28, 200), torch.tensor([[9.0, 9, 5, 5], [float('nan'), 0, 1, 1]])]),
        torch.zeros(0, 4),
    ]
    for alone, together in zip(ranges, out_of_range(ranges, boxes)):
        one = boxes[ranges.index(alone)]
        assert (~together).tolist() == alone.contains(one).tolist()
    assert out_of_range([], []) == ()
    half = out_of_range(ranges[:2], [squares(400).half(), squares(31.99)])
    assert [h.tolist() for h in half] == [[True], [False]]
    with pytest.raises(ValueError, match='rotated'):
        out_of_range(ranges[:1], [torch.zeros(2, 5)])
