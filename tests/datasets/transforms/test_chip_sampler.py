import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmdet.datasets.transforms import RandomFlip
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.runner import Runner

from mmsniper.chips import POSITIVE, AnnotationTable, ScalePyramid, plan_positive_chips, positive
from mmsniper.datasets import Chip, ChipSampler
from mmsniper.datasets.transforms import chip_sampler

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 16)),
        dict(resize=dict(factor=1.0), valid_range=(12, 40)),
        dict(resize=dict(factor=0.5), valid_range=(32, None)),
    ],
)


def gradient(width, height):
    """An image that says where each of its pixels is from."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, x + y], axis=-1).astype(np.uint8)


def inputs(boxes=(), *, size=(100, 80), chip=None, **more):
    width, height = size
    results = dict(
        img=gradient(width, height),
        img_shape=(height, width),
        ori_shape=(height, width),
        width=width,
        height=height,
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
    )
    if chip is not None:
        results['chip'] = Chip(*chip, POSITIVE)
    return results | more


FINE = (0, (10.0, 20.0, 42.0, 52.0))
MIDDLE = (1, (8.0, 4.0, 72.0, 68.0))


# --- the image ------------------------------------------------------------------------------------


def test_at_scale_one_the_chip_is_the_window_itself():
    out = ChipSampler(PYRAMID)(inputs(chip=MIDDLE))
    np.testing.assert_array_equal(out['img'], gradient(100, 80)[4:68, 8:72])
    assert out['img_shape'] == (64, 64)
    assert out['scale_factor'] == (1.0, 1.0)


def test_a_fine_chip_is_enlarged_to_the_chip_size():
    out = ChipSampler(PYRAMID)(inputs(chip=FINE))
    assert out['img'].shape == (64, 64, 3)
    assert out['img_shape'] == (64, 64)
    assert out['scale_factor'] == (2.0, 2.0)
    # Far from the edges the gradient grows by half a level for each chip pixel.
    assert out['img'][32, 32, 0] == pytest.approx(10 + 32 / 2, abs=1)
    assert out['img'][32, 32, 1] == pytest.approx(20 + 32 / 2, abs=1)


def test_a_chip_between_pixels_takes_every_pixel_it_touches():
    out = ChipSampler(PYRAMID)(inputs(chip=(0, (10.4, 20.0, 42.4, 52.0))))
    assert out['img_shape'] == (64, 64)
    assert out['scale_factor'] == (64 / 33, 2.0)  # pixels 10 to 43
    np.testing.assert_allclose(
        out['homography_matrix'], [[64 / 33, 0, -640 / 33], [0, 2, -40], [0, 0, 1]], rtol=1e-6
    )


def test_rounding_errors_do_not_widen_the_window():
    out = ChipSampler(PYRAMID)(inputs(chip=(0, (9.9995, 20.0005, 41.9995, 52.0005))))
    assert out['scale_factor'] == (2.0, 2.0)


def test_an_image_smaller_than_a_chip_gives_a_smaller_chip():
    out = ChipSampler(PYRAMID)(inputs(chip=(2, (0.0, 0.0, 100.0, 80.0))))
    assert out['img_shape'] == (40, 50)
    assert out['scale_factor'] == (0.5, 0.5)


@pytest.mark.parametrize(('width', 'height', 'shape'), [(1, 1, (2, 2)), (300, 3, (6, 64))])
def test_extreme_images_give_chips_of_at_least_a_pixel(width, height, shape):
    box = (0.0, 0.0, float(min(width, 32)), float(height))
    out = ChipSampler(PYRAMID)(inputs(size=(width, height), chip=(0, box)))
    assert out['img_shape'] == shape


@pytest.mark.parametrize('channels', [(), (1,), (4,)])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_any_number_of_channels_and_depth(channels, dtype):
    results = inputs(chip=MIDDLE)
    img = np.random.default_rng(0).integers(0, 255, (80, 100, *channels)).astype(dtype)
    results['img'] = img
    np.testing.assert_array_equal(ChipSampler(PYRAMID)(results)['img'], img[4:68, 8:72])


def test_segmentation_map_is_cropped_without_blending_labels():
    seg = np.zeros((80, 100), np.uint8)
    seg[30:40, 20:30] = 200
    out = ChipSampler(PYRAMID)(inputs(chip=FINE, gt_seg_map=seg))
    expected = np.zeros((64, 64), np.uint8)
    expected[20:40, 20:40] = 200
    np.testing.assert_array_equal(out['gt_seg_map'], expected)


@pytest.mark.parametrize('level', [0, 1, 2])
def test_never_resizes_more_than_the_chips_own_source_region(monkeypatch, level):
    side = (32, 64, 128)[level]
    window = (100.3, 200.7, 100.3 + side, 200.7 + side)
    boxes = [[110.0, 210.0, 120.0, 220.0]]
    masks = BitmapMasks(np.ones((1, 1500, 2000), np.uint8), 1500, 2000)
    seg = np.zeros((1500, 2000), np.uint8)
    results = inputs(boxes, size=(2000, 1500), chip=(level, window), gt_masks=masks, gt_seg_map=seg)
    seen, resize = [], cv2.resize

    def spy(src, *args, **kwargs):
        seen.append(src.shape[:2])
        return resize(src, *args, **kwargs)

    monkeypatch.setattr(cv2, 'resize', spy)
    ChipSampler(PYRAMID)(results)
    assert seen == [(side + 1, side + 1)] * 3  # image, segmentation map, one mask


# --- boxes ----------------------------------------------------------------------------------------


def test_boxes_are_cropped_moved_and_scaled():
    inside, cut, tiny = [12, 22, 20, 30], [0, 30, 15.5, 60], [30, 30, 33, 33]
    out = ChipSampler(PYRAMID)(inputs([inside, cut, tiny], chip=FINE))
    np.testing.assert_allclose(
        out['gt_bboxes'].numpy(), [[4, 4, 20, 20], [0, 20, 11, 64], [40, 20, 46, 26]]
    )
    np.testing.assert_array_equal(out['gt_full_bboxes'], [inside, cut, tiny])
    assert out['gt_bboxes'].tensor.dtype == torch.float32


def test_uncut_objects_are_those_of_the_chip_without_ignore_regions():
    boxes = [[12, 22, 20, 30], [0, 30, 15.5, 60], [12, 22, 42, 52], [80, 60, 90, 70]]
    regions = np.array([False, False, True, False])
    out = ChipSampler(PYRAMID)(inputs(boxes, chip=FINE, gt_ignore_flags=regions))
    assert len(out['gt_full_bboxes']) == 3
    assert out['uncut_objects'].tolist() == boxes[:2]
    results = inputs(boxes, chip=FINE)
    del results['gt_ignore_flags']
    assert ChipSampler(PYRAMID)(results)['uncut_objects'].tolist() == boxes[:3]


def test_a_box_cut_to_less_than_the_minimum_size_is_dropped_with_its_label_and_flag():
    cut_to_8, cut_to_10, outside = [0, 30, 14, 40], [0, 30, 15, 40], [60, 60, 70, 70]
    results = inputs([cut_to_8, cut_to_10, outside], chip=FINE)
    results['gt_ignore_flags'][1] = True
    out = ChipSampler(PYRAMID)(results)
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [[0, 20, 10, 40]])
    assert out['gt_bboxes_labels'].tolist() == [1]
    assert out['gt_ignore_flags'].tolist() == [True]


def test_both_sides_count_for_the_minimum_size():
    cut_to_8_high = [12, 10, 40, 24]
    assert len(ChipSampler(PYRAMID)(inputs([cut_to_8_high], chip=FINE))['gt_bboxes']) == 0
    assert len(ChipSampler(PYRAMID, 8)(inputs([cut_to_8_high], chip=FINE))['gt_bboxes']) == 1


def test_a_small_box_that_lies_whole_in_the_chip_stays():
    touching = [10, 20, 12, 22]
    out = ChipSampler(PYRAMID)(inputs([touching], chip=FINE))
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [[0, 0, 4, 4]])


def test_a_box_is_not_cut_by_a_rounding_error():
    touching = [9.9995, 20, 12, 22]
    out = ChipSampler(PYRAMID)(inputs([touching], chip=FINE))
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [[0, 0, 4, 4]])


@pytest.mark.parametrize(
    ('size', 'chip', 'box', 'cropped'),
    [
        ((100, 20), (10.0, 0.0, 42.0, 20.0), [0, 0, 60, 20], [0, 0, 64, 40]),  # wide
        ((20, 100), (0.0, 10.0, 20.0, 42.0), [0, 0, 20, 60], [0, 0, 40, 64]),  # high
        ((100, 20), (10.0, 0.0, 42.0, 20.0), [30, 2, 60, 12], [40, 4, 64, 24]),
        ((20, 100), (0.0, 10.0, 20.0, 42.0), [2, 30, 12, 60], [4, 40, 24, 64]),
    ],
)
def test_boxes_end_with_a_chip_that_is_not_square(size, chip, box, cropped):
    out = ChipSampler(PYRAMID)(inputs([box], size=size, chip=(0, chip)))
    assert out['img_shape'] == ((40, 64) if size[0] > size[1] else (64, 40))
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [cropped])


def test_the_image_border_does_not_cut_a_box():
    reaches_out = [-20, 30, 3, 34]
    out = ChipSampler(PYRAMID)(inputs([reaches_out], chip=(0, (0.0, 20.0, 32.0, 52.0))))
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [[0, 20, 6, 28]])
    np.testing.assert_allclose(out['gt_full_bboxes'], [[0, 30, 3, 34]])


@pytest.mark.parametrize(
    'box',
    [
        [20, 30, 20, 40],
        [20, 30, 30, 30],
        [20, 30, 20.5, 40],
        [30, 40, 20, 30],
        [np.nan, 30, 30, 40],
        [np.nan] * 4,
        [-30, 30, -20, 40],
        [200, 30, 220, 40],
    ],
)
def test_boxes_that_are_no_objects_are_dropped(box):
    real = [15, 25, 25, 35]
    out = ChipSampler(PYRAMID, min_visible_size=0)(inputs([box, real], chip=FINE))
    np.testing.assert_allclose(out['gt_bboxes'].numpy(), [[10, 10, 30, 30]])
    assert out['gt_bboxes_labels'].tolist() == [1]


def test_a_chip_may_have_no_box_left():
    out = ChipSampler(PYRAMID)(inputs([[60, 60, 70, 70]], chip=FINE))
    assert out['gt_bboxes'].tensor.shape == (0, 4)
    assert out['gt_full_bboxes'].shape == (0, 4)


def test_array_boxes_stay_arrays():
    results = inputs(chip=FINE)
    results['gt_bboxes'] = np.array([[12, 22, 20, 30], [60, 60, 70, 70]], np.float32)
    results['gt_bboxes_labels'] = np.array([3, 4])
    del results['gt_ignore_flags']
    out = ChipSampler(PYRAMID)(results)
    assert isinstance(out['gt_bboxes'], np.ndarray)
    np.testing.assert_allclose(out['gt_bboxes'], [[4, 4, 20, 20]])
    assert out['gt_bboxes_labels'].tolist() == [3]


def test_an_image_without_annotations_is_cut_all_the_same():
    results = dict(img=gradient(100, 80), ori_shape=(80, 100), chip=Chip(*FINE, POSITIVE))
    assert ChipSampler(PYRAMID)(results)['img_shape'] == (64, 64)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_boxes_map_back_to_the_original_within_a_thousandth_of_a_pixel(data):
    """Through homography_matrix, flips included; and without flip through the window's corner."""
    size = data.draw(st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
    level = data.draw(st.integers(0, 2))
    place = np.array(data.draw(st.tuples(*[st.floats(0, 1)] * 2)))
    corners = np.array(data.draw(st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5)))
    direction = data.draw(st.sampled_from([None, 'horizontal', 'vertical', 'diagonal']))

    extent = np.minimum(64 / ScalePyramid.from_config(PYRAMID).scales(*size)[level], size)
    origin = place * (size - extent)
    boxes = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4) * np.tile(size, 2)
    chip = (level, (*origin.tolist(), *(origin + extent).tolist()))
    flip = [] if direction is None else [RandomFlip(prob=1.0, direction=direction)]
    results = inputs(boxes, size=size, chip=chip, img=np.zeros(size[::-1], np.uint8))
    out = Compose([ChipSampler(PYRAMID), *flip])(results)

    back = np.linalg.inv(out['homography_matrix'].astype(np.float64))
    points = out['gt_bboxes'].numpy().reshape(-1, 2) @ back[:2, :2].T + back[:2, 2]
    points = np.sort(points.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    window = np.concatenate([np.floor(origin + 2e-3), np.ceil(origin + extent - 2e-3)])
    visible = np.clip(out['gt_full_bboxes'], np.tile(window[:2], 2), np.tile(window[2:], 2))
    np.testing.assert_allclose(points, visible, atol=1e-3)
    if direction is None:
        unscaled = out['gt_bboxes'].numpy() / np.tile(out['scale_factor'], 2)
        np.testing.assert_allclose(unscaled + np.tile(window[:2], 2), visible, atol=1e-3)


# --- masks ----------------------------------------------------------------------------------------


def rectangle_masks(boxes, kind, size=(100, 80)):
    width, height = size
    if kind == 'polygon':
        polygons = [[np.array([x1, y1, x2, y1, x2, y2, x1, y2], float)] for x1, y1, x2, y2 in boxes]
        return PolygonMasks(polygons, height, width)
    bitmaps = np.zeros((len(boxes), height, width), np.uint8)
    for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes):
        bitmap[y1:y2, x1:x2] = 1
    return BitmapMasks(bitmaps, height, width)


