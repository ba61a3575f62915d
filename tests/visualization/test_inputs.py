"""Inputs of the network as chips to be drawn."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmsniper.chips import NEGATIVE, POSITIVE
from mmsniper.datasets import Chip
from mmsniper.visualization import CROWD, INVALID, VALID
from mmsniper.visualization.chips import PROPOSAL
from mmsniper.visualization.inputs import input_view, with_proposals

MIRRORED = np.array([[-2, 0, 100], [0, 2, -20], [0, 0, 1]], np.float32)
"""A chip of 100 px of which 50 are the image's from (0, 10) on, mirrored."""


def objects(boxes, labels):
    boxes = HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.int64))


def sample(**more):
    return DetDataSample(metainfo=dict(level=1, homography_matrix=MIRRORED, **more))


def test_boxes_are_valid_invalid_or_regions_by_where_they_are_packed_and_their_labels():
    one = sample(chip=Chip(1, (0, 10, 50, 60), NEGATIVE))
    one.gt_instances = objects([[1, 2, 3, 4]], [1])
    one.ignored_instances = objects([[5, 6, 7, 8], [0, 0, 9, 9]], [0, -1])
    image = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    view = input_view(image, one, ('a', 'b'))
    assert view.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]]
    assert view.states.tolist() == [VALID, INVALID, CROWD]
    assert view.names == ['b', 'a', '']
    assert (view.level, view.scale, view.kind) == (1, 2.0, NEGATIVE)
    assert view.image.shape == (2, 4, 3)
    assert view.image[1, 2].tolist() == [6, 14, 22]
    image.zero_()  # as a loader may that uses its memory again
    assert view.image[1, 2].tolist() == [6, 14, 22]


def test_an_input_may_have_no_boxes_and_be_no_chip():
    view = input_view(torch.zeros(4, 8, 8, dtype=torch.int16), sample())
    assert view.boxes.shape == (0, 4)
    assert view.states.tolist() == []
    assert view.kind == POSITIVE


def test_proposals_are_drawn_where_flips_have_put_them():
    one = sample()
    one.gt_instances = objects([[1, 2, 3, 4]], [0])
    view = input_view(torch.zeros(3, 100, 100, dtype=torch.uint8), one, ('a',))
    view = with_proposals(view, [[0, 10, 5, 20], [45, 55, 50, 60]], MIRRORED)
    assert view.boxes.tolist() == [[1, 2, 3, 4], [90, 0, 100, 20], [0, 90, 10, 100]]
    assert view.states.tolist() == [VALID, PROPOSAL, PROPOSAL]
    assert view.names == ['a', '', '']
    assert len(with_proposals(view, np.zeros((0, 4)), MIRRORED).boxes) == 3
