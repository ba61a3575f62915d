"""False positives are counted where the recall is reached, matched as COCO matches."""

import copy
import io
import json
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from harness.false_positives import OperatingPoint, detection_curve, false_positives_per_image

A, B, C, D = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]
JUNK, MORE_JUNK = [0, 50, 10, 60], [20, 50, 30, 60]


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def truth(*images, categories=(1, 2), distractors=None):
    """A COCO file's content; each image is a list of (box, category id) or (box, id, iscrowd)."""
    annotations = [
        dict(image_id=i, category_id=item[1], bbox=xywh(item[0]), iscrowd=int(len(item) > 2))
        for i, objects in enumerate(images, start=1)
        for item in objects
    ]
    content = dict(
        images=[dict(id=i) for i in range(1, len(images) + 1)],
        categories=[dict(id=c, name=str(c)) for c in categories],
        annotations=[dict(item, id=i) for i, item in enumerate(annotations, start=1)],
    )
    if distractors is not None:
        content['distractors'] = [
            dict(image_id=i, category_id=1, bbox=xywh(box)) for i, box in distractors
        ]
    return content


def predictions(*images):
    """Predictions; each image is a list of (box, score) or (box, score, label)."""
    return [
        dict(
            img_id=i,
            pred_instances=dict(
                bboxes=torch.tensor([item[0] for item in found], dtype=torch.float32),
                scores=torch.tensor([item[1] for item in found], dtype=torch.float32),
                labels=torch.tensor([item[2] if len(item) > 2 else 0 for item in found]),
            ),
        )
        for i, found in enumerate(images, start=1)
    ]


def worked_example():
    """Of 4 objects in 2 images the detections of .9, .7 and .5 find one each, D is not found."""
    return (
        predictions([(A, 0.9), (JUNK, 0.8), (B, 0.7)], [(JUNK, 0.6), (C, 0.5), (MORE_JUNK, 0.4)]),
        truth([(A, 1), (B, 1)], [(C, 1), (D, 1)]),
    )


