"""False detections per image, at the score threshold where a given share of the objects is found.

The threshold of a detector says little by itself: two detectors score differently. Here the recall
is fixed instead, so that what is compared is how much is found by mistake for the same that is
found rightly.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou

MAX_DETS = 100
"""Detections that count, of each image and class, as in COCO's AP."""

LOOKALIKES = 'distractors'
"""Key of the annotations that are no objects, but look like some (:mod:`toy_dataset`)."""

Annotations = COCO | Mapping[str, Any] | str | os.PathLike
"""An opened COCO annotation file, its content, or its path."""


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector finds at one score threshold.

    Attributes:
        score (float): The lowest score that counts.
        recall (float): Share of the objects that is found; nan if there are no objects.
        false_positives (float): Detections that are wrong, per image.
        on_lookalikes (float | None): Those of them that lie on a look-alike; None if the
            annotations record none.
    """

    score: float
    recall: float
    false_positives: float
    on_lookalikes: float | None


@dataclass(frozen=True, eq=False)
class DetectionCurve:
    """What a detector finds as the score threshold falls.

    Detections of the same score come together, for no threshold parts them.

    Attributes:
        scores: inf, where nothing is detected, and the different scores, falling, shape (n,).
        recall: Share of the objects found by what scores at least that much, shape (n,); nan if
            there are no objects.
        false_positives: Wrong detections among them, per image, shape (n,).
        on_lookalikes: Those of the wrong ones that lie on a look-alike, per image, shape (n,);
            None if the annotations record none.
    """

    scores: NDArray[np.float64]
    recall: NDArray[np.float64]
    false_positives: NDArray[np.float64]
    on_lookalikes: NDArray[np.float64] | None = None

    def at_recall(self, recall: float) -> OperatingPoint:
        """The highest threshold that reaches a recall; all nan if none does.

        Raises:
            ValueError: If ``recall`` is not in (0, 1].
        """
        if not 0 < recall <= 1:
            raise ValueError(f'recall must be in (0, 1], got {recall!r}')
        reached = np.flatnonzero(self.recall >= recall)
        if len(reached):
            return self._point(int(reached[0]))
        nan = float('nan')
        return OperatingPoint(nan, nan, nan, None if self.on_lookalikes is None else nan)

    def above(self, score: float) -> OperatingPoint:
        """What the detections of a score over ``score`` find."""
        return self._point(int(np.count_nonzero(self.scores > score)) - 1)

    def _point(self, i: int) -> OperatingPoint:
        return OperatingPoint(
            float(self.scores[i]),
            float(self.recall[i]),
            float(self.false_positives[i]),
            None if self.on_lookalikes is None else float(self.on_lookalikes[i]),
        )


def false_positives_per_image(
    predictions: Sequence[Mapping[str, Any]],
    annotations: Annotations,
    recall: float,
    iou_thr: float = 0.5,
) -> float:
    """Wrong detections per image, at the highest threshold that finds a share of the objects.

    Args:
        predictions (Sequence[dict]): See :func:`detection_curve`.
        annotations (Annotations): See :func:`detection_curve`.
        recall (float): The share, in (0, 1].
        iou_thr (float): See :func:`detection_curve`. Defaults to 0.5.

    Returns:
        float: nan if the recall is never reached.
    """
    return detection_curve(predictions, annotations, iou_thr).at_recall(recall).false_positives


def detection_curve(
    predictions: Sequence[Mapping[str, Any]], annotations: Annotations, iou_thr: float = 0.5
) -> DetectionCurve:
    """Follow recall and false positives as the score threshold falls.

    Detections are matched to objects as COCO does it, image by image and class by class, at most
    100 detections each; what matches a crowd region counts neither way. All images and classes
    then share one threshold.

    Args:
        predictions (Sequence[dict]): What ``tools/test.py --out`` writes: for every image a dict
            with ``img_id`` and ``pred_instances``, which has ``bboxes`` (n, 4) xyxy in original
            pixels, ``labels`` (n,) and ``scores`` (n,). The labels count the categories in the
            order of the annotation file, as MMDetection does where it trains on all of them.
        annotations (Annotations): The annotations of exactly these images, with all their
            categories.
        iou_thr (float): IoU from which on a detection matches an object, and a wrong one a
            look-alike. Defaults to 0.5.

    Raises:
        ValueError: If the predictions are not those of the annotations' images or categories.

    Example:
        >>> truth = dict(
        ...     images=[dict(id=1)],
        ...     categories=[dict(id=1, name='disc')],
        ...     annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 10, 10])],
        ... )
        >>> found = dict(
        ...     bboxes=[[50, 50, 60, 60], [0, 0, 10, 10]], labels=[0, 0], scores=[0.9, 0.8]
        ... )
        >>> detection_curve([dict(img_id=1, pred_instances=found)], truth).at_recall(1.0)
        OperatingPoint(score=0.8, recall=1.0, false_positives=1.0, on_lookalikes=None)
    """
    content = _content(annotations)
    _check_images(predictions, content['images'])
    detections = _detections(predictions, [category['id'] for category in content['categories']])
    score, found, ids, objects = _match(content, detections, iou_thr)
    lookalike = None
    if LOOKALIKES in content:
        on_one = _near(detections, content[LOOKALIKES], iou_thr)
        lookalike = ~found & on_one[ids - 1]
    return _curve(score, found, lookalike, objects, len(content['images']))


def _content(annotations: Annotations) -> Mapping[str, Any]:
    if isinstance(annotations, COCO):
        return annotations.dataset
    if isinstance(annotations, Mapping):
        return annotations
    return json.loads(Path(annotations).read_text('utf-8'))


def _check_images(
    predictions: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]
) -> None:
    predicted = Counter(sample['img_id'] for sample in predictions)
    expected = Counter(image['id'] for image in images)
    if predicted != expected:
        differing = (predicted - expected) + (expected - predicted)
        raise ValueError(
            f'predictions must be of every annotated image once, got {predicted.total()} for '
            f'{expected.total()} images; the first image that differs has the id '
            f'{next(iter(differing))}: test on this annotation file, all of it'
        )


def _detections(
    predictions: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """The detections of all images in COCO's format, numbered from 1."""
    detections: list[dict[str, Any]] = []
    for sample in predictions:
        found = sample['pred_instances']
        boxes = np.asarray(found['bboxes'], dtype=np.float64).reshape(-1, 4)
        labels, scores = np.asarray(found['labels'], dtype=int), np.asarray(found['scores'])
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(category_ids):
            raise ValueError(
                f'the labels of image {sample["img_id"]} go from {labels.min()} to '
                f'{labels.max()}, the annotations have {len(category_ids)} categories: are these '
                f'the predictions of a detector for other classes?'
            )
        boxes[:, 2:] -= boxes[:, :2]
        detections += (
            dict(
                id=len(detections) + i,
                image_id=sample['img_id'],
                category_id=category_ids[label],
                bbox=box,
                area=box[2] * box[3],
                score=score,
                iscrowd=0,
            )
            for i, (box, label, score) in enumerate(
                zip(boxes.tolist(), labels.tolist(), scores.tolist()), start=1
            )
        )
    return detections


