"""A detector sees all levels of the pyramid; what suits each is merged (spec section 8)."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from mmcv import imresize
from mmcv.ops import batched_nms
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import pseudo_collate
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from scipy import ndimage
from torch.utils.data import DataLoader

from mmsniper.chips.windows import Window
from mmsniper.models import PyramidDetector, pyramid_detector
from mmsniper.models.views import uncut

FINE, COARSE = 1.5, 0.7
PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(
            resize=dict(factor=3.0),
            valid_range=(0, 16),
            test_resize=dict(factor=FINE),
            test_range=(0, 50),
        ),
        dict(resize=dict(factor=COARSE), valid_range=(30, None), test_range=(30, 90)),
    ],
)
SIGMA = 0.55  # of the merging Soft-NMS


def one_level(factor=1.0, valid_range=(0, None), chip_size=64):
    level = dict(resize=dict(factor=factor), valid_range=valid_range)
    return dict(chip_size=chip_size, levels=[level])


@pytest.fixture
def make(at_levels):
    """A small PyramidDetector."""

    def make_(family='RetinaNet', pyramid=PYRAMID, **settings):
        return at_levels(family, pyramid, **settings)

    return make_


def instances(boxes, scores, labels=None):
    return InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
        scores=torch.tensor(scores).float(),
        labels=torch.tensor(labels or [0] * len(scores), dtype=torch.long),
    )


def squares(*sides):
    """Squares far from each other, along the upper edge of an image."""
    return [[170.0 * i, 0.0, 170.0 * i + side, side] for i, side in enumerate(sides)]


def let_find(model, fine=((), ()), coarse=((), ())):
    """Let it find ``(boxes, scores[, labels])``, original pixels, at either level."""

    def predict(inputs, samples, rescale):
        model.extract_feat(inputs)
        for sample in samples:
            is_fine = sample.metainfo['scale_factor'][0] > 1
            sample.pred_instances = instances(*(fine if is_fine else coarse))
        return samples

    model.predict = predict


def found(model, batch):
    (result,) = model.test_step(batch)
    return result.pred_instances


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ('bboxes', 'scores', 'labels'))


# Ranges and merging ------------------------------------------------------------------------------


class TestMerging:
    # IoU: A and B 0.8, A and C 0.5, B and C 40 / 90.
    A, B, C = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 5.0, 10.0]

    @pytest.fixture
    def merged(self, make, picture, unresized):
        batch = unresized(picture(1000, 200))

        def merged_(fine=((), ()), coarse=((), ()), **settings):
            model = make(**settings)
            let_find(model, fine, coarse)
            return found(model, batch)

        return merged_

    def test_levels_keep_the_sizes_of_their_half_open_test_range(self, merged):
        fine = merged(fine=(squares(1, 30, 49.99, 50), [0.9, 0.8, 0.7, 0.6]))
        assert fine.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
        coarse = merged(coarse=(squares(29.99, 30, 89.99, 90), [0.9, 0.8, 0.7, 0.6]))
        assert coarse.scores.tolist() == pytest.approx([0.8, 0.7])

    def test_a_size_is_the_square_root_of_the_area(self, merged):
        long_and_thin = [[0.0, 0.0, 1000.0, 2.4], [0.0, 50.0, 1000.0, 52.6]]
        assert merged(fine=(long_and_thin, [0.9, 0.8])).scores.tolist() == pytest.approx([0.9])

    def test_gaussian_soft_nms_worked_out_by_hand(self, merged):
        c = 0.7 * math.exp(-(0.5**2) / SIGMA)  # 0.444, so it comes before B
        b = 0.8 * math.exp(-(0.8**2) / SIGMA) * math.exp(-((40 / 90) ** 2) / SIGMA)  # 0.174
        got = merged(family='FasterRCNN', fine=([self.B, self.A, self.C], [0.8, 0.9, 0.7]))
        assert got.scores.tolist() == pytest.approx([0.9, c, b], abs=1e-6)
        assert got.bboxes.tolist() == [self.A, self.C, self.B]

    def test_levels_are_merged_and_tell_who_found_what(self, merged):
        box = [0.0, 0.0, 40.0, 40.0]  # in the range of both levels
        got = merged(fine=([box], [0.8]), coarse=([box], [0.9]))
        assert got.scores.tolist() == pytest.approx([0.9, 0.8 * math.exp(-1 / SIGMA)])
        assert got.levels.tolist() == [1, 0]
        assert set(got.keys()) == {'bboxes', 'scores', 'labels', 'levels'}

    def test_boxes_without_an_area_are_nothing(self, merged):
        """Two of them at the image's edge have no IoU, and Soft-NMS would make NaN of a score."""
        edge = [[1000.0, 5.0, 1000.0, 50.0], [1000.0, 20.0, 1000.0, 60.0], self.A]
        speck = [[3.0, 3.0, 3.00001, 3.00001]] * 2
        got = merged(family='FasterRCNN', fine=(edge + speck, [0.5, 0.4, 0.3, 0.6, 0.6]))
        assert got.bboxes.tolist() == [self.A]

    @pytest.mark.parametrize('split_thr', [10000, 1], ids=['together', 'class by class'])
    def test_classes_do_not_touch_each_other_and_scores_are_sorted(self, merged, split_thr):
        got = merged(
            family='FasterRCNN',
            merge_cfg=dict(nms=dict(pyramid_detector.MERGE_NMS, split_thr=split_thr)),
            fine=([self.A, self.A, self.B, self.B], [0.5, 0.9, 0.4, 0.3], [0, 1, 0, 2]),
        )
        decayed = 0.4 * math.exp(-(0.8**2) / SIGMA)
        assert got.scores.tolist() == pytest.approx([0.9, 0.5, 0.3, decayed])
        assert got.labels.tolist() == [1, 0, 2, 0]

    @pytest.mark.parametrize(
        ('merge_cfg', 'count'),
        [
            ({}, 4),
            (dict(score_thr=0.72), 3),
            (dict(score_thr=0.75), 3),  # a score that is the least one is kept
            (dict(max_per_img=1), 1),
            (dict(nms_pre=2), 3),  # of the two of a level, and the one of the other
            (dict(nms=dict(type='soft_nms', min_score=0.76)), 2),
        ],
    )
    def test_what_the_config_says_of_it(self, merged, merge_cfg, count):
        fine, coarse = (squares(10, 10, 10), [0.9, 0.75, 0.7]), ([[900, 0, 940, 40]], [0.8])
        got = merged(fine=fine, coarse=coarse, merge_cfg=merge_cfg)
        assert len(got) == count
        assert got.scores[0] == pytest.approx(0.9)

    def test_nothing_in_range_at_any_level_gives_an_empty_result(self, merged):
        got = merged(fine=(squares(60), [0.9]), coarse=(squares(5), [0.8]))
        assert got.bboxes.shape == (0, 4)
        assert got.bboxes.dtype == got.scores.dtype == torch.float32
        assert got.scores.shape == got.labels.shape == got.levels.shape == (0,)
        assert got.labels.dtype == torch.long

    @pytest.mark.parametrize('nothing', [((), ()), (squares(60), [0.99])])
    def test_a_level_without_detections_does_not_matter(self, merged, nothing):
        got = merged(fine=nothing, coarse=(squares(40), [0.9]))
        assert got.bboxes.tolist() == squares(40)

    def test_levels_that_coincide_keep_what_is_their_own(self, make, picture, unresized):
        levels = [
            dict(resize=dict(factor=1.0), valid_range=(0, 16)),
            dict(resize=dict(long_side=400), valid_range=(16, None)),
        ]
        model = make(pyramid=dict(chip_size=64, levels=levels))
        let_find(model, coarse=(squares(5, 30), [0.9, 0.8]))
        got = found(model, unresized(picture(400, 200)))
        assert (got.scores.tolist(), got.levels.tolist()) == (pytest.approx([0.9, 0.8]), [0, 1])


