"""False detections per image, at the score threshold where a given share of the objects is found.

The threshold of a detector says little by itself: two detectors score differently. Here the recall
is fixed instead, so that what is compared is how much is found by mistake for the same that is
found rightly.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from mmsniper.utils.coco_matching import MAX_DETS as MAX_DETS
from mmsniper.utils.coco_matching import LabelledBoxes, box_ious, counts_by_threshold, match_as_coco

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
    matching = match_as_coco(predictions, content, iou_thr)
    found = matching.found >= 0
    kinds = [found, ~found]
    if LOOKALIKES in content:
        kinds.append(~found & _near(matching.detections, content, iou_thr))
    scores, (hits, *wrong) = counts_by_threshold(matching.scores, *kinds)
    objects, images = matching.num_objects, matching.num_images
    return DetectionCurve(
        scores,
        hits / objects if objects else np.full(len(hits), np.nan),
        *(count / images for count in wrong),
    )


def _content(annotations: Annotations) -> Mapping[str, Any]:
    if isinstance(annotations, COCO):
        return annotations.dataset
    if isinstance(annotations, Mapping):
        return annotations
    return json.loads(Path(annotations).read_text('utf-8'))


def _near(
    detections: LabelledBoxes, content: Mapping[str, Any], iou_thr: float
) -> NDArray[np.bool_]:
    """Whether each detection lies on a look-alike, of whatever class, shape (n,)."""
    boxes_of = defaultdict(list)
    for item in content[LOOKALIKES]:
        x, y, width, height = item['bbox']
        boxes_of[item['image_id']].append([x, y, x + width, y + height])
    near = np.zeros(len(detections), dtype=bool)
    for i, image in enumerate(content['images']):
        mine, boxes = detections.image == i, np.array(boxes_of[image['id']], float).reshape(-1, 4)
        if len(boxes):
            near[mine] = (box_ious(detections.boxes[mine], boxes) >= iou_thr).any(axis=1)
    return near