def _match(
    content: Mapping[str, Any], detections: list[dict[str, Any]], iou_thr: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], int]:
    """Match detections to objects.

    Returns:
        tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], int]: Score, whether it is
        a found object, and id of every detection that counts, and the number of objects.
    """
    evaluation = COCOeval(
        _indexed(content, content['annotations']), _indexed(content, detections), 'bbox'
    )
    evaluation.params.iouThrs = np.array([iou_thr])
    evaluation.params.maxDets = [MAX_DETS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    with redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    # Of an image without objects and detections of a class there is nothing.
    matched = [entry for entry in evaluation.evalImgs if entry is not None]
    counts = [~np.asarray(entry['dtIgnore'][0], dtype=bool) for entry in matched]

    def pooled(values: list[Any], dtype: type) -> NDArray:
        kept = [np.asarray(value, dtype=dtype)[count] for value, count in zip(values, counts)]
        return np.concatenate([np.empty(0, dtype), *kept])

    return (
        pooled([entry['dtScores'] for entry in matched], float),
        pooled([entry['dtMatches'][0] > 0 for entry in matched], bool),
        pooled([entry['dtIds'] for entry in matched], int),
        sum(int(np.count_nonzero(np.asarray(entry['gtIgnore']) == 0)) for entry in matched),
    )


def _indexed(content: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        'images': list(content['images']),
        'categories': list(content['categories']),
        # COCOeval takes a match with the id 0 for none, and wants what not every file has.
        'annotations': [
            {'area': item['bbox'][2] * item['bbox'][3], 'iscrowd': 0, **item, 'id': i}
            for i, item in enumerate(annotations, start=1)
        ],
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _near(
    detections: Sequence[Mapping[str, Any]], lookalikes: Sequence[Mapping[str, Any]], iou_thr: float
) -> NDArray[np.bool_]:
    """Whether each detection lies on a look-alike, of whatever class, shape (n,)."""
    boxes_of = defaultdict(list)
    for item in lookalikes:
        boxes_of[item['image_id']].append(item['bbox'])
    near = np.zeros(len(detections), dtype=bool)
    for i, detection in enumerate(detections):
        boxes = boxes_of[detection['image_id']]
        if boxes:
            near[i] = iou([detection['bbox']], boxes, [0] * len(boxes)).max() >= iou_thr
    return near


def _curve(
    score: NDArray[np.float64],
    found: NDArray[np.bool_],
    lookalike: NDArray[np.bool_] | None,
    objects: int,
    images: int,
) -> DetectionCurve:
    order = np.argsort(-score, kind='stable')
    score = score[order]
    # Where the next score is lower, or none follows.
    ends = np.flatnonzero(np.append(score[1:] < score[:-1], [True] * (len(score) > 0)))

    def count(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.append(0.0, np.cumsum(hits[order])[ends])

    hits = count(found)
    return DetectionCurve(
        scores=np.append(np.inf, score[ends]),
        recall=hits / objects if objects else np.full(len(hits), np.nan),
        false_positives=count(~found) / images,
        on_lookalikes=None if lookalike is None else count(lookalike) / images,
    )
