"""Detections in the pixels of a smaller picture."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from pycocotools import mask as coco_masks

from mmsniper.visualization.shrunk import shrunk_instances, shrunk_sample

IMAGE, PICTURE = (80, 200), (40, 50)


def instances(**more):
    boxes = torch.tensor([[40.0, 20, 80, 60]])
    return InstanceData(bboxes=boxes, labels=torch.tensor([1]), **more)


def test_boxes_are_in_the_pixels_of_the_picture():
    got = shrunk_instances(instances(scores=torch.tensor([0.5])), IMAGE, PICTURE)
    assert got.bboxes.tolist() == [[10, 10, 20, 30]]
    assert (got.labels.tolist(), got.scores.tolist()) == ([1], [0.5])


def test_masks_are_too_whatever_they_are():
    mask = np.zeros((1, *IMAGE), bool)
    mask[0, 20:60, 40:80] = True
    rle = coco_masks.encode(np.asfortranarray(mask[0].astype(np.uint8)))
    expected = np.zeros((1, *PICTURE), bool)
    expected[0, 10:30, 10:20] = True
    for masks in (torch.from_numpy(mask), mask, [rle]):
        got = shrunk_instances(instances(masks=masks), IMAGE, PICTURE)
        np.testing.assert_array_equal(got.masks, expected)


def test_a_sample_keeps_its_metainfo_and_is_itself_at_its_own_size():
    truth = InstanceData(bboxes=HorizontalBoxes([[0, 0, 4, 2]]), labels=torch.tensor([0]))
    sample = DetDataSample(metainfo=dict(img_id=3), pred_instances=instances(), gt_instances=truth)
    got = shrunk_sample(sample, IMAGE, PICTURE)
    assert got.img_id == 3
    assert got.pred_instances.bboxes.tolist() == [[10, 10, 20, 30]]
    assert got.gt_instances.bboxes.tolist() == [[0, 0, 1, 1]]
    assert shrunk_sample(sample, IMAGE, IMAGE) is sample
