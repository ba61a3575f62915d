"""Pictures of detections against the ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mmsniper.visualization.figure import (
    BAD,
    GOOD,
    IGNORED,
    MISSED,
    as_boxes,
    check_image,
    draw_boxes,
    draw_legend,
    legend_entry,
    new_figure,
    show_image,
)


def match_detections(
    gt_boxes: ArrayLike,
    gt_labels: ArrayLike,
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    iou_thr: float = 0.5,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match detections to objects as COCO's evaluation does, at one threshold.

    By falling score, each detection takes the free object of its class with the highest IoU, if
    that reaches ``iou_thr``.

    Args:
        gt_boxes (np.ndarray): (n, 4) xyxy.
        gt_labels (np.ndarray): (n,).
        boxes (np.ndarray): (m, 4) xyxy.
        labels (np.ndarray): (m,).
        scores (np.ndarray): (m,).
        iou_thr (float): Least IoU. Defaults to 0.5.

    Returns:
        tuple[np.ndarray, np.ndarray]: (m,) bool, the detection has found an object; (n,) bool, the
        object has been found.
    """
    gt_boxes, boxes = as_boxes(gt_boxes, 'gt_boxes'), as_boxes(boxes, 'boxes')
    gt_labels, labels, scores = (np.asarray(a).reshape(-1) for a in (gt_labels, labels, scores))
    for name, array, count in (
        ('gt_labels', gt_labels, len(gt_boxes)),
        ('labels', labels, len(boxes)),
        ('scores', scores, len(boxes)),
    ):
        if len(array) != count:
            raise ValueError(
                f'{name} must have one value for each of {count} boxes, got {len(array)}'
            )
    correct, found = np.zeros(len(boxes), bool), np.zeros(len(gt_boxes), bool)
    overlaps = _ious(boxes, gt_boxes)
    for i in np.argsort(-scores, kind='stable'):
        free = np.where((gt_labels == labels[i]) & ~found, overlaps[i], -1.0)
        if len(free) and free.max() >= iou_thr:
            correct[i] = found[free.argmax()] = True
    return correct, found


def _ious(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    common = np.clip(sides, 0, None).prod(axis=2)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b))
    return common / np.maximum(area_a[:, None] + area_b - common, 1e-9)


def draw_detections(
    image: NDArray[np.uint8],
    gt_boxes: ArrayLike,
    gt_labels: ArrayLike,
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    class_names: Sequence[str],
    *,
    gt_ignored: ArrayLike | None = None,
    score_thr: float = 0.3,
    iou_thr: float = 0.5,
    title: str = '',
) -> Figure:
    """Draw detections and what they should have been.

    Correct detections are green, false ones red, missed objects dashed yellow, ignore regions
    grey. A detection that matches no object and lies with at least half its area in an ignore
    region is drawn grey too.

    Args:
        image (np.ndarray): (h, w, 3) uint8 BGR.
        gt_boxes (np.ndarray): (n, 4) xyxy, original px.
        gt_labels (np.ndarray): (n,) class indices.
        boxes (np.ndarray): (m, 4) xyxy, original px.
        labels (np.ndarray): (m,) class indices.
        scores (np.ndarray): (m,).
        class_names (Sequence[str]): Names of the classes.
        gt_ignored (np.ndarray, optional): (n,) bool, objects that are crowd or difficult. Defaults
            to None, which is none.
        score_thr (float): Detections below are not drawn. Defaults to 0.3.
        iou_thr (float): IoU of a correct detection. Defaults to 0.5.
        title (str): Above the picture. Defaults to ''.

    Returns:
        Figure: For :func:`save_figure`.

    Raises:
        ValueError: If an array has another shape than it should.
    """
    check_image(image)
    gt_boxes, boxes = as_boxes(gt_boxes, 'gt_boxes'), as_boxes(boxes, 'boxes')
    gt_labels, labels, scores = (np.asarray(a).reshape(-1) for a in (gt_labels, labels, scores))
    ignored = np.zeros(len(gt_boxes), bool) if gt_ignored is None else np.asarray(gt_ignored, bool)
    regions, gt_boxes, gt_labels = gt_boxes[ignored], gt_boxes[~ignored], gt_labels[~ignored]
    kept = scores >= score_thr
    boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
    correct, found = match_detections(gt_boxes, gt_labels, boxes, labels, scores, iou_thr)
    excused = ~correct & _mostly_in(boxes, regions)

    figure, axes = _layout(image)
    show_image(axes, image)
    names = np.array([f'{class_names[c]} {s:.2f}' for c, s in zip(labels, scores, strict=True)])
    missed = [class_names[c] for c in gt_labels[~found]]
    layers = [
        (regions, IGNORED, True, [], 'ignored'),
        (boxes[excused], IGNORED, False, names[excused], 'in an ignored region'),
        (gt_boxes[~found], MISSED, True, missed, 'missed'),
        (boxes[correct], GOOD, False, names[correct], 'correct'),
        (boxes[~correct & ~excused], BAD, False, names[~correct & ~excused], 'false'),
    ]
    entries = []
    for layer, colour, dashed, texts, label in layers:
        draw_boxes(axes, layer, colour, dashed=dashed, names=texts)
        if len(layer) or colour != IGNORED:
            entries.append(legend_entry(colour, f'{label}: {len(layer)}', dashed))
    draw_legend(figure, entries, width=1.2)
    if title:
        axes.set_title(title, fontsize=10, loc='left', pad=3)
    return figure


_SIDE, _TOP, _BOTTOM = 9.0, 0.3, 0.4  # inches: the image's longer side, margins


def _layout(image: NDArray[np.uint8]) -> tuple[Figure, Axes]:
    height, width = image.shape[:2]
    wide, tall = (_SIDE * side / max(width, height) for side in (width, height))
    total, high = max(wide + 0.2, 5.0), max(tall, 1.0) + _TOP + _BOTTOM
    figure = new_figure(total, high)
    return figure, figure.add_axes(
        (0.1 / total, _BOTTOM / high, 1 - 0.2 / total, 1 - (_TOP + _BOTTOM) / high)
    )


def _mostly_in(boxes: NDArray, regions: NDArray) -> NDArray[np.bool_]:
    if not len(regions):
        return np.zeros(len(boxes), bool)
    sides = np.minimum(boxes[:, None, 2:], regions[:, 2:]) - np.maximum(
        boxes[:, None, :2], regions[:, :2]
    )
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-9)
    return (np.clip(sides, 0, None).prod(axis=2) >= 0.5 * area[:, None]).any(axis=1)
