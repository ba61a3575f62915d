"""Levels keep the detections that suit them, and Soft-NMS merges them (spec section 8)."""

import copy
import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import InstanceData

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models import SNIPERTTAModel
from mmsniper.models.tta import keep_in_test_range

PYRAMID = {
    'chip_size': 64,
    'levels': [
        {
            'resize': {'factor': 2.0},
            'valid_range': (0, 16),
            'test_resize': {'factor': 1.5},
            'test_range': (0, 20),
        },
        {'resize': {'factor': 0.5}, 'valid_range': (12, None), 'test_range': (14, 40)},
    ],
}
FINE, COARSE = 1.5, 0.5
SOFT = {'type': 'soft_nms', 'method': 'gaussian', 'sigma': 0.55, 'min_score': 0.001}
TTA_CFG = {'nms': SOFT, 'max_per_img': 100}


class Detector(torch.nn.Module):
    """Stands in for a detector: its test_step returns the samples that it is given."""

    def test_step(self, data):
        return data['data_samples']


def model(**tta_cfg):
    return SNIPERTTAModel(PYRAMID, {**TTA_CFG, **tta_cfg}, Detector())


def view(boxes, scores, labels=None, scale=FINE, flip=False):
    sample = DetDataSample(
        metainfo={
            'ori_shape': (100, 200),
            'scale_factor': (scale, scale),
            'flip': flip,
            'flip_direction': 'horizontal' if flip else None,
        }
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
        scores=torch.tensor(scores).float(),
        labels=torch.tensor(labels or [0] * len(scores), dtype=torch.long),
    )
    return sample


def squares(*sides):
    """Squares at far places."""
    return [[60.0 * i, 0.0, 60.0 * i + s, s] for i, s in enumerate(sides)]


def merge(*views, **tta_cfg):
    [merged] = model(**tta_cfg).merge_preds([list(views)])
    return merged.pred_instances


class TestTestRanges:
    def test_each_level_keeps_its_own_sizes_and_bounds_are_half_open(self):
        sides = (1, 14, 19.99, 20)
        fine = merge(view(squares(*sides), [0.9, 0.8, 0.7, 0.6], scale=FINE))
        assert fine.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
        sides = (13.99, 14, 39.99, 40)
        coarse = merge(view(squares(*sides), [0.9, 0.8, 0.7, 0.6], scale=COARSE))
        assert coarse.scores.tolist() == pytest.approx([0.8, 0.7])

    def test_the_test_rules_tell_the_level_and_not_those_of_training(self):
        pyramid = ScalePyramid.from_config(
            {
                'chip_size': 64,
                'levels': [
                    {
                        'resize': {'factor': 3.0},
                        'valid_range': (0, 9),
                        'test_resize': {'factor': 1.0},
                    },
                    {
                        'resize': {'factor': 1.0},
                        'valid_range': (9, None),
                        'test_resize': {'factor': 0.2},
                    },
                ],
            }
        )
        kept = keep_in_test_range(view(squares(5, 30), [0.9, 0.8], scale=1.0), pyramid)
        assert kept.pred_instances.scores.tolist() == pytest.approx([0.9])

    def test_levels_that_coincide_keep_what_is_their_own(self):
        levels = [
            {'resize': {'factor': 1.0}, 'valid_range': (0, 16)},
            {'resize': {'long_side': 200}, 'valid_range': (16, None)},
        ]
        pyramid = ScalePyramid.from_config({'chip_size': 64, 'levels': levels})
        for level, score in enumerate((0.9, 0.8)):
            seen = view(squares(5, 30), [0.9, 0.8], scale=1.0)
            seen.set_metainfo({'level': level})
            kept = keep_in_test_range(seen, pyramid).pred_instances
            assert kept.scores.tolist() == pytest.approx([score])

    def test_sizes_are_the_square_root_of_the_area(self):
        long_and_thin = [[0.0, 0.0, 100.0, 3.9], [0.0, 50.0, 100.0, 54.1]]
        assert len(merge(view(long_and_thin, [0.9, 0.8]))) == 1

    def test_views_are_left_as_they_are(self):
        sample = view(squares(10, 30), [0.9, 0.8])
        before = sample.pred_instances
        kept = keep_in_test_range(sample, ScalePyramid.from_config(PYRAMID))
        assert len(kept.pred_instances) == 1
        assert sample.pred_instances is before
        assert len(before) == 2
        assert kept.metainfo == sample.metainfo