@pytest.mark.parametrize('direction', [None, 'horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
@pytest.mark.parametrize(
    'chip', [FINE, MIDDLE, (0, (10.4, 20.9, 42.4, 52.9)), (2, (0, 0, 100, 80))]
)
def test_masks_stay_aligned_with_their_boxes(kind, chip, direction):
    boxes = [[60, 60, 64, 64], [12, 22, 20, 30], [0, 30, 26, 70], [24, 24, 44, 44]]
    results = inputs(boxes, chip=chip, gt_masks=rectangle_masks(boxes, kind))
    flip = [] if direction is None else [RandomFlip(prob=1.0, direction=direction)]
    out = Compose([ChipSampler(PYRAMID), *flip])(results)
    masks, found = out['gt_masks'], out['gt_bboxes'].numpy()
    assert (masks.height, masks.width) == out['img_shape']
    assert len(masks) == len(found) >= 3
    np.testing.assert_allclose(masks.get_bboxes('hbox').numpy(), found, atol=1.01)


@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
def test_masks_are_dropped_with_their_boxes(kind):
    boxes = [[60, 60, 70, 70], [80, 60, 90, 70]]
    out = ChipSampler(PYRAMID)(inputs(boxes, chip=FINE, gt_masks=rectangle_masks(boxes, kind)))
    assert len(out['gt_masks']) == 0
    assert (out['gt_masks'].height, out['gt_masks'].width) == (64, 64)


@pytest.mark.parametrize('poly2mask', [True, False])
def test_crowd_masks_come_along(make_coco, poly2mask):
    from mmdet.registry import DATASETS

    from mmsniper.datasets import ChipIndex

    rle = dict(size=[80, 100], counts=[80 * 10, 80 * 30, 80 * 60])  # columns 10 to 40, all rows
    square = [[20, 30, 30, 30, 30, 40, 20, 40]]
    image = dict(
        size=(100, 80),
        boxes=[[10, 0, 40, 80], [20, 30, 30, 40]],
        crowd=[1, 0],
        segmentations=[rle, square],
    )
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=poly2mask),
        dict(type='ChipSampler', pyramid=PYRAMID),
        dict(type='ScaleRangeFilter', pyramid=PYRAMID),
        dict(type='PackDetInputs'),
    ]
    dataset = DATASETS.build(
        dict(type='ChipDataset', dataset=make_coco([image]), pipeline=pipeline)
    )
    sample = dataset[ChipIndex(0, Chip(*FINE, POSITIVE))]['data_samples']
    found = sample.gt_instances.masks.get_bboxes('hbox').numpy()
    np.testing.assert_allclose(found, [[20, 20, 40, 40]], atol=1)
    assert sample.ignored_instances.labels.tolist() == [-1]
    if poly2mask:
        np.testing.assert_allclose(
            sample.ignored_instances.masks.get_bboxes('hbox').numpy(), [[0, 0, 60, 64]], atol=1
        )


