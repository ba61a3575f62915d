"""Which detections are wrong, what they are, and thresholds at equal error or equal recall."""

import math

import numpy as np
import pytest

from mmsniper.utils.coco_matching import KINDS, counts_by_threshold, explain, match_as_coco

A, B = [0, 0, 10, 10], [20, 0, 30, 10]
JUNK = [0, 50, 10, 60]
PERSON, DOG = 0, 1


def matched(objects, detections, images=1):
    """Match in the first image: objects are (box, label, crowd), detections (box, label, score)."""
    content = dict(
        images=[dict(id=i) for i in range(images)],
        categories=[dict(id=9, name='person'), dict(id=4, name='dog')],
        annotations=[
            dict(
                image_id=0,
                category_id=(9, 4)[label],
                bbox=[x0, y0, x1 - x0, y1 - y0],
                iscrowd=crowd,
            )
            for (x0, y0, x1, y1), label, crowd in objects
        ],
    )
    found = dict(
        bboxes=[box for box, _, _ in detections],
        labels=[label for _, label, _ in detections],
        scores=[score for _, _, score in detections],
    )
    none = dict(bboxes=[], labels=[], scores=[])
    samples = [dict(img_id=i, pred_instances=none if i else found) for i in range(images)]
    return match_as_coco(samples, content)


def explained(objects, box, label=PERSON, others=()):
    """What one false positive is."""
    matching = matched(objects, [*others, (box, label, 0.1)])
    (wrong,) = matching.false_positives()
    explanation = explain(matching, [wrong])
    return str(explanation.kind[0]), int(explanation.object[0]), float(explanation.iou[0])


def test_nothing_overlaps_background():
    assert explained([], JUNK) == ('background', -1, 0)
    assert explained([(A, PERSON, 0)], JUNK) == ('background', -1, 0)
    # IoU 1/10 is near, just below is not.
    assert explained([(A, PERSON, 0)], [0, 0, 10, 0.99])[0] == 'background'
    assert explained([(A, PERSON, 0)], [0, 0, 10, 1])[0] == 'badly placed'


def test_an_object_of_the_class_below_the_threshold_is_badly_placed():
    assert explained([(B, PERSON, 0), (A, PERSON, 0)], [0, 0, 10, 4]) == ('badly placed', 1, 0.4)


def test_an_object_of_another_class_at_the_threshold_is_another_class():
    assert explained([(A, DOG, 0)], [0, 0, 10, 5]) == ('another class', 0, 0.5)
    assert explained([(A, DOG, 0)], [0, 0, 10, 4]) == ('near another class', 0, 0.4)


def test_an_object_that_another_detection_has_is_found_twice():
    assert explained([(A, PERSON, 0)], [0, 0, 10, 8], others=[(A, PERSON, 0.9)]) == (
        'found twice',
        0,
        0.8,
    )


def test_the_better_explanation_wins():
    both = [(A, DOG, 0), ([0, 0, 10, 30], PERSON, 0)]
    assert explained(both, A)[:2] == ('another class', 0)  # and a person at IoU 1/3
    assert explained(both, [0, 0, 10, 4])[:2] == ('badly placed', 1)  # and a dog at IoU 0.4
    twice = [(A, DOG, 0), (A, PERSON, 0)]
    assert explained(twice, A, others=[(A, PERSON, 0.9)])[:2] == ('found twice', 1)


def test_a_crowd_excuses_its_class_and_explains_nothing():
    matching = matched([(A, PERSON, 1)], [(A, PERSON, 0.9), (A, DOG, 0.8), ([0, 0, 2, 2], 0, 0.7)])
    assert matching.scores.tolist() == [0.8]  # those on the crowd of their class do not count
    assert matching.num_objects == 0
    assert explain(matching, [0]).kind.tolist() == ['background']


def test_false_positives_come_by_falling_score_from_a_threshold_on():
    matching = matched([(A, PERSON, 0)], [(JUNK, 0, 0.2), (A, 0, 0.5), (B, 1, 0.7), (B, 0, 0.4)])
    assert matching.scores[matching.false_positives()].tolist() == [0.7, 0.4, 0.2]
    assert matching.scores[matching.false_positives(0.4)].tolist() == [0.7, 0.4]


def test_thresholds_at_equal_error_and_at_equal_recall():
    matching = matched(
        [(A, PERSON, 0), (B, PERSON, 0)],
        [(A, PERSON, 0.9), (JUNK, PERSON, 0.8), (B, PERSON, 0.7), (JUNK, DOG, 0.6), (JUNK, 0, 0.6)],
        images=2,
    )
    assert matching.threshold_at_false_positives(0) == 0.9
    assert matching.threshold_at_false_positives(0.5) == 0.7
    assert matching.threshold_at_false_positives(1) == 0.7  # the next two come together
    assert matching.threshold_at_false_positives(1.5) == 0.6
    assert matching.threshold_at_recall(0.5) == 0.9
    assert matching.threshold_at_recall(0.51) == 0.7
    assert matching.found_objects(0.8).tolist() == [True, False]
    assert matching.found_objects(0.7).tolist() == [True, True]


def test_where_the_first_detection_is_wrong_no_threshold_has_no_false_positives():
    matching = matched([(A, PERSON, 0)], [(JUNK, PERSON, 0.9), (A, PERSON, 0.8)])
    assert math.isinf(matching.threshold_at_false_positives(0.5))
    assert not matching.found_objects(math.inf).any()


def test_a_recall_that_is_never_reached_is_an_error_that_says_what_is():
    matching = matched([(A, PERSON, 0), (B, PERSON, 0)], [(A, PERSON, 0.9)])
    with pytest.raises(ValueError, match=r'0\.9 is never reached.* find 0\.500 of the 2 objects'):
        matching.threshold_at_recall(0.9)
    with pytest.raises(ValueError, match='no objects to find'):
        matched([], [(A, PERSON, 0.9)]).threshold_at_recall(0.5)
    with pytest.raises(ValueError, match=r'in \(0, 1\]'):
        matching.threshold_at_recall(0)


def test_without_detections_nothing_is_wrong():
    matching = matched([(A, PERSON, 0)], [])
    assert matching.false_positives().tolist() == []
    assert matching.threshold_at_false_positives(1) == math.inf
    assert explain(matching, []).kind.tolist() == []


def test_counts_of_detections_of_the_same_score_come_together():
    thresholds, (first, second) = counts_by_threshold(
        np.array([0.5, 0.7, 0.5]), np.array([1, 1, 0], bool), np.array([0, 0, 1], bool)
    )
    assert thresholds.tolist() == [math.inf, 0.7, 0.5]
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [0, 0, 1])


def test_annotations_of_other_images_and_categories_do_not_count():
    content = dict(
        images=[dict(id=1)],
        categories=[dict(id=1, name='a')],
        annotations=[
            dict(image_id=2, category_id=1, bbox=[0, 0, 10, 10]),
            dict(image_id=1, category_id=2, bbox=[0, 0, 10, 10]),
        ],
    )
    found = dict(bboxes=[A], labels=[0], scores=[0.5])
    matching = match_as_coco([dict(img_id=1, pred_instances=found)], content)
    assert (len(matching.objects), matching.found.tolist()) == (0, [-1])


def test_every_kind_has_a_name_of_its_own():
    assert len(set(KINDS)) == 5
