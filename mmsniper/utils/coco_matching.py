"""Detections matched to objects as COCO does it, and what the wrong ones are."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

MAX_DETS = 100
"""Detections that count, of each image and class, as in COCO's AP."""

FOUND_TWICE = 'found twice'
ANOTHER_CLASS = 'another class'
BADLY_PLACED = 'badly placed'
NEAR_ANOTHER_CLASS = 'near another class'
BACKGROUND = 'background'
KINDS = (BACKGROUND, BADLY_PLACED, ANOTHER_CLASS, NEAR_ANOTHER_CLASS, FOUND_TWICE)
"""What a false positive can be, see :func:`explain`."""

_ON, _NEAR = 0.5, 0.1  # IoU from which on a detection lies on an object, or near it


@dataclass(frozen=True, eq=False)
class LabelledBoxes:
    """Boxes of many images.

    Attributes:
        image: Index of each box's image, int64, shape (n,).
        label: Index of its category, int64, shape (n,).
        boxes: xyxy, original px, float64, shape (n, 4).
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, chosen: NDArray) -> LabelledBoxes:
        """Some of the boxes, by a mask or by indices."""
        return LabelledBoxes(self.image[chosen], self.label[chosen], self.boxes[chosen])


@dataclass(frozen=True, eq=False)
class Matching:
    """The detections that count, n of them, and the m objects that they find.

    What matches a crowd region is neither right nor wrong, and is left out.

    Attributes:
        detections (LabelledBoxes): The detections, in no order.
        scores: Of the detections, float64, shape (n,).
        found: Index of the object that a detection finds, -1 if it is a false positive, int64,
            shape (n,).
        objects (LabelledBoxes): The objects and crowd regions, in the order of the annotations.
        crowd: Whether an object is a crowd region, bool, shape (m,).
        num_images (int): Number of images, those without objects included.
    """

    detections: LabelledBoxes
    scores: NDArray[np.float64]
    found: NDArray[np.int64]
    objects: LabelledBoxes
    crowd: NDArray[np.bool_]
    num_images: int

    @property
    def num_objects(self) -> int:
        """Number of objects that can be found: without crowd regions."""
        return int(np.count_nonzero(~self.crowd))

    def threshold_at_recall(self, recall: float) -> float:
        """The highest score threshold at which a share of the objects is found.

        Raises:
            ValueError: If the share is not in (0, 1] or is never reached, or there are no objects.
        """
        if not 0 < recall <= 1:
            raise ValueError(f'recall must be in (0, 1], got {recall!r}')
        if not self.num_objects:
            raise ValueError(f'there is no recall of {recall:g}: there are no objects to find')
        thresholds, (found,) = counts_by_threshold(self.scores, self.found >= 0)
        recalls = found / self.num_objects
        if recalls[-1] < recall:
            raise ValueError(
                f'a recall of {recall:g} is never reached: all detections together find '
                f'{recalls[-1]:.3f} of the {self.num_objects} objects'
            )
        return float(thresholds[recalls >= recall][0])

    def threshold_at_false_positives(self, per_image: float) -> float:
        """The lowest score threshold with at most so many false positives per image.

        Returns:
            float: inf if even the highest score has more.
        """
        thresholds, (wrong,) = counts_by_threshold(self.scores, self.found < 0)
        return float(thresholds[wrong <= per_image * self.num_images][-1])

    def false_positives(self, threshold: float = -np.inf) -> NDArray[np.int64]:
        """Indices of the false positives of at least that score, by falling score."""
        wrong = np.flatnonzero((self.found < 0) & (self.scores >= threshold))
        return wrong[np.argsort(-self.scores[wrong], kind='stable')]

    def found_objects(self, threshold: float = -np.inf) -> NDArray[np.bool_]:
        """Whether a detection of at least that score finds each object, shape (m,)."""
        by = self.found[(self.found >= 0) & (self.scores >= threshold)]
        found = np.zeros(len(self.objects), bool)
        found[by] = True
        return found


def match_as_coco(
    predictions: Sequence[Mapping[str, Any]], content: Mapping[str, Any], iou_thr: float = _ON
) -> Matching:
    """Match detections to objects as COCO's evaluation does, image by image and class by class.

    Args:
        predictions (Sequence[dict]): What ``tools/test.py --out`` writes: for every image a dict
            with ``img_id`` and ``pred_instances``, which has ``bboxes`` (n, 4) xyxy in original
            pixels, ``labels`` (n,) and ``scores`` (n,). The labels count the categories.
        content (dict): ``images``, ``annotations`` and ``categories`` of a COCO file; annotations
            of other images and categories do not count.
        iou_thr (float): IoU from which on a detection matches an object. Defaults to 0.5.

    Raises:
        ValueError: If the predictions are not those of the images or categories.
    """
    _check_images(predictions, content['images'])
    image_ids = [image['id'] for image in content['images']]
    category_ids = [category['id'] for category in content['categories']]
    index_of = {key: i for i, key in enumerate(image_ids)}
    label_of = {key: i for i, key in enumerate(category_ids)}
    detections, scores = _detections(predictions, index_of, len(category_ids))
    annotations = [
        item
        for item in content['annotations']
        if item['image_id'] in index_of and item['category_id'] in label_of
    ]
    boxes = np.array([item['bbox'] for item in annotations], np.float64).reshape(-1, 4)
    objects = LabelledBoxes(
        np.array([index_of[item['image_id']] for item in annotations], np.int64),
        np.array([label_of[item['category_id']] for item in annotations], np.int64),
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
    )
    crowd = np.array([bool(item.get('iscrowd', 0)) for item in annotations], bool)
    truth = _indexed(content, objects, bbox=boxes, iscrowd=crowd.astype(int))
    found_boxes = _xywh(detections.boxes)
    answer = _indexed(
        content, detections, bbox=found_boxes, iscrowd=np.zeros(len(scores), int), score=scores
    )
    evaluation = COCOeval(truth, answer, 'bbox')
    evaluation.params.iouThrs = np.array([iou_thr])
    evaluation.params.maxDets = [MAX_DETS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    with redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    # It returns None for an image without objects and detections of the class.
    entries = [entry for entry in evaluation.evalImgs if entry is not None]

    def pooled(values: list[Any]) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *(np.asarray(v, np.int64) for v in values)])

    counts = pooled([entry['dtIgnore'][0] for entry in entries]) == 0
    chosen = pooled([entry['dtIds'] for entry in entries])[counts] - 1
    found = pooled([entry['dtMatches'][0] for entry in entries])[counts] - 1
    return Matching(
        detections.take(chosen), scores[chosen], found, objects, crowd, len(content['images'])
    )


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
    predictions: Sequence[Mapping[str, Any]], index_of: Mapping[Any, int], num_categories: int
) -> tuple[LabelledBoxes, NDArray[np.float64]]:
    """All detections and their scores, in the order of the predictions."""
    images, labels, boxes, scores = [], [], [np.empty((0, 4))], []
    for sample in predictions:
        found = sample['pred_instances']
        mine = np.asarray(found['labels'], dtype=int)
        if len(mine) and not 0 <= mine.min() <= mine.max() < num_categories:
            raise ValueError(
                f'the labels of image {sample["img_id"]} go from {mine.min()} to {mine.max()}, the '
                f'annotations have {num_categories} categories: are these the predictions of a '
                f'detector for other classes?'
            )
        images += [index_of[sample['img_id']]] * len(mine)
        labels += mine.tolist()
        boxes.append(np.asarray(found['bboxes'], dtype=np.float64).reshape(-1, 4))
        scores += np.asarray(found['scores'], dtype=np.float64).tolist()
    pooled = LabelledBoxes(
        np.array(images, np.int64), np.array(labels, np.int64), np.concatenate(boxes)
    )
    return pooled, np.array(scores, np.float64)


def _indexed(content: Mapping[str, Any], boxes: LabelledBoxes, **fields: NDArray) -> COCO:
    """COCO's look-up tables of boxes, numbered from 1: COCOeval takes a match with 0 for none."""
    image_ids = [image['id'] for image in content['images']]
    category_ids = [category['id'] for category in content['categories']]
    columns = {name: values.tolist() for name, values in fields.items()}
    coco = COCO()
    coco.dataset = dict(
        images=list(content['images']),
        categories=list(content['categories']),
        annotations=[
            dict(
                id=i + 1,
                image_id=image_ids[image],
                category_id=category_ids[label],
                area=columns['bbox'][i][2] * columns['bbox'][i][3],
                **{name: values[i] for name, values in columns.items()},
            )
            for i, (image, label) in enumerate(zip(boxes.image.tolist(), boxes.label.tolist()))
        ],
    )
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def counts_by_threshold(
    scores: NDArray[np.float64], *kinds: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[NDArray[np.int64]]]:
    """Count detections as the score threshold falls.

    Detections of the same score come together, for no threshold parts them.

    Args:
        scores: Of the detections, shape (n,).
        *kinds: Masks of detections that are counted, each of shape (n,).

    Returns:
        tuple[np.ndarray, list[np.ndarray]]: inf, where nothing is detected, and the different
        scores, falling, shape (t,); for each mask how many score at least that much, shape (t,).
    """
    order = np.argsort(-scores, kind='stable')
    scores = scores[order]
    # Where the next score is lower, or none follows.
    ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], [True] * (len(scores) > 0)))
    counts = [np.append(0, np.cumsum(kind[order])[ends]) for kind in kinds]
    return np.append(np.inf, scores[ends]), counts


