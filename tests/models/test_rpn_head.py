"""SNIPERRPNHead: in training the best proposals *of the level's sizes*."""

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import RPNHead
from mmengine.config import ConfigDict

from mmsniper.models import LevelRange, SNIPERRPNHead

PYRAMID = dict(
    chip_size=128,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 40)),
        dict(resize=dict(factor=0.5), valid_range=(30, None)),
    ],
)
SETTINGS = dict(
    in_channels=8,
    feat_channels=8,
    anchor_generator=dict(
        type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16]
    ),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    train_cfg=ConfigDict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True
        ),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
    ),
)


def proposal_cfg(**changes):
    return ConfigDict(
        dict(nms_pre=400, max_per_img=50, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        **changes,
    )


@pytest.fixture
def heads():
    torch.manual_seed(0)
    head = SNIPERRPNHead(**SETTINGS, pyramid=PYRAMID)
    stock = RPNHead(**SETTINGS)
    stock.load_state_dict(head.state_dict())
    return head, stock


@pytest.fixture
def outputs(heads):
    maps = [torch.randn(2, 8, 128 // stride, 128 // stride) * 3 for stride in (4, 8, 16)]
    with torch.no_grad():
        scores, deltas = heads[0](maps)
    # As from a trained head: boxes and scores differ from place to place.
    return [s + torch.randn_like(s) for s in scores], [d + torch.randn_like(d) for d in deltas]


def metainfos(*levels):
    infos = []
    for level in levels:
        scale = PYRAMID['levels'][level]['resize']['factor']
        side = round(128 / scale)
        infos.append(
            dict(
                level=level,
                scale_factor=(scale, scale),
                homography_matrix=np.diag([scale, scale, 1]),
                ori_shape=(side, side),
                img_shape=(128, 128),
            )
        )
    return infos


def predict(head, outputs, infos, **changes):
    return head.predict_by_feat(*outputs, batch_img_metas=infos, cfg=proposal_cfg(**changes))


def test_training_gets_as_many_proposals_of_the_levels_sizes_as_it_asks_for(heads, outputs):
    infos = metainfos(0, 1)
    proposed = predict(heads[0].train(), outputs, infos)
    stock = predict(heads[1].train(), outputs, infos)
    for ours, theirs, info in zip(proposed, stock, infos):
        level_range = LevelRange.of_input(info, heads[0].pyramid)
        assert len(ours) == 50
        assert level_range.contains(ours.bboxes).all()
        assert not level_range.contains(theirs.bboxes).all(), 'these would have been ignored'


@pytest.mark.parametrize('level', [0, 1])
def test_they_are_the_best_of_all_that_are_in_range(heads, outputs, level):
    """As if whatever is out of range had not been there: before the top k and before NMS."""
    head, stock = heads
    [info] = metainfos(level)
    one = [[part[:1] for part in maps] for maps in outputs]
    [ours] = predict(head.train(), one, [info], nms_pre=60)

    everything = predict(
        stock, one, [info], nms_pre=10**6, max_per_img=10**6, nms=dict(type='nms', iou_threshold=1)
    )[0]
    level_range = LevelRange.of_input(info, head.pyramid)
    best = everything[level_range.contains(everything.bboxes)]
    # No box is proposed that is not among them, and the best one is.
    distance = (ours.bboxes[:, None] - best.bboxes).abs().amax(dim=2).min(dim=1).values
    assert (distance < 1e-3).all()
    assert torch.allclose(ours.scores.max(), best.scores.max())


def test_testing_and_adopted_orphans_are_as_stock(heads, outputs):
    infos = metainfos(0, 1)
    expected = predict(heads[1], outputs, infos)
    adopting = SNIPERRPNHead(**SETTINGS, pyramid=dict(PYRAMID, adopt_orphans=True))
    for head in (heads[0].eval(), adopting.train()):
        for mine, theirs in zip(predict(head, outputs, infos), expected):
            assert torch.equal(mine.bboxes, theirs.bboxes)
            assert torch.equal(mine.scores, theirs.scores)


def test_a_softmax_is_refused():
    with pytest.raises(ValueError, match='use_sigmoid=True'):
        SNIPERRPNHead(
            **SETTINGS, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False), pyramid=PYRAMID
        )


def test_a_batch_is_as_its_inputs_one_by_one(heads, outputs):
    head = heads[0].train()
    infos = metainfos(0, 1)
    infos[1]['img_shape'] = (128, 90)  # boxes end at the border of what is no padding
    together = predict(head, outputs, infos)
    for i, (info, ours) in enumerate(zip(infos, together)):
        [alone] = predict(head, [[part[i : i + 1] for part in maps] for maps in outputs], [info])
        assert torch.equal(ours.bboxes, alone.bboxes)
        assert torch.equal(ours.scores, alone.scores)
        assert LevelRange.of_input(info, head.pyramid).contains(ours.bboxes).all()
    assert together[1].bboxes[:, 2].max() == 90


def test_a_coder_that_does_not_clip_is_judged_unclipped(heads, outputs):
    head = heads[0].train()
    head.bbox_coder.clip_border = False
    infos = metainfos(0, 1)
    proposed = predict(head, outputs, infos)
    assert max(float(p.bboxes.max()) for p in proposed) > 128
    for ours, info in zip(proposed, infos):
        assert LevelRange.of_input(info, head.pyramid).contains(ours.bboxes).all()


def test_other_sizes_get_other_anchors(heads):
    head = heads[0].train()
    for side in (128, 96, 128):
        maps = [torch.zeros(1, 8, side // stride, side // stride) for stride in (4, 8, 16)]
        with torch.no_grad():
            scores, deltas = head(maps)
        [info] = metainfos(0)
        [proposed] = predict(head, (scores, deltas), [dict(info, img_shape=(side, side))])
        assert len(proposed) == 50
