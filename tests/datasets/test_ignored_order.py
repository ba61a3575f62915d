"""Invalid objects come first where labels are on the host; models then need not look at them."""

import pickle

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmsniper.datasets.ignored_order import INVALID_FIRST, sort_ignored
from mmsniper.models import split_ignored


def sample(labels, masks=False):
    n = len(labels)
    boxes = torch.arange(4.0 * n).reshape(n, 4)
    ignored = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor(labels).long())
    if masks:
        bits = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
        ignored.masks = BitmapMasks(bits, 4, 4)
    made = DetDataSample()
    made.ignored_instances = ignored
    return made


def parts(ignored):
    return [
        (p.labels.tolist(), p.bboxes.tensor.tolist()) if p is not None else ([], [])
        for p in split_ignored(ignored)
    ]


@pytest.mark.parametrize('labels', [[-1, 3, -1, 0, 3], [2, -1], [1, 1], [-1], []])
@pytest.mark.parametrize('masks', [False, True])
def test_the_parts_are_as_by_their_labels(labels, masks):
    plain, made = sample(labels, masks), sample(labels, masks)
    sort_ignored(made)
    ignored = made.ignored_instances
    assert ignored.get(INVALID_FIRST) == (sum(v >= 0 for v in labels), len(labels))
    assert parts(ignored) == parts(plain.ignored_instances)
    # Workers send samples to the main process, and a preprocessor sends them to a GPU.
    sent = pickle.loads(pickle.dumps(made)).to('cpu').ignored_instances
    assert parts(sent) == parts(plain.ignored_instances)
    if masks and labels:
        for ours, theirs in zip(split_ignored(ignored), split_ignored(plain.ignored_instances)):
            if ours is not None:
                assert ours.masks.masks.tolist() == theirs.masks.masks.tolist()


@pytest.mark.parametrize(('labels', 'of'), [([-1, -1], 0), ([2, 1], 1), ([], 0)])
def test_nothing_is_copied_where_all_are_of_one_kind(labels, of):
    made = sample(labels)
    sort_ignored(made)
    ignored = made.ignored_instances
    split = split_ignored(ignored)
    assert split[of] is ignored
    assert split[1 - of] is None


def test_labels_are_not_looked_at_again():
    made = sample([4, -1])
    sort_ignored(made)
    made.ignored_instances.labels[:] = -1
    assert [len(part) for part in split_ignored(made.ignored_instances)] == [1, 1]


def test_what_was_taken_out_later_is_split_by_labels():
    made = sample([-1, 3, -1, 0, 3])
    sort_ignored(made)
    fewer = made.ignored_instances[torch.tensor([0, 3, 4])]
    assert [part.labels.tolist() for part in split_ignored(fewer)] == [[-1, -1], [3]]


def test_without_labels_or_ignored_instances_nothing_is_done():
    made = DetDataSample()
    sort_ignored(made)
    assert 'ignored_instances' not in made
    made.ignored_instances = InstanceData(bboxes=torch.zeros(1, 4))
    sort_ignored(made)
    assert INVALID_FIRST not in made.ignored_instances