@dataclass(frozen=True, eq=False)
class Explanation:
    """What false positives are, n of them.

    Attributes:
        kind: One of ``KINDS`` for each, str, shape (n,).
        object: Index of the object that explains it, -1 of background, int64, shape (n,).
        iou: IoU with that object, 0 of background, float64, shape (n,).
    """

    kind: NDArray[np.str_]
    object: NDArray[np.int64]
    iou: NDArray[np.float64]


def explain(matching: Matching, chosen: ArrayLike) -> Explanation:
    """Say what false positives are, by the object that they overlap most.

    The first of these that is true:

    - ``FOUND_TWICE``: an object of its class at an IoU of 0.5, which another detection has;
    - ``ANOTHER_CLASS``: an object of another class at an IoU of 0.5;
    - ``BADLY_PLACED``: an object of its class at an IoU of 0.1;
    - ``NEAR_ANOTHER_CLASS``: an object of another class at an IoU of 0.1;
    - ``BACKGROUND``: no object at an IoU of 0.1.

    Crowd regions are no objects here.

    Args:
        matching (Matching): All detections and objects, matched at an IoU of 0.5.
        chosen (np.ndarray): Indices of the false positives, int, shape (n,).
    """
    chosen = np.asarray(chosen, np.int64).reshape(-1)
    detections, objects = matching.detections.take(chosen), matching.objects
    kind = np.full(len(chosen), BACKGROUND, dtype=f'U{max(map(len, KINDS))}')
    explaining, overlap = np.full(len(chosen), -1), np.zeros(len(chosen))
    for image in np.unique(detections.image):
        mine = np.flatnonzero(detections.image == image)
        there = np.flatnonzero((objects.image == image) & ~matching.crowd)
        if not len(there):
            continue
        ious = box_ious(detections.boxes[mine], objects.boxes[there])
        same = detections.label[mine, None] == objects.label[there]
        # Later ones take the place of earlier ones.
        for name, is_object, least in (
            (NEAR_ANOTHER_CLASS, ~same, _NEAR),
            (BADLY_PLACED, same, _NEAR),
            (ANOTHER_CLASS, ~same, _ON),
            (FOUND_TWICE, same, _ON),
        ):
            best = np.where(is_object, ious, -1.0)
            hit = best.max(axis=1) >= least
            kind[mine[hit]] = name
            explaining[mine[hit]] = there[best.argmax(axis=1)[hit]]
            overlap[mine[hit]] = best.max(axis=1)[hit]
    return Explanation(kind, explaining, overlap)


def box_ious(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """COCO's IoU of boxes (n, 4) and boxes (m, 4), xyxy, as (n, m)."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    return coco_masks.iou(_xywh(a), _xywh(b), np.zeros(len(b), np.uint8))


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