# --- without a plan -------------------------------------------------------------------------------


def test_without_a_plan_it_draws_one_of_the_images_positive_chips():
    boxes = [[10, 10, 20, 20], [200, 200, 230, 230]]  # valid at level 0, and at level 1
    seen = set()
    for _ in range(40):
        out = ChipSampler(PYRAMID)(inputs(boxes, size=(250, 250)))
        assert out['chip'].kind == POSITIVE
        (full,) = out['gt_full_bboxes'].tolist()
        x1, y1, x2, y2 = out['chip'].box
        assert x1 <= full[0] <= full[2] <= x2
        assert y1 <= full[1] <= full[3] <= y2
        seen.add((out['chip'].level, boxes.index(full), round(x1, 2)))
    assert {(level, box) for level, box, _ in seen} == {(0, 0), (1, 1)}
    assert len(seen) > 20  # drawn anew each time


def test_of_a_chip_that_it_drew_nothing_may_change_the_scale():
    out = ChipSampler(PYRAMID)(inputs([[10, 10, 20, 20]], size=(250, 250)))
    scale = out['scale_factor']
    out['scale_factor'] = list(scale)  # as it is
    out['keep_ratio'] = False
    with pytest.raises(ValueError, match=r'changes the scale .*to \(1.0, 2.0\)'):
        out['scale_factor'] = (1.0, 2.0)
    assert tuple(out['scale_factor']) == scale
    del out['scale_factor']
    out['scale_factor'] = (1.0, 2.0)


