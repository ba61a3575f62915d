"""The pictures of a report: example images, negative chips, and wrong detections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.apis.epoch_chips import chip_views
from mmsniper.apis.predictions import PredictedData
from mmsniper.apis.report_data import ReportData
from mmsniper.apis.worst_detections import counts, entries, views
from mmsniper.chips import NEGATIVE, POSITIVE, ChipPlan
from mmsniper.chips.rectangles import spread
from mmsniper.datasets.decoding import load_or_raise, run_checked
from mmsniper.utils.coco_matching import Matching, explain
from mmsniper.utils.command_line import progress
from mmsniper.utils.files import utf8_name
from mmsniper.utils.words import numbered
from mmsniper.visualization.chips import boxes_in_chips
from mmsniper.visualization.false_positives import KIND_COLOURS
from mmsniper.visualization.figure import BAD, GOOD, IGNORED, level_colour
from mmsniper.visualization.page import (
    Layer,
    Scene,
    chip_layers,
    chip_scene,
    false_positive_scene,
    jpeg_uri,
)
from mmsniper.visualization.picture import picture_limits

_IMAGE_SIDE, _CHIP_SIDE = 1000, 320  # px, of pictures of whole images, and of others
# Bytes of all pictures of whole images, and of all others: in letters they take a third more, so
# that a page stays below 10 MB. Those of a single picture, where there are few.
_IMAGE_BYTES, _CHIP_BYTES = 3_500_000, 2_500_000
_LARGEST_IMAGE, _LARGEST_CHIP = 200_000, 30_000
_CHIPS_SHOWN = 6  # of an example
_EXTREME = 6  # a sixth of the examples are those with most objects, and so on


@dataclass(frozen=True)
class Example:
    """An image to page to.

    Attributes:
        name: Its file.
        why: Why it is shown.
        facts: Its size, its objects and its chips, in words.
        scene: The image with boxes and chips over it, None if it cannot be loaded.
        chips: What the network sees of some chips.
        fault: Why it cannot be loaded, else ''.
    """

    name: str
    why: str
    facts: str
    scene: Scene | None
    chips: Sequence[Scene] = ()
    fault: str = ''


def choose_examples(data: ReportData, number: int) -> dict[int, str]:
    """Images to show and why: evenly from the data set, and some extreme ones.

    A sixth of them each, at least one, are the images with most objects, those with the smallest
    objects, and those with most orphans, if there are any. Images without chips come last.

    Args:
        data (ReportData): The data.
        number (int): Number of images, at most.

    Returns:
        dict[int, str]: For each image why it is shown, those of the even choice first.
    """
    table = data.chips.table
    counted = ~table.ignore
    image = table.image
    objects = np.bincount(image[counted], minlength=len(table))
    orphans = np.bincount(image[data.orphans], minlength=len(table))
    smallest = np.full(len(table), np.inf)
    np.minimum.at(smallest, image[counted], data.sizes[counted])
    each = max(number // _EXTREME, 1)
    extreme: dict[int, str] = {}
    for why, rank, possible in (
        ('most objects', -objects, objects > 0),
        ('smallest objects', smallest, objects > 0),
        ('orphans: objects that are learned at no level', -orphans, orphans > 0),
    ):
        order = [i for i in np.argsort(rank, kind='stable').tolist() if possible[i]]
        for i in [i for i in order[: 4 * each] if i not in extreme][:each]:
            if len(extreme) < number - 1:
                extreme[i] = why
    has_chips = np.zeros(len(table), bool)
    has_chips[data.positives.image] = True
    chosen: list[int] = []
    for mask in (has_chips, ~has_chips):
        left = np.array([i for i in np.flatnonzero(mask).tolist() if i not in extreme], int)
        wanted = number - len(extreme) - len(chosen)
        chosen += left[spread(len(left), wanted)].tolist() if wanted > 0 and len(left) else []
    return {**dict.fromkeys(sorted(chosen), 'chosen evenly'), **extreme}


def examples(data: ReportData, number: int) -> Iterator[Example]:
    """Draw examples, see :func:`choose_examples`; what cannot be loaded says why."""
    image_bytes = min(_LARGEST_IMAGE, _IMAGE_BYTES // max(number, 1))
    chip_bytes = min(_LARGEST_CHIP, _CHIP_BYTES // 2 // max(number * _CHIPS_SHOWN, 1))
    chosen = choose_examples(data, number)
    for image, why in progress(chosen.items(), 'examples', total=len(chosen)):
        info = data.dataset.get_data_info(image)
        name = utf8_name(os.path.basename(info['img_path']))
        plan = data.chips.plan.take(data.chips.plan.image == image)
        facts = _facts(data, image, plan)
        try:
            yield _example(data, image, plan, (name, why, facts), image_bytes, chip_bytes)
        except (OSError, ValueError, RuntimeError) as error:
            yield Example(name, why, facts, None, fault=str(error))


def _facts(data: ReportData, image: int, plan: ChipPlan) -> str:
    table = data.chips.table
    mine = slice(*table.offset[image : image + 2])
    objects, orphans = int((~table.ignore[mine]).sum()), int(data.orphans[mine].sum())
    positive = plan.take(plan.kind == POSITIVE)
    per_level = '/'.join(map(str, positive.count_per_level(data.pyramid.num_levels).tolist()))
    facts = [
        f'{table.width[image]}×{table.height[image]} px',
        numbered(objects, 'object'),
        f'{numbered(len(positive), "chip")}, fine to coarse {per_level}',
    ]
    for number, what in ((len(plan) - len(positive), 'negative chip'), (orphans, 'orphan')):
        facts += [numbered(number, what)] if number else []
    return ', '.join(facts)


def _example(
    data: ReportData,
    image: int,
    plan: ChipPlan,
    texts: tuple[str, str, str],
    image_bytes: int,
    chip_bytes: int,
) -> Example:
    load = partial(run_checked, data.loader)
    pixels = load_or_raise(load, dict(data.dataset.get_data_info(image)))['img']
    limits = picture_limits(pixels)
    table, pyramid = data.chips.table, data.pyramid
    width, height = int(table.width[image]), int(table.height[image])
    mine = slice(*table.offset[image : image + 2])
    boxes, ignored = table.outlines_of(mine).astype(np.float64), table.ignore[mine]
    learned = boxes_in_chips(boxes, plan.box, plan.level, pyramid, (width, height)) & ~ignored
    names = np.array(
        [
            f'{data.class_name(label)}, {wide:.0f}×{tall:.0f} px'
            for label, (wide, tall) in zip(data.labels[mine].tolist(), table.sides_of(mine))
        ],
        object,
    )
    layers = chip_layers(plan.box, plan.level, plan.kind == NEGATIVE, pyramid)
    for key, colour, mask, dashed in (
        ('ignored', IGNORED, ignored, True),
        ('learned', GOOD, learned, False),
        ('nowhere', BAD, ~learned & ~ignored, True),
    ):
        layers.append(Layer(key, colour, boxes[mask].tolist(), names[mask].tolist(), dashed))
    whole = (0, 0, width, height)
    scene = Scene(jpeg_uri(pixels, _IMAGE_SIDE, image_bytes), whole, whole, layers)
    order = np.lexsort((plan.level, plan.kind))
    seen = plan.take(np.sort(order[spread(len(order), _CHIPS_SHOWN)]) if len(order) else order)
    cut = chip_views(data.dataset, image, seen, pyramid, data.chips.class_names)
    chips = [chip_scene(view, pyramid, _CHIP_SIDE, chip_bytes, limits) for view in cut]
    name, why, facts = texts
    return Example(name, why, facts, scene, chips)


def negative_chips(data: ReportData, number: int) -> Iterator[Scene]:
    """Some negative chips as the network sees them, with the proposals that they were made for.

    Args:
        data (ReportData): Data with a pool.
        number (int): Number of chips, at most, spread evenly over those of images whose proposals
            the pool has kept.
    """
    negatives = data.chips.negatives
    if negatives is None:
        return
    chips = negatives.chips.take(np.isin(negatives.chips.image, negatives.kept))
    chips = chips if len(chips) else negatives.chips
    chosen = spread(len(chips), number) if len(chips) else np.zeros(0, int)
    chip_bytes = min(_LARGEST_CHIP, _CHIP_BYTES // 4 // max(number, 1))
    for i in progress(chosen.tolist(), 'negative chips', unit=' chips'):
        chip = chips.take([i])
        image, level = int(chip.image[0]), int(chip.level[0])
        try:
            views_ = list(
                chip_views(data.dataset, image, chip, data.pyramid, data.chips.class_names)
            )
        except (OSError, ValueError, RuntimeError):  # the examples say what is wrong
            continue
        for view in views_:
            proposals = negatives.proposals
            mine = proposals.box[(proposals.image == image) & (proposals.level == level)]
            inside = _inside(mine, chip.box[0])
            shown = (mine[inside] - np.tile(chip.box[0, :2], 2)) * view.scale
            scene = chip_scene(view, data.pyramid, _CHIP_SIDE, chip_bytes)
            name = utf8_name(os.path.basename(data.dataset.get_data_info(image)['img_path']))
            yield Scene(
                scene.picture,
                scene.frame,
                scene.window,
                [*scene.layers, Layer('proposals', level_colour(level), shown.tolist(), dots=True)],
                scene.title,
                [numbered(len(shown), 'proposal'), name],
            )


def _inside(boxes: NDArray, chip: NDArray) -> NDArray[np.bool_]:
    starts = np.all(boxes[:, :2] >= chip[:2] - 1e-3, axis=1)
    return starts & np.all(boxes[:, 2:] <= chip[2:] + 1e-3, axis=1)


def wrong_detections(data: PredictedData, matching: Matching, number: int) -> dict[str, Any]:
    """The most wrong detections of a test, as ``worst_detections.py`` tells them.

    Args:
        data (PredictedData): The data of the test.
        matching (Matching): Its predictions, matched to them.
        number (int): Number of detections, at most.

    Returns:
        dict: ``total``, the number of false positives; ``kinds``, those of the shown; ``classes``,
        rows of a name and the number of each kind; and ``shown``, pairs of a kind, with its
        colour, and a :class:`~mmsniper.visualization.page.Scene`.
    """
    wrong = matching.false_positives()
    worst = wrong[:number]
    explanation = explain(matching, worst)
    counted = counts(entries(data, matching, worst, explanation))
    names = list(dict.fromkeys(name for of_class in counted.values() for name in of_class))
    rows = [(name, [counted[kind].get(name, 0) for kind in counted]) for name in names]
    chip_bytes = min(_LARGEST_CHIP, _CHIP_BYTES // 4 // max(len(worst), 1))
    return dict(
        total=len(wrong),
        objects=matching.num_objects,
        images=matching.num_images,
        kinds=list(counted),
        classes=sorted(rows, key=lambda row: -sum(row[1])),
        shown=[
            (
                found.kind,
                KIND_COLOURS[found.kind],
                false_positive_scene(found, _CHIP_SIDE, chip_bytes),
            )
            for found in views(data, matching, worst, explanation)
        ],
    )