# The range comes before what makes a choice ------------------------------------------------------


class TestRangeComesFirst:
    """92 px is out of the range, up to 90. It must not cost the object of 88 px."""

    BOXES = [[4.0, 4.0, 96.0, 96.0], [6.0, 6.0, 94.0, 94.0]]

    @pytest.fixture
    def image(self, picture, unresized):
        return unresized(picture(200, 200))

    def find_both_with_a_head(self, model):
        """Let a dense head score both boxes; its own post-processing follows."""
        head = model.bbox_head

        def predict_single(*args, img_meta, cfg=None, rescale=False, **kwargs):
            raw = instances(self.BOXES, [0.9, 0.8])
            raw.bboxes *= img_meta['scale_factor'][0]
            return head._bbox_post_process(raw, cfg or head.test_cfg, rescale, img_meta=img_meta)

        head._predict_by_feat_single = predict_single

    @pytest.mark.parametrize('family', ['RetinaNet', 'FCOS', 'RTMDet'])
    def test_before_the_nms_of_a_one_stage_detector(self, make, image, family):
        model = make(family, one_level(valid_range=(0, 90)))
        self.find_both_with_a_head(model)
        assert found(model, image).bboxes.tolist() == [self.BOXES[1]]
        for sample in image['data_samples']:
            sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
        assert found(model, image).bboxes.tolist() == [self.BOXES[0]]  # the stock detector

    def test_and_that_nms_follows(self, make, image):
        """Soft-NMS alone would leave both."""
        model = make('RetinaNet', one_level())
        self.find_both_with_a_head(model)
        assert found(model, image).bboxes.tolist() == [self.BOXES[0]]

    def test_before_the_best_k_of_a_one_stage_detector(self, make, image):
        model = make('RetinaNet', one_level(valid_range=(0, 90)), merge_cfg=dict(nms_pre=1))
        model.bbox_head.test_cfg.update(max_per_img=1)
        self.find_both_with_a_head(model)
        assert found(model, image).bboxes.tolist() == [self.BOXES[1]]

    @pytest.mark.parametrize('family', ['FasterRCNN', 'CascadeRCNN'])
    def test_before_the_nms_and_the_best_k_of_a_two_stage_detector(self, make, image, family):
        model = make(family, one_level(valid_range=(0, 90)), merge_cfg=dict(nms_pre=1))
        model.roi_head.test_cfg.update(max_per_img=1)
        boxes = torch.tensor(self.BOXES)
        scores = torch.tensor([[0.9, 0.0, 0.0, 0.1], [0.8, 0.0, 0.0, 0.2]])

        def predict_single(*args, rcnn_test_cfg, **kwargs):
            cfg = rcnn_test_cfg
            dets, labels = multiclass_nms(boxes, scores, cfg.score_thr, cfg.nms, cfg.max_per_img)
            return InstanceData(bboxes=dets[:, :4], scores=dets[:, 4], labels=labels)

        heads = model.roi_head.bbox_head
        head = heads[-1] if isinstance(heads, torch.nn.ModuleList) else heads
        head._predict_by_feat_single = predict_single
        got = found(model, image)
        assert got.bboxes.tolist() == [self.BOXES[1]]

    @pytest.mark.parametrize('family', ['DeformableDETR', 'DINO'])
    def test_before_the_best_queries_of_a_set_prediction(self, make, image, family):
        """All queries but one are out of range, and score higher."""
        model = make(family, one_level(valid_range=(0, 90)))
        queries, most = model.num_queries, model.bbox_head.test_cfg.max_per_img
        assert most < queries * 3
        logits, boxes = torch.ones(1, 1, queries, 3), torch.full((1, 1, queries, 4), 0.46)
        logits[..., -1, 1:], boxes[..., -1, :] = -10.0, torch.tensor([0.25, 0.25, 0.44, 0.44])
        logits[..., -1, 0] = 0.0
        model.bbox_head.forward = lambda *args: (logits, boxes)
        assert model.bbox_head._predict_by_feat_single(
            logits[0, 0], boxes[0, 0], dict(img_shape=(200, 200)), False
        ).bboxes.diff(dim=0).abs().max() == pytest.approx(0, abs=1e-3)  # stock: 92 px only
        got = found(model, image)
        assert got.bboxes[0].tolist() == pytest.approx([6, 6, 94, 94], abs=1e-3)
        assert got.scores[0] == pytest.approx(0.5)
        assert len(got) == 1