def test_crowd_boxes_need_no_chip():
    results = inputs([[10, 10, 20, 20], [200, 200, 230, 230]], size=(250, 250))
    results['gt_ignore_flags'][0] = True
    assert all(ChipSampler(PYRAMID)(dict(results))['chip'].level == 1 for _ in range(5))


@pytest.mark.parametrize('size', [(250, 100), (20, 250), (1, 1)])
def test_an_image_without_a_valid_box_gives_a_window_at_a_random_place(size):
    chips = {ChipSampler(PYRAMID)(inputs(size=size))['chip'] for _ in range(60)}
    assert {chip.level for chip in chips} == {0, 1, 2}
    for chip in chips:
        x1, y1, x2, y2 = chip.box
        side = (32, 64, 128)[chip.level]
        assert (x2 - x1, y2 - y1) == pytest.approx((min(side, size[0]), min(side, size[1])))
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
    if size[0] > 128:
        assert len({chip.box[0] for chip in chips}) > 30


def test_works_in_a_stock_data_set_with_stock_samplers(five_images, chip_pipeline):
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type='AspectRatioBatchSampler'),
            dataset=five_images(pipeline=chip_pipeline),
        ),
        seed=0,
    )
    samples = [sample for batch in loader for sample in batch['data_samples']]
    assert sorted(sample.img_id for sample in samples) == [0, 1, 2, 3, 4]
    for sample in samples:
        assert len(sample.gt_instances) >= 1  # a positive chip has a valid box
        assert max(sample.img_shape) <= 64


