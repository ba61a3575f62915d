"""``--tta``: views of an image, each seen at all levels, are merged once."""

import copy
import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import InstanceData
from scipy import ndimage

from mmsniper.models import SNIPERTTAModel

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 20)),
        dict(resize=dict(factor=0.5), valid_range=(16, None)),
    ],
)


def views(*images, flips=(0.0,)):
    """Images as a ``tta_pipeline`` gives them: unresized, and mirrored."""
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction')
    pipeline = Compose(
        [
            dict(
                type='TestTimeAug',
                transforms=[
                    [dict(type='RandomFlip', prob=p) for p in flips],
                    [dict(type='PackDetInputs', meta_keys=keys)],
                ],
            )
        ]
    )
    return pseudo_collate(
        [
            pipeline(
                dict(
                    img=image,
                    img_id=i,
                    img_path='x.jpg',
                    img_shape=image.shape[:2],
                    ori_shape=image.shape[:2],
                )
            )
            for i, image in enumerate(images)
        ]
    )


def find_bright_squares(model):
    """A detector that sees white squares on black, the larger ones better."""

    def predict(inputs, samples, rescale):
        model.extract_feat(inputs)
        for pixels, sample in zip(inputs, samples):
            height, width = sample.metainfo['img_shape']
            bright = pixels[0, :height, :width].numpy() > 0
            slices = ndimage.find_objects(ndimage.label(bright)[0])
            boxes = torch.tensor([[x.start, y.start, x.stop, y.stop] for y, x in slices])
            boxes = boxes.reshape(-1, 4) / torch.tensor(sample.metainfo['scale_factor']).repeat(2)
            sample.pred_instances = InstanceData(
                bboxes=boxes,
                scores=(boxes[:, 2] - boxes[:, 0]) / 100,
                labels=torch.zeros(len(boxes), dtype=torch.long),
            )
        return samples

    model.predict = predict
    return model


def black_with(width, height, *squares):
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image


@pytest.mark.parametrize('family', ['FasterRCNN', 'MaskRCNN', 'DINO'])
def test_a_single_view_is_tested_as_without_augmentation(at_levels, picture, unresized, family):
    """Masks included."""
    model, images = at_levels(family, PYRAMID), [picture(160, 120, 1), picture(90, 130, 2)]
    expected = model.test_step(unresized(*images))
    for got, result in zip(SNIPERTTAModel(module=model).test_step(views(*images)), expected):
        assert set(got.pred_instances.keys()) == set(result.pred_instances.keys())
        assert ('masks' in got.pred_instances) == (family == 'MaskRCNN')
        for key, values in got.pred_instances.items():
            assert torch.equal(values, result.pred_instances[key])


def test_a_mirrored_view_finds_the_same_boxes(at_levels):
    """Each level's twin has an IoU of 1, so Soft-NMS decays it by exp(-1 / 0.55)."""
    model = find_bright_squares(at_levels('RetinaNet', PYRAMID))
    # 10 px are the fine level's, 40 px the coarse one's.
    images = [black_with(200, 100, (20, 30, 40), (150, 60, 10)), black_with(60, 80, (4, 6, 10))]
    boxes = [[[20, 30, 60, 70], [150, 60, 160, 70]], [[4, 6, 14, 16]]]
    tta = SNIPERTTAModel(module=model)
    one = tta.test_step(views(*images))
    two = tta.test_step(views(*images, flips=(0.0, 1.0)))
    twin = math.exp(-1 / 0.55)
    for expected, alone, both in zip(boxes, one, two):
        assert alone.pred_instances.bboxes.tolist() == expected
        scores = alone.pred_instances.scores.tolist()
        merged = both.pred_instances
        pairs = sorted([*scores, *(s * twin for s in scores)], reverse=True)
        assert merged.scores.tolist() == pytest.approx(pairs)
        assert {tuple(box) for box in merged.bboxes.tolist()} == {tuple(box) for box in expected}
        assert len(merged) == 2 * len(expected)


def test_views_are_merged_as_the_detector_merges_levels(at_levels):
    merge_cfg = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=1)
    model = find_bright_squares(at_levels('RetinaNet', PYRAMID, merge_cfg=merge_cfg))
    image = black_with(200, 100, (20, 30, 40), (150, 60, 10))
    (result,) = SNIPERTTAModel(module=model).test_step(views(image, flips=(0.0, 1.0)))
    assert result.pred_instances.bboxes.tolist() == [[20, 30, 60, 70]]


def test_several_views_of_a_detector_with_masks_give_boxes_only(at_levels, picture):
    tta = SNIPERTTAModel(module=at_levels('MaskRCNN', PYRAMID))
    (result,) = tta.test_step(views(picture(160, 120), flips=(0.0, 1.0)))
    assert len(result.pred_instances) > 0
    assert 'masks' not in result.pred_instances


def test_views_that_a_pipeline_has_resized_are_not_merged(at_levels, picture):
    tta = SNIPERTTAModel(module=at_levels('RetinaNet', PYRAMID))
    batch = views(picture(160, 120), flips=(0.0, 1.0))
    for sample in batch['data_samples'][1]:
        sample.set_metainfo(dict(scale_factor=(2.0, 2.0)))
    with pytest.raises(ValueError, match='tta_pipeline'):
        tta.test_step(batch)


def test_an_image_without_detections(at_levels, picture):
    tta = SNIPERTTAModel(module=at_levels('RetinaNet', PYRAMID, merge_cfg=dict(score_thr=1.1)))
    (result,) = tta.test_step(views(picture(160, 120), flips=(0.0, 1.0)))
    assert result.pred_instances.bboxes.shape == (0, 4)


def test_it_is_built_of_the_config_of_a_detector(family_config):
    """As ``tools/test.py --tta`` does."""
    module = family_config('RetinaNet')
    module.update(type='PyramidDetector', detector='RetinaNet', pyramid=PYRAMID)
    tta = MODELS.build(dict(type='SNIPERTTAModel', module=copy.deepcopy(module)))
    assert tta.module.pyramid.num_levels == 2


def test_another_detector_is_refused(family_config):
    with pytest.raises(TypeError, match="type='PyramidDetector', detector='RetinaNet'"):
        MODELS.build(dict(type='SNIPERTTAModel', module=family_config('RetinaNet')))


@pytest.mark.parametrize('key', ['tta_cfg', 'pyramid', 'view_test_cfg'])
def test_settings_that_are_the_detectors_are_refused(at_levels, key):
    with pytest.raises(TypeError, match=key):
        SNIPERTTAModel(module=at_levels('RetinaNet', PYRAMID), **{key: {}})