def test_the_curve_of_a_worked_example():
    curve = detection_curve(*worked_example())
    assert curve.scores == pytest.approx([np.inf, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert curve.recall.tolist() == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert curve.false_positives.tolist() == [0, 0, 0.5, 0.5, 1, 1, 1.5]
    assert curve.on_lookalikes is None


@pytest.mark.parametrize(
    ('recall', 'expected'), [(0.2, 0), (0.25, 0), (0.26, 0.5), (0.5, 0.5), (0.6, 1), (0.75, 1)]
)
def test_the_highest_threshold_that_reaches_the_recall_counts(recall, expected):
    assert false_positives_per_image(*worked_example(), recall) == expected


def test_a_recall_that_is_never_reached_has_no_number():
    assert math.isnan(false_positives_per_image(*worked_example(), 0.8))
    point = detection_curve(*worked_example()).at_recall(1.0)
    assert math.isnan(point.score)
    assert math.isnan(point.recall)


def test_above_a_score_means_above():
    found = predictions([(A, 0.75), (JUNK, 0.5), (MORE_JUNK, 0.5)])
    curve = detection_curve(found, truth([(A, 1), (B, 1)]))
    assert curve.above(0.5) == OperatingPoint(0.75, 0.5, 0, None)
    assert curve.above(0.49) == OperatingPoint(0.5, 0.5, 2, None)
    assert curve.above(0.75) == OperatingPoint(np.inf, 0, 0, None)


@pytest.mark.parametrize('turn', [1, -1])
def test_detections_of_one_score_come_together(turn):
    # No threshold lets A in and keeps the junk of the same score out.
    found = predictions([(A, 0.5), (JUNK, 0.5), (MORE_JUNK, 0.5), (B, 0.25)][::turn])
    curve = detection_curve(found, truth([(A, 1), (B, 1)]))
    assert curve.scores.tolist() == [np.inf, 0.5, 0.25]
    assert curve.at_recall(0.5).false_positives == 2
    assert curve.at_recall(1.0).false_positives == 2


def test_what_lies_on_a_crowd_counts_neither_way():
    content = truth([(A, 1), ([100, 0, 200, 100], 1, 'crowd')])
    in_crowd = [([110, 10, 120, 20], 0.9), ([150, 50, 160, 60], 0.8)]
    curve = detection_curve(predictions([*in_crowd, (JUNK, 0.7), (A, 0.6)]), content)
    assert curve.scores == pytest.approx([np.inf, 0.7, 0.6])
    assert curve.at_recall(1.0).false_positives == 1  # the crowd is no object to find


def test_a_crowd_excuses_only_its_own_class():
    content = truth([(A, 1), ([100, 0, 200, 100], 1, 'crowd')])
    found = predictions([([110, 10, 120, 20], 0.9, 1), (A, 0.6)])
    assert false_positives_per_image(found, content, 1.0) == 1


def test_finding_an_object_twice_is_a_false_positive():
    found = predictions([(A, 0.9), (A, 0.8), (B, 0.7)])
    assert false_positives_per_image(found, truth([(A, 1), (B, 1)]), 1.0) == 1


def test_the_wrong_class_is_a_false_positive():
    curve = detection_curve(predictions([(A, 0.9, 1), (A, 0.8)]), truth([(A, 1)]))
    assert curve.at_recall(1.0).false_positives == 1


def test_labels_count_the_categories_in_the_order_of_the_file():
    content = truth([(A, 7), (B, 3)], categories=(7, 3))
    assert false_positives_per_image(predictions([(A, 0.9, 0), (B, 0.8, 1)]), content, 1.0) == 0


def test_a_match_starts_at_the_iou_threshold():
    half = predictions([([0, 0, 10, 5], 0.9)])  # IoU 0.5 with A
    content = truth([(A, 1)])
    assert false_positives_per_image(half, content, 1.0, iou_thr=0.5) == 0
    assert math.isnan(false_positives_per_image(half, content, 1.0, iou_thr=0.51))


def test_an_image_without_objects_counts_and_so_do_the_false_positives_in_it():
    content = truth([(A, 1)], [], [])
    found = predictions([(A, 0.5)], [(JUNK, 0.9), (MORE_JUNK, 0.8)], [])
    assert false_positives_per_image(found, content, 1.0) == pytest.approx(2 / 3)


def test_a_class_without_objects_shares_the_threshold_of_the_others():
    found = predictions([(A, 0.5), (JUNK, 0.9, 1), (MORE_JUNK, 0.3, 1)])
    assert false_positives_per_image(found, truth([(A, 1)]), 1.0) == 1


def test_without_detections_no_recall_is_reached_and_nothing_is_wrong():
    curve = detection_curve(predictions([], []), truth([(A, 1)], []))
    assert math.isnan(curve.at_recall(0.5).false_positives)
    assert curve.above(0.5) == OperatingPoint(np.inf, 0, 0, None)


def test_without_objects_there_is_no_recall():
    curve = detection_curve(predictions([(JUNK, 0.9)]), truth([]))
    assert math.isnan(curve.at_recall(0.5).false_positives)
    assert math.isnan(curve.above(0.5).recall)
    assert curve.above(0.5).false_positives == 1


def test_a_hundred_detections_of_an_image_and_class_count():
    junk = [(JUNK, 0.9)] * 100
    content = truth([(A, 1), (B, 2)])
    curve = detection_curve(predictions([*junk, (A, 0.5), (B, 0.4, 1)]), content)
    assert curve.above(0.0) == OperatingPoint(pytest.approx(0.4), 0.5, 100, None)


def test_an_object_with_the_id_0_can_be_found():
    content = truth([(A, 1)])
    content['annotations'][0]['id'] = 0  # which COCOeval takes for no match
    assert false_positives_per_image(predictions([(A, 0.9)]), content, 1.0) == 0


def test_area_and_crowd_flag_may_be_left_out_of_the_annotations():
    content = truth([(A, 1)])
    del content['annotations'][0]['iscrowd']
    assert 'area' not in content['annotations'][0]
    assert false_positives_per_image(predictions([(A, 0.9)]), content, 1.0) == 0


def test_false_positives_on_lookalikes_are_told_apart():
    content = truth([(A, 1)], [(B, 1)], distractors=[(1, JUNK), (2, MORE_JUNK)])
    near = [20, 50, 30, 57]  # IoU 0.7 with the second image's look-alike
    found = predictions(
        [(JUNK, 0.9, 1), (MORE_JUNK, 0.8), (A, 0.7)], [(near, 0.6), (B, 0.5), (JUNK, 0.4)]
    )
    curve = detection_curve(found, content)
    assert curve.false_positives.tolist() == [0, 0.5, 1, 1, 1.5, 1.5, 2]
    assert curve.on_lookalikes.tolist() == [0, 0.5, 0.5, 0.5, 1, 1, 1]
    assert curve.at_recall(0.5).on_lookalikes == 0.5
    assert math.isnan(detection_curve(predictions([], []), content).at_recall(1.0).on_lookalikes)


def test_a_found_object_is_no_false_positive_wherever_it_lies():
    content = truth([(A, 1)], distractors=[(1, A)])
    assert detection_curve(predictions([(A, 0.9)]), content).above(0).on_lookalikes == 0


def test_lookalikes_may_be_recorded_and_be_none():
    curve = detection_curve(predictions([(JUNK, 0.9)]), truth([(A, 1)], distractors=[]))
    assert curve.above(0).on_lookalikes == 0


def test_annotations_are_a_file_its_content_or_an_opened_one(tmp_path):
    found, content = worked_example()
    before = copy.deepcopy(content)
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    with redirect_stdout(io.StringIO()):
        opened = COCO(str(path))
    for annotations in (content, path, str(path), opened):
        assert false_positives_per_image(found, annotations, 0.75) == 1
    assert content == opened.dataset == before


def test_other_images_than_the_annotated_ones_are_refused():
    found, content = worked_example()
    with pytest.raises(ValueError, match='got 1 for 2 images.* has the id 2'):
        detection_curve(found[:1], content)
    with pytest.raises(ValueError, match='got 3 for 2 images.* has the id 1'):
        detection_curve([*found, found[0]], content)


def test_labels_of_other_classes_are_refused():
    with pytest.raises(ValueError, match='image 1 go from 0 to 2.*2 categories'):
        detection_curve(predictions([(A, 0.5), (B, 0.5, 2)]), truth([(A, 1)]))


@pytest.mark.parametrize('recall', [0, -0.1, 1.1, math.nan])
def test_an_impossible_recall_is_refused(recall):
    with pytest.raises(ValueError, match=r'in \(0, 1\]'):
        detection_curve(*worked_example()).at_recall(recall)


CELLS = [[20 * i, 0, 20 * i + 10, 10] for i in range(6)]
detections_of_cells = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(CELLS), st.sampled_from([0.25, 0.5, 0.75])),
    max_size=20,
)


@given(
    objects=st.lists(st.sets(st.integers(0, 5), max_size=6), min_size=3, max_size=3),
    found=detections_of_cells,
    recall=st.sampled_from([0.1, 0.5, 2 / 3, 0.8, 1.0]),
)
def test_it_agrees_with_counting_at_every_threshold(objects, found, recall):
    """Boxes lie in cells, so that matching is to be the first in an object's cell."""
    content = truth(*([(CELLS[i], 1) for i in sorted(cells)] for cells in objects))
    samples = predictions(*([(b, s) for i, b, s in found if i == image] for image in range(3)))
    total = sum(map(len, objects))
    expected = math.nan
    for threshold in (0.75, 0.5, 0.25):
        kept = [(image, CELLS.index(box)) for image, box, score in found if score >= threshold]
        right = {(image, cell) for image, cell in kept if cell in objects[image]}
        if total and len(right) / total >= recall:
            expected = (len(kept) - len(right)) / 3
            break
    answer = false_positives_per_image(samples, content, recall)
    assert answer == pytest.approx(expected, nan_ok=True)
