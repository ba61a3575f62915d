"""What a data loader gives to the network, as chips to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mmsniper.chips import POSITIVE
from mmsniper.chips.input_level import homography_scale
from mmsniper.chips.rotated_boxes import box_corners
from mmsniper.utils.box_types import outlines
from mmsniper.visualization.chips import CROWD, INVALID, PROPOSAL, VALID, ChipView


def input_view(image: Tensor, sample: DetDataSample, class_names: Sequence[str] = ()) -> ChipView:
    """An input of the network, after all augmentation and before it is normalised.

    Args:
        image (Tensor): The input, (bands, h, w).
        sample (DetDataSample): Its sample, with ``level`` and ``homography_matrix`` in the
            metainfo, and ``chip`` if it is a chip.
        class_names (Sequence[str]): Name of each label. Defaults to none.

    Returns:
        ChipView: With copies of all arrays.
    """
    boxes, labels, states = [], [], [np.zeros(0, int)]
    for name in ('gt_instances', 'ignored_instances'):
        found = sample.get(name)
        if found is None:
            continue
        label = found.labels.numpy()
        valid = name == 'gt_instances'
        boxes.append(outlines(found.bboxes))
        labels += label.tolist()
        states.append(np.where(valid, VALID, np.where(label < 0, CROWD, INVALID)))
    chip = sample.get('chip')
    return ChipView(
        np.array(image.numpy().transpose(1, 2, 0)),
        np.concatenate(boxes) if boxes else np.zeros((0, 4)),
        np.concatenate(states),
        sample.level,
        homography_scale(sample.homography_matrix),
        [class_names[label] if 0 <= label < len(class_names) else '' for label in labels],
        POSITIVE if chip is None else chip.kind,
    )


def with_proposals(view: ChipView, proposals: ArrayLike, to_chip: NDArray) -> ChipView:
    """A chip with what the RPN proposed there.

    Args:
        view (ChipView): The chip.
        proposals (ArrayLike): Boxes (n, 4), xyxy, original pixels.
        to_chip (np.ndarray): (3, 3) homography, original to chip pixels.

    Returns:
        ChipView: The chip with these boxes beside its own.
    """
    boxes = HorizontalBoxes(np.asarray(proposals, np.float32).reshape(-1, 4))
    boxes.project_(to_chip)
    proposed = boxes.tensor.numpy()
    if view.boxes.shape[1] == 8:
        proposed = box_corners(proposed)
    return replace(
        view,
        boxes=np.concatenate([view.boxes, proposed]),
        states=np.append(view.states, np.full(len(boxes), PROPOSAL)),
        names=[*view.names, *[''] * len(boxes)] if view.names else (),
    )
