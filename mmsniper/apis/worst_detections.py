"""The most wrong detections of a test: what they are, and what there is to draw of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.apis.predictions import PredictedData
from mmsniper.utils.coco_matching import FOUND_TWICE, KINDS, Explanation, Matching
from mmsniper.utils.command_line import progress
from mmsniper.utils.files import utf8_name
from mmsniper.visualization import FalsePositive, surroundings
from mmsniper.visualization.false_positives import Surroundings
from mmsniper.visualization.picture import picture_limits

LONGEST_NAME = 46  # letters that have room above a picture
Row = dict[str, Any]


def entries(
    data: PredictedData, matching: Matching, chosen: NDArray[np.int64], explanation: Explanation
) -> list[Row]:
    """A row of each false positive, boxes xyxy in original px."""
    detections, objects = matching.detections.take(chosen), matching.objects
    rows = []
    for i, (image, label) in enumerate(zip(detections.image.tolist(), detections.label.tolist())):
        there, nearest = int(explanation.object[i]), None
        if there >= 0:
            nearest = dict(
                box=objects.boxes[there].tolist(),
                **{'class': data.classes[objects.label[there]]},
                iou=round(float(explanation.iou[i]), 4),
            )
        rows.append(
            {
                'rank': i + 1,
                'image': utf8_name(data.paths[image]),
                'image_id': data.images[image]['id'],
                'box': [round(side, 2) for side in detections.boxes[i].tolist()],
                'class': data.classes[label],
                'score': round(float(matching.scores[chosen[i]]), 4),
                'kind': str(explanation.kind[i]),
                'object': nearest,
            }
        )
    return rows


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many there are of each kind and class, those of none left out."""
    counted = {kind: Counter(row['class'] for row in rows if row['kind'] == kind) for kind in KINDS}
    return {kind: dict(of_class.most_common()) for kind, of_class in counted.items() if of_class}


def views(
    data: PredictedData, matching: Matching, chosen: NDArray[np.int64], explanation: Explanation
) -> list[FalsePositive]:
    """What to draw of each false positive. Every image is loaded once."""
    drawn: dict[int, FalsePositive] = {}
    of_image = defaultdict(list)
    for i, image in enumerate(matching.detections.image[chosen].tolist()):
        of_image[image].append(i)
    for image, indices in progress(of_image.items(), 'pictures'):
        pixels = data.load(image)
        limits = picture_limits(pixels)
        for i in indices:
            where = surroundings(pixels, matching.detections.boxes[chosen[i]], limits)
            drawn[i] = view(data, matching, chosen, explanation, i, where)
    return [drawn[i] for i in range(len(chosen))]


def view(
    data: PredictedData,
    matching: Matching,
    chosen: NDArray[np.int64],
    explanation: Explanation,
    i: int,
    where: Surroundings,
) -> FalsePositive:
    """What to draw of the ``i``-th false positive."""
    detections, objects, detection = matching.detections, matching.objects, chosen[i]
    image, label, box = (
        values[detection] for values in (detections.image, detections.label, detections.boxes)
    )
    x0, y0, x1, y1 = where.window
    shown = (objects.image == image) & (
        (objects.boxes[:, :2] < (x1, y1)) & (objects.boxes[:, 2:] > (x0, y0))
    ).all(axis=1)
    crowd, shown = shown & matching.crowd, shown & ~matching.crowd
    kind, there = str(explanation.kind[i]), explanation.object[i]
    width, height = box[2:] - box[:2]
    what = f'{width:.0f}×{height:.0f} px'
    if there >= 0:
        hundredths = math.floor(100 * explanation.iou[i])  # 0.499 is no match, and not 0.50
        what += f'; {data.classes[objects.label[there]]} at IoU {hundredths / 100:.2f}'
    finders = np.flatnonzero((matching.found == there) & (kind == FOUND_TWICE))
    name = utf8_name(Path(data.paths[image]).name)
    return FalsePositive(
        where,
        box,
        kind,
        f'{data.classes[label]} {matching.scores[detection]:.2f}',
        (what, f'{i + 1}. ' + (name if len(name) <= LONGEST_NAME else f'…{name[-LONGEST_NAME:]}')),
        objects.boxes[shown],
        objects.label[shown] == label,
        [data.classes[of] for of in objects.label[shown]],
        objects.boxes[crowd],
        detections.boxes[finders],
    )