# Each family, by brute force ---------------------------------------------------------------------


def stock_boxes(cfg, weights, image, scale):
    """What the stock detector finds in the resized image, before its NMS and its best k."""
    own = cfg.test_cfg.get('rcnn', cfg.test_cfg)
    if 'num_queries' in cfg:
        own.max_per_img = cfg.num_queries * cfg.bbox_head.num_classes
    else:
        own.update(max_per_img=100000, nms=None, score_thr=0.001)
    model = MODELS.build(cfg).eval()
    model.load_state_dict(weights, strict=True)
    height, width = image.shape[:2]
    shape = round(height * scale), round(width * scale)
    sample = DetDataSample(
        metainfo=dict(
            ori_shape=(height, width),
            img_shape=shape,
            scale_factor=(shape[1] / width, shape[0] / height),
        )
    )
    resized = torch.from_numpy(imresize(image, shape[::-1]).transpose(2, 0, 1).copy())
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[resized], data_samples=[sample]))
    return result.pred_instances


def sizes(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()


@pytest.mark.parametrize(
    'family', ['FasterRCNN', 'CascadeRCNN', 'RetinaNet', 'FCOS', 'RTMDet', 'DeformableDETR', 'DINO']
)
def test_it_is_the_stock_detector_at_each_level_its_range_and_one_merge(
    make, family_config, picture, unresized, family
):
    if family == 'CascadeRCNN':  # without masks, which have tests of their own
        pyramid_of_masks = family_config(family)
        assert pyramid_of_masks.roi_head.pop('mask_head')
    image = picture(150, 110)
    model = make(family)
    levels = [
        stock_boxes(family_config(family), model.state_dict(), image, scale)
        for scale in (FINE, COARSE)
    ]
    # Ranges that leave out some of either level.
    cut = torch.cat([sizes(level.bboxes) for level in levels]).median().item()
    ranges = ((0, 1.2 * cut), (0.8 * cut, math.inf))
    pyramid = copy.deepcopy(PYRAMID)
    for level, (lo, hi) in zip(pyramid['levels'], ranges):
        level['test_range'] = (lo, None if hi == math.inf else hi)
    model = make(family, pyramid)
    nms = model.test_cfg.get('nms')
    kept = []
    for level, (lo, hi) in zip(levels, ranges):
        size = sizes(level.bboxes)
        inside = level[(size >= lo) & (size < hi) & (level.scores >= 0.001)]
        assert len(inside) > 0
        _, best = batched_nms(inside.bboxes, inside.scores, inside.labels, nms)
        kept.append(inside[best][:1000])
    everything = InstanceData.cat(kept[::-1])
    merged, order = batched_nms(
        everything.bboxes, everything.scores, everything.labels, pyramid_detector.MERGE_NMS
    )
    most = (model.test_cfg.get('rcnn') or model.test_cfg).max_per_img
    got = found(model, unresized(image))
    assert 0 < len(got) <= most
    torch.testing.assert_close(got.bboxes, merged[:most, :4])
    torch.testing.assert_close(got.scores, merged[:most, 4])
    assert got.labels.tolist() == everything.labels[order][:most].tolist()


def test_its_rpn_may_give_fewer_proposals_at_a_level(make, picture, unresized):
    model = make('FasterRCNN', level_rpn=dict(max_per_img=7))
    own, counts = model.rpn_head.test_cfg, []
    predict = model.rpn_head.predict
    model.rpn_head.predict = lambda *args, **kwargs: (
        counts.append(model.rpn_head.test_cfg),
        predict(*args, **kwargs),
    )[1]
    model.test_step(unresized(picture()))
    assert [cfg.max_per_img for cfg in counts] == [7, 7]
    assert counts[0].nms_pre == own.nms_pre
    assert model.rpn_head.test_cfg is own


def test_settings_are_the_detectors_own_again_afterwards_even_if_it_fails(make, picture, unresized):
    model = make('MaskRCNN', level_rpn=dict(max_per_img=7))
    own = model.rpn_head.test_cfg, model.roi_head.test_cfg, model.roi_head.mask_head
    before = copy.deepcopy(own[:2])

    def fail(*args, **kwargs):
        raise RuntimeError('out of memory')

    model.predict = fail
    with pytest.raises(RuntimeError, match='out of memory'):
        model.test_step(unresized(picture()))
    now = model.rpn_head.test_cfg, model.roi_head.test_cfg, model.roi_head.mask_head
    assert all(a is b for a, b in zip(own, now))
    assert own[:2] == before
    assert not model.neck._forward_hooks


# Windows and batches -----------------------------------------------------------------------------


def find_bright_squares(model, seen=None):
    """A detector that sees nothing but what is in its input: white squares on black."""

    def predict(inputs, samples, rescale):
        model.extract_feat(inputs)
        for pixels, sample in zip(inputs, samples):
            height, width = sample.metainfo['img_shape']
            bright = pixels[0, :height, :width].numpy() > 0  # normalised
            if seen is not None:
                seen.append((height, width))
            slices = ndimage.find_objects(ndimage.label(bright)[0])
            boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices])
            scale = np.tile(sample.metainfo['scale_factor'], 2)
            sample.pred_instances = instances(
                (boxes.reshape(-1, 4) / scale).tolist(), [0.9] * len(boxes)
            )
        return samples

    model.predict = predict
    return model