class TestMerging:
    # IoU: A and B 0.8, A and C 0.5, B and C 40 / 90.
    A, B, C = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 5.0, 10.0]

    def test_gaussian_soft_nms_worked_out_by_hand(self):
        c = 0.7 * math.exp(-(0.5**2) / 0.55)  # 0.444, so it comes before B
        b = 0.8 * math.exp(-(0.8**2) / 0.55) * math.exp(-((40 / 90) ** 2) / 0.55)  # 0.174
        got = merge(view([self.B, self.A, self.C], [0.8, 0.9, 0.7]))
        assert got.scores.tolist() == pytest.approx([0.9, c, b], abs=1e-6)
        assert got.bboxes.tolist() == [self.A, self.C, self.B]

    def test_the_same_across_levels_and_batches(self):
        box = [0.0, 0.0, 16.0, 16.0]  # in the range of both levels
        views = [view([box], [0.9], scale=FINE), view([box], [0.9], scale=COARSE)]
        decayed = 0.9 * math.exp(-1 / 0.55)
        merged = model().merge_preds([views, views[:1]])
        assert merged[0].pred_instances.scores.tolist() == pytest.approx([0.9, decayed])
        assert merged[1].pred_instances.scores.tolist() == pytest.approx([0.9])

    @pytest.mark.parametrize('split_thr', [10000, 1], ids=['together', 'class by class'])
    def test_classes_do_not_touch_each_other_and_scores_are_sorted(self, split_thr):
        got = merge(
            view([self.A, self.A, self.B, self.B], [0.5, 0.9, 0.4, 0.3], [0, 1, 0, 2]),
            nms={**SOFT, 'split_thr': split_thr},
        )
        decayed = 0.4 * math.exp(-(0.8**2) / 0.55)
        assert got.scores.tolist() == pytest.approx([0.9, 0.5, 0.3, decayed])
        assert got.labels.tolist() == [1, 0, 2, 0]

    def test_min_score_drops_and_max_per_img_caps(self):
        boxes = [self.A, self.A, [50.0, 50, 60, 60]]
        assert len(merge(view(boxes, [0.9, 0.8, 0.7]), nms={**SOFT, 'min_score': 0.2})) == 2
        assert merge(view(boxes, [0.9, 0.8, 0.7]), max_per_img=1).scores.tolist() == (
            pytest.approx([0.9])
        )

    def test_flipped_views_are_flipped_back(self):
        got = merge(view([[180.0, 0.0, 190.0, 10.0]], [0.9], flip=True))
        assert got.bboxes.tolist() == [[10.0, 0.0, 20.0, 10.0]]

    @pytest.mark.parametrize('empty', [view([], []), view(squares(30), [0.99])])
    def test_a_view_without_detections_does_not_matter(self, empty):
        got = merge(empty, view([self.A], [0.9]))
        assert got.bboxes.tolist() == [self.A]

    def test_nothing_in_range_in_any_view_gives_an_empty_result(self):
        got = merge(view(squares(30), [0.9]), view(squares(5), [0.8], scale=COARSE))
        assert got.bboxes.shape == (0, 4)
        assert got.bboxes.dtype == got.scores.dtype == torch.float32
        assert got.scores.shape == got.labels.shape == (0,)
        assert got.labels.dtype == torch.long

    def test_masks_are_refused_as_by_mmdetection(self):
        sample = view([self.A], [0.9])
        sample.pred_instances.masks = torch.zeros(1, 100, 200, dtype=torch.bool)
        with pytest.raises(AssertionError, match='instance segmentation'):
            merge(sample)