class TestKeptCovers:
    @pytest.fixture
    def covered(self, monkeypatch):
        """How many boxes each search for a cover was asked to cover."""
        found, minimum_cover = [], positive.minimum_cover
        monkeypatch.setattr(
            positive,
            'minimum_cover',
            lambda lo, hi, group: found.append(len(lo)) or minimum_cover(lo, hi, group),
        )
        return found

    @staticmethod
    def crowd(seed=0, count=chip_sampler._MIN_KEPT):
        start = np.random.default_rng(seed).uniform(0, 980, (count, 2))
        return np.concatenate([start, start + 10], axis=1).tolist()

    def test_an_image_is_planned_once(self, covered):
        transform = ChipSampler(PYRAMID)
        chips = {transform(inputs(self.crowd(), size=(1000, 1000)))['chip'] for _ in range(10)}
        assert covered == [chip_sampler._MIN_KEPT]
        assert len(chips) > 8  # drawn anew each time

    def test_chips_are_those_of_planning_each_time(self, covered):
        transform, boxes = ChipSampler(PYRAMID), self.crowd()
        table = AnnotationTable.from_images([(1000, 1000, np.array(boxes, np.float32), None)])
        for seed in range(5):
            np.random.seed(seed)
            chip = transform(inputs(boxes, size=(1000, 1000)))['chip']
            after = np.random.randint(2**31)
            np.random.seed(seed)
            plan = plan_positive_chips(table, transform.pyramid, seed=np.random.randint(2**31))
            i = np.random.randint(len(plan))
            assert chip == Chip(int(plan.level[i]), tuple(plan.box[i].tolist()), POSITIVE)
            assert after == np.random.randint(2**31)
        assert len(covered) == 1 + 5

    def test_what_a_cover_depends_on_is_planned_anew(self, covered):
        transform, boxes = ChipSampler(PYRAMID), self.crowd()
        moved = [[x1 + 1e-4 * x1, *rest] for x1, *rest in boxes]
        flags = np.zeros(len(boxes), bool)
        flags[3] = True
        given = [
            inputs(boxes, size=(1000, 1000)),
            inputs(moved, size=(1000, 1000)),
            inputs(boxes, size=(1000, 1001)),
            inputs(boxes, size=(1001, 1000)),
            inputs(boxes, size=(1000, 1000), gt_ignore_flags=flags),
        ]
        for number, results in enumerate(given, 1):
            for _ in range(2):
                transform(dict(results, gt_bboxes=results['gt_bboxes'].clone()))
                assert len(covered) == number
        # What happens later to the arrays that it was given is nothing to it.
        transform(given[0])
        given[0]['gt_bboxes'].tensor.zero_()
        transform(inputs(boxes, size=(1000, 1000)))
        assert len(covered) == len(given)
        transform.pyramid = ScalePyramid(32, transform.pyramid.levels)
        transform(inputs(boxes, size=(1000, 1000)))
        assert len(covered) == len(given) + 1

    def test_what_is_kept_is_bounded_and_what_was_used_last_stays(self, covered, monkeypatch):
        monkeypatch.setattr(chip_sampler, '_MAX_KEPT', 2 * chip_sampler._MIN_KEPT + 50)
        transform = ChipSampler(PYRAMID)

        def again(seed, count=chip_sampler._MIN_KEPT):
            before = len(covered)
            transform(inputs(self.crowd(seed, count), size=(1000, 1000)))
            return len(covered) > before

        assert [again(seed) for seed in (0, 1, 0, 2)] == [True, True, False, True]
        assert [again(seed) for seed in (0, 2, 1)] == [False, False, True]
        # What is larger than all that may be kept is planned each time, and drives out nothing.
        assert [again(9, 300), again(9, 300), again(2), again(1)] == [True, True, False, False]

    def test_few_boxes_are_not_worth_keeping(self, covered):
        transform = ChipSampler(PYRAMID)
        for _ in range(3):
            transform(inputs(self.crowd(count=5), size=(1000, 1000)))
        assert covered == [5, 5, 5]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize('transform', ['RandomFlip', 'Resize'])
def test_says_that_it_must_come_before_other_geometric_transforms(transform):
    arguments = dict(RandomFlip=dict(prob=1.0), Resize=dict(scale=(50, 40)))[transform]
    first = Compose([dict(type=f'mmdet.{transform}', **arguments)])
    with pytest.raises(ValueError, match='put ChipSampler right after LoadAnnotations'):
        ChipSampler(PYRAMID)(first(inputs(chip=FINE)))


@pytest.mark.parametrize(
    'chip', [(3, FINE[1]), (-1, FINE[1]), (1, FINE[1]), (0, (0.0, 0.0, 33.0, 33.0))]
)
def test_says_that_a_chip_is_of_another_pyramid(chip):
    with pytest.raises(ValueError, match='the same pyramid'):
        ChipSampler(PYRAMID)(inputs(chip=chip))


def test_repr_tells_the_settings():
    text = repr(ChipSampler(PYRAMID, min_visible_size=7, interpolation='area'))
    assert text.startswith('ChipSampler(pyramid=ScalePyramid(chip_size=64')
    assert "min_visible_size=7, interpolation='area')" in text