def scattered(width, height, most, seed):
    """An image with white squares that do not touch each other, and their boxes."""
    rng, image = np.random.default_rng(seed), np.zeros((height, width, 3), np.uint8)
    boxes = set()
    for _ in range(60):
        side = int(rng.integers(3, most + 1))
        x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        if not image[max(y - 1, 0) : y + side + 1, max(x - 1, 0) : x + side + 1].any():
            image[y : y + side, x : x + side] = 255
            boxes.add((x, y, x + side, y + side))
    return image, boxes


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('family', ['RetinaNet', 'FasterRCNN'])
def test_windows_find_what_is_in_the_whole_image_and_each_object_once(
    make, unresized, family, seed
):
    """Chips, by which windows overlap, are 64 px; within 10 px of an edge nothing is taken."""
    image, boxes = scattered(430, 310, 64 - 2 * 10 - 1, seed)
    seen = []
    model = find_bright_squares(make(family, one_level(), window_size=96), seen)
    got = found(model, unresized(image))
    assert {tuple(box) for box in got.bboxes.tolist()} == boxes
    assert len(got) == len(boxes)
    assert len(seen) > 20
    # As many whole pixels as the window touches.
    assert max(map(max, seen)) <= 97
    whole = find_bright_squares(make(family, one_level(), window_size=512), seen)
    assert {tuple(box) for box in found(whole, unresized(image)).bboxes.tolist()} == boxes
    assert seen[-1] == (310, 430)


