"""Rotated boxes in files and pictures."""

import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import RotatedBoxes

from mmsniper.apis.pictures import Pictures
from mmsniper.apis.results import Classes, content_of
from mmsniper.visualization.shrunk import shrunk_instances


@pytest.fixture
def sample():
    boxes = RotatedBoxes(torch.tensor([[100.0, 80.0, 60.0, 20.0, math.pi / 4]]))
    found = InstanceData(
        bboxes=boxes, scores=torch.tensor([0.9]), labels=torch.tensor([1]), levels=torch.tensor([0])
    )
    return DetDataSample(metainfo=dict(ori_shape=(160, 200)), pred_instances=found)


@pytest.fixture
def classes():
    return Classes(['ship', 'plane'], [7, 9], [(255, 0, 0)] * 2, 'a test', '')


def test_results_have_the_rotated_box_and_what_encloses_it(sample, classes):
    (detection,) = content_of(sample, classes)['detections']
    assert detection['category_id'] == 9
    side = 80 / math.sqrt(2)
    expected = [100 - side / 2, 80 - side / 2, side, side]
    assert detection['bbox'] == pytest.approx(expected, abs=2e-3)
    assert detection['rbox'] == pytest.approx([100, 80, 60, 20, math.pi / 4], abs=1e-3)


def test_a_smaller_picture_has_smaller_rotated_boxes(sample):
    shrunk = shrunk_instances(sample.pred_instances, (160, 200), (80, 100))
    expected = [[50.0, 40.0, 30.0, 10.0, math.pi / 4]]
    np.testing.assert_allclose(shrunk.bboxes.tensor.numpy(), expected, rtol=1e-4)
    assert sample.pred_instances.bboxes.tensor[0, 0] == 100  # as it was


def test_pictures_show_the_rotated_box(sample, classes, tmp_path):
    pictures = Pictures(tmp_path, classes, 0.3)
    drawn = pictures._with_boxes(sample, np.zeros((160, 200, 3), np.uint8))
    changed = drawn.any(axis=2)
    corners = sample.pred_instances.bboxes.convert_to('qbox').tensor.view(4, 2).int().tolist()
    for x, y in corners:
        assert changed[y - 2 : y + 3, x - 2 : x + 3].any()
    assert not changed[50:56, 125:129].any()  # a corner of what encloses it
