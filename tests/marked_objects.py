"""A batch of inputs with valid and with ignored objects, as a detector is given it."""

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from torch import Tensor

Labelled = tuple[list[float], int]
"""A box, xyxy, and its label."""


def objects(of: Sequence[Labelled]) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor([box for box, _ in of]).reshape(-1, 4).float(),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
    )


def batch(
    side: int, *inputs: tuple[Sequence[Labelled], Sequence[Labelled]]
) -> tuple[Tensor, SampleList]:
    """``(valid, ignored)`` objects of each input, all of the same pixels at their own scale."""
    shape = (side, side)
    about = dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape)
    samples = [
        DetDataSample(
            metainfo=dict(about, scale_factor=(1.0, 1.0)),
            gt_instances=objects(valid),
            ignored_instances=objects(ignored),
        )
        for valid, ignored in inputs
    ]
    torch.manual_seed(3)
    return torch.randn(1, 3, *shape).expand(len(samples), -1, -1, -1), samples