def test_an_object_that_each_window_cuts_is_not_found_in_parts(make, unresized):
    image = np.zeros((100, 300, 3), np.uint8)
    image[40:60] = 255
    model = find_bright_squares(make(pyramid=one_level(), window_size=96))
    assert len(found(model, unresized(image))) == 0
    model = find_bright_squares(make(pyramid=one_level(), window_size=300))
    assert found(model, unresized(image)).bboxes.tolist() == [[0, 40, 300, 60]]


@pytest.mark.parametrize('edge', [0, 10])
def test_near_an_edge_of_its_window_nothing_is_taken(make, edge):
    """The edge is in pixels of the level, boxes are in original pixels."""
    model = make(pyramid=one_level(2.0), edge=edge)
    scene = pyramid_detector.Scene(torch.zeros(3, 100, 100))
    window = Window(0, 0, (10, 0, 100, 100), (0, 0, 100, 100), (200, 180))
    near = instances([[x, 20, 50, 50] for x in (0.0, 0.5, 4.9, 5.1)], [0.9] * 4)  # in the window
    kept = model._keep(near, window, scene).bboxes[:, 0].tolist()
    assert kept == pytest.approx([15.1] if edge else [10.5, 14.9, 15.1])


@pytest.mark.parametrize(
    ('box', 'kept'),
    [
        ([30, 30, 50, 50], True),
        ([20, 30, 50, 50], False),  # at the left edge of the window
        ([24, 30, 50, 50], False),  # within 5 px of it
        ([26, 30, 50, 50], True),
        ([30, 0, 50, 50], True),  # the top edge is that of the image
        ([30, 30, 79, 50], False),
        ([30, 30, 50, 60], True),  # the bottom edge, too
    ],
)
def test_what_an_edge_cuts_is_dropped_unless_the_edge_is_the_images(box, kept):
    window, size = (20, 0, 80, 60), (200, 60)
    assert uncut(torch.tensor([box]).float(), window, size, 5).tolist() == [kept]


def count_inputs(model):
    """Shapes of the batches that the network sees."""
    shapes, forward = [], model.data_preprocessor.forward

    def counting(data, training):
        out = forward(data, training)
        shapes.append(tuple(out['inputs'].shape))
        return out

    model.data_preprocessor.forward = counting
    return shapes


def test_windows_of_one_size_go_together_up_to_a_number_of_pixels(make, picture, unresized):
    pyramid = dict(chip_size=64, levels=[one_level(f)['levels'][0] for f in (1.0, 0.5)])
    model = make(pyramid=pyramid, batch_pixels=2 * 256 * 192)
    shapes = count_inputs(model)
    model.test_step(unresized(*[picture(230, 190, i) for i in range(3)]))
    assert shapes == [(3, 3, 96, 128), (2, 3, 192, 256), (1, 3, 192, 256)]


def test_images_in_a_batch_have_the_results_that_they_have_alone(make, picture, unresized):
    model = make('FasterRCNN', window_size=200)
    images = [picture(230, 190, 1), picture(100, 300, 2), picture(20, 17, 3), picture(230, 190, 4)]
    for image, result in zip(images, model.test_step(unresized(*images))):
        alone = found(model, unresized(image))
        assert result.img_shape == image.shape[:2]
        assert abs(len(result.pred_instances) - len(alone)) <= 2  # scores at the threshold
        boxes = result.pred_instances.bboxes
        assert (boxes >= 0).all()
        assert (boxes <= boxes.new_tensor([*image.shape[1::-1]] * 2) + 1e-3).all()
        torch.testing.assert_close(boxes[:10], alone.bboxes[:10], atol=1e-2, rtol=1e-3)


