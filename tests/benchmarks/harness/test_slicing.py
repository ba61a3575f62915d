"""What SAHI finds, with its own NMS and with ours."""

from types import SimpleNamespace

import numpy as np
import pytest

sahi_predict = pytest.importorskip('sahi.predict')

from harness.slicing import SOFT_NMS, SlicedDetector, Slicing  # noqa: E402


@pytest.fixture
def detector(monkeypatch):
    """Whatever the slices are, three boxes are found: two of one object, one of another."""

    def found(*args, **kwargs):
        told.update(kwargs)
        return SimpleNamespace(
            object_prediction_list=[
                SimpleNamespace(
                    bbox=SimpleNamespace(to_xyxy=lambda box=box: box),
                    score=SimpleNamespace(value=score),
                    category=SimpleNamespace(id=label),
                )
                for box, score, label in (
                    ([0, 0, 10, 10], 0.5, 1),
                    ([1, 0, 11, 10], 0.9, 1),
                    ([0, 0, 10, 10], 0.8, 0),
                )
            ]
        )

    told = {}
    monkeypatch.setattr(sahi_predict, 'get_sliced_prediction', found)
    monkeypatch.setattr(SlicedDetector, 'model', lambda self, slicing: None)
    return SlicedDetector(None, None, None), told


def test_sahi_merges_as_it_is_told(detector):
    sliced, told = detector
    boxes, scores, labels = sliced.detect('a.jpg', Slicing(80, merge='NMM', metric='IOU'))
    assert (told['postprocess_type'], told['postprocess_match_metric']) == ('NMM', 'IOU')
    assert told['postprocess_match_threshold'] == 0.5
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert labels.tolist() == [1, 0, 1]
    assert boxes[0].tolist() == [1, 0, 11, 10]


def test_soft_nms_lowers_the_score_of_what_overlaps_in_its_class(detector):
    sliced, told = detector
    _, scores, labels = sliced.detect('a.jpg', Slicing(80, merge=SOFT_NMS))
    assert told['postprocess_match_threshold'] > 1  # SAHI leaves all
    iou = 9 / 11
    assert labels.tolist() == [1, 0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5 * np.exp(-(iou**2) / 0.55)], rel=1e-4)


def test_the_best_are_kept(detector):
    _, scores, _ = detector[0].detect('a.jpg', Slicing(80, max_per_img=1))
    assert scores.tolist() == pytest.approx([0.9])


def test_what_is_told_of_a_slicing():
    assert Slicing(80).told() == dict(
        slice=80, overlap=0.2, full_image=True, merge='GREEDYNMM', metric='IOS', confidence=0.25
    )
    assert Slicing(80, zoom=2.0).told()['zoom'] == 2.0
    assert Slicing(80, zoom=2.0).seen == 160
