"""How many of the objects a detector's proposals find, before anything is classified."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from mmcv.ops import nms
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmsniper.chips import ScalePyramid
from mmsniper.models.proposals import evaluating, propose

PROPOSAL_NUMS = (100, 300, 1000)
"""Proposals of an image that count."""

_META_KEYS = ('img_id', 'ori_shape', 'img_shape', 'scale_factor')
# As in the RPN itself: the levels' ranges overlap, and find an object twice.
_IOU = 0.7


def proposal_recall(
    cfg: Config, checkpoint: str | os.PathLike, test: str = 'test'
) -> dict[str, float]:
    """COCO's average recall of the proposals of all levels (IoU 0.5 to 0.95, classes ignored).

    The RPN runs on the whole image at every level's test scale. Of each level the proposals in its
    test range are kept, and duplicates between levels removed by NMS.

    Args:
        cfg (Config): Config of a detector with an RPN, with a ``pyramid``, tested on data in COCO's
            format.
        checkpoint (str | os.PathLike): Its weights.
        test (str): Which data: ``test`` or ``val``. Defaults to 'test'.

    Returns:
        dict[str, float]: Recall by ``AR@100``, ``AR@300`` and ``AR@1000``.
    """
    init_default_scope('mmdet')
    pyramid = ScalePyramid.from_config(cfg.pyramid.to_dict())
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint), map_location='cpu')
    found: dict[tuple, list[tuple[Tensor, Tensor]]] = {}
    with redirect_stdout(io.StringIO()), evaluating(model):  # pycocotools talks
        metric = CocoMetric(
            cfg[f'{test}_evaluator'].ann_file, metric='proposal', proposal_nums=PROPOSAL_NUMS
        )
        for level in range(pyramid.num_levels):
            loader = _whole_images(cfg[f'{test}_dataloader'].dataset, cfg.pyramid, level)
            metric.dataset_meta = loader.dataset.metainfo
            for image, boxes, scores in _proposals(model, loader, pyramid, level):
                found.setdefault(image, []).append((boxes, scores))
        for image, parts in found.items():
            boxes, scores = (torch.cat(part) for part in zip(*parts))
            metric.process({}, [_sample(image, boxes, scores)])
        result = metric.evaluate(size=len(found))
    return {
        key.removeprefix('coco/'): float(value)
        for key, value in result.items()
        if key.removeprefix('coco/') in {f'AR@{n}' for n in PROPOSAL_NUMS}
    }


def _whole_images(config: Any, pyramid: Any, level: int) -> DataLoader:
    load = [t for t in config.pipeline if t['type'].startswith('LoadImage')]
    pack = dict(type='PackDetInputs', meta_keys=_META_KEYS)
    resize = dict(type='LevelResize', pyramid=pyramid, level=level, test=True)
    dataset = DATASETS.build({**config, 'pipeline': [*load, resize, pack]})
    return DataLoader(dataset, collate_fn=pseudo_collate)


def _proposals(
    model: nn.Module, loader: DataLoader, pyramid: ScalePyramid, level: int
) -> Iterator[tuple[tuple, Tensor, Tensor]]:
    """Image (id, shape), boxes in original pixels, and scores, of what is in the test range."""
    for batch in loader:
        for result, sample in zip(propose(model, batch), batch['data_samples']):
            boxes = result.bboxes / result.bboxes.new_tensor(np.tile(sample.scale_factor, 2))
            sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
            keep = torch.from_numpy(pyramid.in_range(sizes.numpy(), level, test=True))
            yield (sample.img_id, sample.ori_shape), boxes[keep], result.scores[keep]


def _sample(image: tuple, boxes: Tensor, scores: Tensor) -> dict[str, Any]:
    """A prediction as CocoMetric takes it."""
    if len(boxes):
        _, kept = nms(boxes, scores, _IOU)
        boxes, scores = boxes[kept], scores[kept]
    labels = torch.zeros(len(boxes), dtype=torch.long)
    pred = {'bboxes': boxes, 'scores': scores, 'labels': labels}
    return {'img_id': image[0], 'ori_shape': image[1], 'pred_instances': pred}