def test_an_image_smaller_than_a_chip(make, picture, unresized):
    model = make()
    shapes = count_inputs(model)
    model.test_step(unresized(picture(9, 5)))
    assert shapes == [(1, 3, 32, 32)] * 2


def test_levels_are_those_of_the_test_rules(make, picture, unresized):
    """Of the finest level it is 1.5 instead of 3."""
    model = make()
    shapes = count_inputs(model)
    model.test_step(unresized(picture(230, 190)))
    assert shapes == [(1, 3, 160, 192), (1, 3, 288, 352)]


# Images that a pipeline has resized, and validation ----------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """The messages in the log."""
    messages = []
    monkeypatch.setattr(pyramid_detector, 'print_log', lambda text, **kwargs: messages.append(text))
    return messages


def resized(batch, scale=(1.0, 1.0)):
    batch = copy.deepcopy(batch)
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(scale_factor=scale))
    return batch


@pytest.mark.parametrize('step', ['test_step', 'val_step'])
def test_resized_images_are_detected_as_they_are_and_the_log_says_so_once(
    make, family_config, picture, unresized, told, step
):
    model, batch = make('FasterRCNN'), resized(unresized(picture()))
    stock = MODELS.build(family_config('FasterRCNN')).eval()
    stock.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = stock.test_step(copy.deepcopy(batch))
        for _ in range(2):
            got = getattr(model, step)(copy.deepcopy(batch))
            assert same(got[0].pred_instances, expected[0].pred_instances)
    (message,) = told
    assert 'Take Resize out of the pipeline' in message
    assert step.split('_')[0] in message


def test_validation_sees_its_levels_and_test_sees_all(make, picture, unresized, told):
    model, batch = make(val_levels=[1]), unresized(picture())
    shapes = count_inputs(model)
    (result,) = model.val_step(batch)
    assert shapes == [(1, 3, 160, 192)]
    assert set(result.pred_instances.levels.tolist()) == {1}
    model.val_step(batch)
    model.test_step(batch)
    assert len(shapes) == 4
    told = [message for message in told if 'every image is seen' in message]
    assert [message.split(':')[0] for message in told] == ['validation', 'test']
    assert 'levels 1 (objects of 30 to 90 px)' in told[0]
    assert 'levels 0 (objects of 0 to 50 px), 1' in told[1]
    assert told[1].endswith('; detections of 90 px and more, in no level, are dropped')


def test_that_detections_are_dropped_is_not_told_where_levels_have_all_sizes(
    make, picture, unresized, told
):
    pyramid = copy.deepcopy(PYRAMID)
    pyramid['levels'][1].update(valid_range=(30, None), test_range=None)
    make(pyramid=pyramid).test_step(unresized(picture()))
    (message,) = (message for message in told if 'every image is seen' in message)
    assert 'dropped' not in message


@pytest.mark.parametrize(('train', 'warnings'), [(3.0, 1), (FINE, 0)])
def test_a_scale_that_is_not_that_of_training_is_told_once(
    make, picture, unresized, told, train, warnings
):
    """The fine level is tested at 1.5."""
    pyramid = copy.deepcopy(PYRAMID)
    pyramid['levels'][0]['resize'] = dict(factor=train)
    model = make(pyramid=pyramid)
    for _ in range(2):
        model.test_step(unresized(picture()))
    assert sum('trains level 0 at 2 times' in message for message in told) == warnings
    assert len(told) == 1 + warnings


def test_scales_that_are_not_far_off_are_judged_after_some_images(make, unresized, told):
    """As one of COCO's small images may be the first."""
    pyramid = copy.deepcopy(PYRAMID)
    pyramid['levels'][0]['resize'] = dict(factor=1.4 * FINE)
    model = make(pyramid=pyramid)
    blank = np.zeros((40, 40, 3), np.uint8)
    for count in (49, 1):
        assert not any('trains level 0 at 1.4 times' in message for message in told)
        model.test_step(unresized(*[blank] * count))
    assert sum('trains level 0 at 1.4 times' in message for message in told) == 1


def test_images_of_one_channel(make, family_config, unresized):
    """OpenCV drops their third axis."""
    cfg = family_config('RetinaNet')
    one = dict(cfg.data_preprocessor, mean=[100.0], std=[50.0], bgr_to_rgb=False)
    model = make(backbone=dict(cfg.backbone, in_channels=1), data_preprocessor=one)
    (result,) = model.test_step(unresized(np.zeros((60, 80, 1), np.uint8)))
    assert result.pred_instances.bboxes.shape[1] == 4