class TestWithADetector:
    """The flow of ``tools/test.py --tta`` on a real model."""

    def config(self, small_config, **kwargs):
        module = small_config('faster')
        module.test_cfg.rcnn.score_thr = 0.0
        tta = {'type': 'SNIPERTTAModel', 'pyramid': PYRAMID, 'tta_cfg': TTA_CFG, **kwargs}
        return ConfigDict(**tta, module=module)

    def batch(self):
        keys = ('img_id', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        pipeline = Compose(
            [
                {
                    'type': 'TestTimeAug',
                    'transforms': [
                        [
                            {'type': 'Resize', 'scale_factor': scale, 'keep_ratio': True}
                            for scale in (FINE, COARSE)
                        ],
                        [{'type': 'RandomFlip', 'prob': p} for p in (0.0, 1.0)],
                        [{'type': 'PackDetInputs', 'meta_keys': keys}],
                    ],
                }
            ]
        )
        rng = np.random.default_rng(0)
        shapes = [(90, 120), (64, 64)]
        images = [rng.integers(0, 255, (*s, 3), dtype=np.uint8) for s in shapes]
        return shapes, pseudo_collate(
            [
                pipeline(
                    {'img': i, 'img_id': n, 'img_shape': i.shape[:2], 'ori_shape': i.shape[:2]}
                )
                for n, i in enumerate(images)
            ]
        )

    def test_detections_are_in_original_pixels_and_in_range(self, small_config, build):
        tta = build(self.config(small_config)).eval()
        shapes, batch = self.batch()
        with torch.no_grad():
            merged = tta.test_step(batch)
        assert len(merged) == len(shapes)
        for sample, (height, width) in zip(merged, shapes, strict=True):
            boxes = sample.pred_instances.bboxes
            assert 0 < len(boxes) <= TTA_CFG['max_per_img']
            size = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
            assert size.max() < 40
            assert boxes.min() >= 0
            assert boxes[:, 0::2].max() <= width + 1e-3
            assert boxes[:, 1::2].max() <= height + 1e-3
            assert boxes[:, 0::2].max() > width / 2

    def test_view_test_cfg_changes_what_views_return_and_nothing_else(self, small_config, build):
        config = self.config(small_config, view_test_cfg={'rcnn': {'nms': None, 'max_per_img': 7}})
        before = copy.deepcopy(config.module.test_cfg)
        tta = build(config).eval()
        assert config.module.test_cfg == before
        assert tta.module.roi_head.test_cfg.nms is None
        assert tta.module.roi_head.test_cfg.score_thr == 0.0
        _, batch = self.batch()
        first = {key: value[0] for key, value in batch.items()}
        with torch.no_grad():
            assert len(tta.module.test_step(first)[0].pred_instances) == 7
            assert len(tta.test_step(self.batch()[1])) == 2


class TestErrors:
    @pytest.mark.parametrize('tta_cfg', [None, {}, {'nms': SOFT}, {'max_per_img': 100}])
    def test_a_merge_that_is_not_described_is_refused(self, tta_cfg):
        with pytest.raises(ValueError, match='tta_cfg must say how'):
            SNIPERTTAModel(PYRAMID, tta_cfg, Detector())

    def test_view_test_cfg_needs_a_config(self):
        with pytest.raises(ValueError, match='view_test_cfg needs the config'):
            SNIPERTTAModel(PYRAMID, TTA_CFG, Detector(), view_test_cfg={'rcnn': {}})

    @pytest.mark.parametrize('key', ['scale_factor', 'ori_shape'])
    def test_metainfo_that_is_missing_is_named(self, key):
        sample = view(squares(10), [0.9])
        sample.pop(key)
        with pytest.raises(ValueError, match=key):
            merge(sample)
