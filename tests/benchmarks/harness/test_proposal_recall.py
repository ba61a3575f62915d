"""The recall of proposals counts, at each level, those in its test range, and each object once."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

import mmsniper.datasets  # noqa: F401 (registers)
from harness import proposal_recall as module

SMALL, LARGE, MISSED = [10, 10, 30, 30], [40, 20, 100, 80], [60, 90, 80, 110]
PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 40)),
        dict(resize=dict(factor=0.5), valid_range=(30, None)),
    ],
)


@pytest.fixture
def cfg(tmp_path):
    register_all_modules()
    cv2.imwrite(str(tmp_path / '0.png'), np.zeros((120, 120, 3), np.uint8))
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (SMALL, LARGE, MISSED)]
    (tmp_path / 'ann.json').write_text(
        json.dumps(
            dict(
                images=[dict(id=5, file_name='0.png', width=120, height=120)],
                categories=[dict(id=1, name='a')],
                annotations=[
                    dict(id=i, image_id=5, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
                    for i, box in enumerate(boxes, start=1)
                ],
            )
        )
    )
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='ann.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('a',)),
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(50, 50))],
    )
    return Config(
        dict(
            pyramid=PYRAMID,
            model=dict(),
            test_dataloader=dict(dataset=dataset),
            test_evaluator=dict(ann_file=str(tmp_path / 'ann.json')),
        )
    )


@pytest.fixture
def recall_of(cfg, monkeypatch):
    """Recall of an RPN that proposes the given boxes (original pixels) at every level."""

    def run(boxes):
        shapes = []

        def propose(model, batch):
            (sample,), (image,) = batch['data_samples'], batch['inputs']
            shapes.append(tuple(image.shape[1:]))
            scaled = torch.tensor(boxes) * torch.tensor(np.tile(sample.scale_factor, 2))
            ordered = torch.linspace(0.9, 0.1, len(boxes))
            return [InstanceData(bboxes=scaled.float(), scores=ordered)]

        monkeypatch.setattr(module, 'propose', propose)
        monkeypatch.setattr(module.MODELS, 'build', lambda config: nn.Module())
        monkeypatch.setattr(module, 'load_checkpoint', lambda *args, **kwargs: None)
        result = module.proposal_recall(cfg, 'x.pth')
        assert shapes == [(240, 240), (60, 60)]
        return result

    return run


def test_objects_that_a_proposal_encloses_exactly_are_found(recall_of):
    result = recall_of([SMALL, LARGE])
    assert result == pytest.approx({'AR@100': 2 / 3, 'AR@300': 2 / 3, 'AR@1000': 2 / 3}, abs=1e-3)


def test_what_lies_beside_the_objects_finds_none(recall_of):
    assert recall_of([[80, 0, 110, 20], [0, 90, 40, 118]])['AR@1000'] == 0


def test_only_so_many_proposals_count_and_duplicates_are_none(recall_of):
    """Both levels propose all of these; of each level those in its range count, once."""
    beside = [[k, 0, k + 4, 8] for k in range(0, 110, 5)] * 9
    result = recall_of([SMALL, *beside, LARGE, MISSED])
    assert result['AR@100'] == pytest.approx(1, abs=1e-3)


def test_a_level_gives_nothing_out_of_its_range(recall_of, cfg):
    cfg.pyramid.levels[1].valid_range = (70, None)
    assert recall_of([SMALL, LARGE])['AR@100'] == pytest.approx(1 / 3, abs=1e-3)