def test_half_precision_finds_places_in_float(make, picture, unresized):
    model = make()
    with torch.autocast('cpu', torch.bfloat16):
        (result,) = model.test_step(unresized(picture()))
    assert len(result.pred_instances)
    assert {result.pred_instances[key].dtype for key in ('bboxes', 'scores')} == {torch.float32}


def test_nothing_but_what_may_be_merged_is_kept_of_a_window(make, picture, unresized):
    _, batches = make().detect(unresized(picture())['inputs'], [0, 1])
    assert batches
    assert all('pred_instances' not in sample for batch in batches for sample in batch.samples)


def test_a_part_of_the_merging_nms_can_be_set_or_none_taken(make, picture, unresized):
    merge = make(merge_cfg=dict(nms=dict(sigma=0.3))).merge_cfg.nms
    assert merge == dict(type='soft_nms', method='gaussian', sigma=0.3, min_score=0.001)
    everything = make(merge_cfg=dict(nms=None, max_per_img=-1, nms_pre=-1))
    (result,) = everything.test_step(unresized(picture()))
    scenes, _ = everything.detect(unresized(picture())['inputs'], [0, 1])
    assert len(result.pred_instances) == sum(map(len, scenes[0].found)) > 0


def test_ground_truth_comes_out_as_of_any_detector(make, picture, unresized):
    """Metrics and visualizers take its boxes for tensors."""
    data = unresized(picture())
    (sample,) = data['data_samples']
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes([[5.0, 5, 40, 40]]), labels=torch.tensor([1])
    )
    for step in ('test_step', 'unmerged_step'):
        (result,) = getattr(make(), step)(copy.deepcopy(data))
        assert type(result.gt_instances.bboxes) is torch.Tensor
        assert result.gt_instances.bboxes.tolist() == [[5, 5, 40, 40]]


# Weights -----------------------------------------------------------------------------------------


def with_targets(*sides):
    images, samples = [], []
    for i, side in enumerate(sides):
        noise = np.random.default_rng(i).integers(0, 256, (3, side, side), np.uint8)
        info = dict(img_shape=(side, side), ori_shape=(side, side), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=dict(info, homography_matrix=np.eye(3)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[5.0, 5, 40, 40]]), labels=torch.tensor([1])
        )
        sample.ignored_instances = instances([], [])
        sample.ignored_instances.pop('scores')
        images.append(torch.from_numpy(noise))
        samples.append(sample)
    return [dict(inputs=image, data_samples=sample) for image, sample in zip(images, samples)]


@pytest.mark.parametrize('family', ['FasterRCNN', 'RTMDet', 'DINO', 'DDQ'])
def test_it_is_the_detector_and_weights_of_either_are_those_of_the_other(
    make, family_config, family
):
    model, stock = make(family), MODELS.build(family_config(family))
    assert isinstance(model, PyramidDetector)
    assert isinstance(model, type(stock))
    assert list(model.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(model.state_dict(), strict=True)
    make(family).load_state_dict(stock.state_dict(), strict=True)


def test_it_is_trained_as_the_detector(make, family_config):
    model = make('FasterRCNN').train()
    stock = MODELS.build(family_config('FasterRCNN')).train()
    stock.load_state_dict(model.state_dict())
    losses = []
    for trained in (model, stock):
        torch.manual_seed(0)
        data = trained.data_preprocessor(pseudo_collate(with_targets(96, 64)), True)
        losses.append(trained.parse_losses(trained(**data, mode='loss'))[1])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    'copied',
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: ExponentialMovingAverage(model).module,
    ],
    ids=['deepcopy', 'pickle', 'EMA'],
)
@pytest.mark.parametrize('type', ['PyramidDetector', 'AutoFocus'])
def test_a_copy_finds_the_same_and_has_weights_of_its_own(make, picture, unresized, copied, type):
    focus = dict(focus_head=dict(type='FocusHead', in_channels=32)) if type == 'AutoFocus' else {}
    model, batch = make('FasterRCNN', type=type, **focus), unresized(picture())
    other = copied(model)
    assert other.__class__ is model.__class__
    expected = found(model, batch)
    assert same(found(other, batch), expected)
    for value in other.parameters():
        torch.nn.init.zeros_(value)
    assert same(found(model, batch), expected)
    other.load_state_dict(model.state_dict())
    assert same(found(other, batch), expected)


