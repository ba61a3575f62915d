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
    as_mask,
    draw_boxes,
    draw_legend,
    legend_entry,
    new_figure,
    one_per_box,
    place_axes,
    show_image,
)
from mmsniper.visualization.picture import check_image


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
        iou_thr (float): Minimum IoU. Defaults to 0.5.

    Returns:
        tuple[np.ndarray, np.ndarray]: (m,) bool, the detection has found an object; (n,) bool, the
        object has been found.

    Raises:
        ValueError: If arrays of the same boxes differ in length.
    """
    gt_boxes, gt_labels = _labelled(gt_boxes, gt_labels, 'gt_')
    boxes, labels = _labelled(boxes, labels)
    scores = one_per_box(scores, len(boxes), 'scores')
    correct, found = np.zeros(len(boxes), bool), np.zeros(len(gt_boxes), bool)
    common = _common_areas(boxes, gt_boxes)
    overlaps = common / np.maximum(_areas(boxes)[:, None] + _areas(gt_boxes) - common, 1e-9)
    for i in np.argsort(-scores, kind='stable'):
        free = np.where((gt_labels == labels[i]) & ~found, overlaps[i], -1.0)
        if len(free) and free.max() >= iou_thr:
            correct[i] = found[free.argmax()] = True
    return correct, found


def _labelled(boxes: ArrayLike, labels: ArrayLike, what: str = '') -> tuple[NDArray, NDArray]:
    boxes = as_boxes(boxes, f'{what}boxes')
    return boxes, one_per_box(labels, len(boxes), f'{what}labels')


def _common_areas(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """(n, m) areas that boxes (n, 4) and boxes (m, 4) have in common."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.clip(sides, 0, None).prod(axis=2)


def _areas(boxes: NDArray) -> NDArray[np.float64]:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def draw_detections(
    image: NDArray,
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

    Correct detections are green, false ones red, missed objects dashed yellow. Ignored regions are
    grey, and so are false detections that lie with at least half their area in one.

    Args:
        image (np.ndarray): (h, w) or (h, w, bands), see :func:`as_picture`.
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
    gt_boxes, gt_labels = _labelled(gt_boxes, gt_labels, 'gt_')
    boxes, labels = _labelled(boxes, labels)
    scores = one_per_box(scores, len(boxes), 'scores')
    ignored = as_mask(gt_ignored, len(gt_boxes), 'gt_ignored')
    regions, gt_boxes, gt_labels = gt_boxes[ignored], gt_boxes[~ignored], gt_labels[~ignored]
    kept = scores >= score_thr
    boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
    correct, found = match_detections(gt_boxes, gt_labels, boxes, labels, scores, iou_thr)
    half = np.maximum(_areas(boxes), 1e-9)[:, None] / 2
    excused = ~correct & (_common_areas(boxes, regions) >= half).any(axis=1)

    figure, axes = _layout(image)
    show_image(axes, image, title, fontsize=10)
    names = np.array([f'{class_names[c]} {s:.2f}' for c, s in zip(labels, scores, strict=True)])
    missed = [class_names[c] for c in gt_labels[~found]]
    layers: list[tuple[NDArray, str, bool, Sequence[str] | NDArray, str]] = [
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
    return figure


_SIDE, _TOP, _BOTTOM = 9.0, 0.3, 0.4  # inches: the image's longer side, margins


def _layout(image: NDArray) -> tuple[Figure, Axes]:
    height, width = image.shape[:2]
    wide, tall = (_SIDE * side / max(width, height) for side in (width, height))
    total, high = max(wide + 0.2, 5.0), max(tall, 1.0) + _TOP + _BOTTOM
    figure = new_figure(total, high)
    return figure, place_axes(figure, 0.1, _BOTTOM, total - 0.2, high - _TOP - _BOTTOM)