def test_a_training_with_a_moving_average_is_saved_and_resumed(make, family_config, tmp_path):
    def trained(**kwargs):
        cfg = family_config('FasterRCNN')
        cfg.update(type='PyramidDetector', detector='FasterRCNN', pyramid=PYRAMID)
        cfg.backbone.frozen_stages = -1
        runner = Runner(
            model=cfg,
            work_dir=str(tmp_path),
            train_dataloader=DataLoader(with_targets(96, 64), collate_fn=pseudo_collate),
            train_cfg=dict(by_epoch=False, max_iters=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='EMAHook', momentum=0.5)],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
            default_scope='mmdet',
            randomness=dict(seed=0),
            experiment_name=f'{tmp_path.name}_{len(kwargs)}',
            **kwargs,
        )
        return runner.train()

    last = trained().state_dict()
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    average, weight = saved['state_dict'], 'neck.fpn_convs.0.conv.weight'
    assert not torch.equal(average[weight], last[weight])
    MODELS.build(family_config('FasterRCNN')).load_state_dict(average, strict=True)
    # There is nothing left to train.
    resumed = trained(load_from=str(tmp_path / 'iter_2.pth'), resume=True).state_dict()
    assert list(resumed) == list(last)
    assert all(torch.equal(resumed[key], last[key]) for key in last)


# Batches -----------------------------------------------------------------------------------------


def inputs_of(model):
    """Shapes of the inputs of the network, from now on."""
    shapes = []
    model.backbone.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    return shapes


def test_windows_of_several_images_go_into_one_batch(make, picture, unresized):
    images = [picture(seed=seed) for seed in range(3)]
    model = make(window_size=200)
    shapes = inputs_of(model)
    together = model.test_step(unresized(*images))
    # 230x190 at 0.7 is 161x133; at 1.5, 345x285, six windows of 200x200 an image.
    assert shapes == [(3, 3, 160, 192), (18, 3, 224, 224)]
    for image, ours in zip(images, together):
        expected = found(model, unresized(image))
        assert len(expected) == len(ours.pred_instances)
        assert torch.allclose(ours.pred_instances.scores, expected.scores, atol=1e-5)
    shapes.clear()
    model.batch_pixels = 4 * 224 * 224
    model.test_step(unresized(*images))
    assert [shape[0] for shape in shapes] == [3, 4, 4, 4, 4, 2]


def test_windows_of_unlike_shape_go_together_where_padding_may_be(make, picture, unresized):
    images = picture(230, 190), picture(190, 230)
    for max_padding, expected in ((1.0, [1, 1, 1, 1]), (1.5, [2, 2])):
        model = make(max_padding=max_padding)
        shapes = inputs_of(model)
        results = model.test_step(unresized(*images))
        assert [shape[0] for shape in shapes] == expected
        assert all(len(result.pred_instances) > 0 for result in results)
        for result, image in zip(results, images):  # nothing is found in the padding
            high = result.pred_instances.bboxes.max(dim=0).values[2:]
            assert (high <= torch.tensor(image.shape[1::-1])).all()


# What cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize('type', ['PyramidDetector', 'AutoFocus'])
def test_it_needs_the_type_of_its_detector(family_config, type):
    cfg = family_config('RetinaNet')
    cfg.update(type=type, pyramid=PYRAMID)
    with pytest.raises(ValueError, match=f'{type} needs the type of its detector'):
        MODELS.build(cfg)
    with pytest.raises(ValueError, match="no detector 'RetinaNett' among the MODELS"):
        MODELS.build(dict(cfg, detector='RetinaNett'))


def test_it_needs_a_preprocessor(family_config):
    cfg = family_config('RetinaNet')
    cfg.update(type='PyramidDetector', detector='RetinaNet', pyramid=PYRAMID)
    cfg.pop('data_preprocessor')
    with pytest.raises(ValueError, match='needs the data_preprocessor'):
        MODELS.build(cfg)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(val_levels=[]), r'val_levels must be some of \[0, 1\], got \[\]'),
        (dict(val_levels=[2]), r'must be some of \[0, 1\], got \[2\]'),
        (dict(val_levels=[-1]), 'val_levels'),
        (dict(val_levels=2), r'must be some of \[0, 1\], got'),
        (dict(level_rpn=dict(nms_pre=9)), 'level_rpn is for detectors with an RPN, RetinaNet'),
        (dict(window_size=64), 'window_size 64 must exceed the chip size, 64'),
        (dict(max_padding=0.9), 'max_padding must be at least 1, which is none, got 0.9'),
        (dict(read_ahead=-1), 'read_ahead must be a whole number of at least 0, got -1'),
        (dict(precision='half'), "precision must be one of bf16, fp16, or None .* got 'half'"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)
