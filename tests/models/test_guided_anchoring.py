"""Guided Anchoring learns nothing about the places and anchors of an invalid object."""

import pytest
import torch
from mmcv.ops import MaskedConv2d
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch.nn import Conv2d

from mmsniper.convert.model import sniper_model

SIZE = 256
PYRAMID = dict(chip_size=SIZE, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
VALID = ([20.0, 24.0, 60.0, 60.0], 0)
INVALID = ([100.0, 110.0, 140.0, 148.0], 2)
REGION = ([200.0, 200.0, 250.0, 250.0], -1)
CONFIGS = {
    'GARetinaHead': 'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py',
    'GARPNHead': 'guided_anchoring/ga-faster-rcnn_r50-caffe_fpn_1x_coco.py',
}


def make(name, sniper=True):
    """The head, small, and maps for it."""
    model = get_config(f'mmdet::{CONFIGS[name]}').model
    if sniper:
        sniper_model(model, PYRAMID)
        assert model.batch_pixels == 1  # its places are those of the first input of a batch
    rpn = name == 'GARPNHead'
    head = model.rpn_head if rpn else model.bbox_head
    head.update(in_channels=32, feat_channels=32, test_cfg=None)
    head.train_cfg = model.train_cfg.rpn if rpn else model.train_cfg
    if not rpn:
        head.update(num_classes=3, stacked_convs=1)
    torch.manual_seed(0)
    built = MODELS.build(head)
    assert type(built).__name__ == ('SNIPER' if sniper else '') + name
    built.init_weights()
    strides = [4, 8, 16, 32, 64] if rpn else [8, 16, 32, 64, 128]
    return built.train(), tuple(torch.randn(1, 32, SIZE // s, SIZE // s) for s in strides)


def objects(of):
    return InstanceData(
        bboxes=torch.tensor([box for box, _ in of]).reshape(-1, 4),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
    )


def sample(valid, ignored):
    shape = dict.fromkeys(
        ('img_shape', 'pad_shape', 'batch_input_shape', 'ori_shape'), (SIZE, SIZE)
    )
    return DetDataSample(
        metainfo=shape, gt_instances=objects(valid), ignored_instances=objects(ignored)
    )


def step(name, valid, ignored, sniper=True):
    """Losses, and their gradients at class scores, shapes and places, each flat."""
    head, feats = make(name, sniper)
    outputs = []

    def keep(_, __, output):
        for maps in output:
            for one in maps:
                one.retain_grad()
        outputs.append(output)

    head.register_forward_hook(keep)
    torch.manual_seed(1)  # samples are drawn
    losses = {k: sum(v) for k, v in head.loss(feats, [sample(valid, ignored)]).items()}
    sum(losses.values()).backward()
    scores, _, shapes, places = (
        torch.cat([one.grad.flatten() for one in maps]) for maps in outputs[0]
    )
    return losses, scores, shapes, places


@pytest.mark.parametrize('name', CONFIGS)
def test_without_invalid_objects_it_is_the_stock_head(name):
    ours, stock = (step(name, [VALID], [REGION], sniper) for sniper in (True, False))
    assert ours[0] == stock[0]
    assert all(map(torch.equal, ours[1:], stock[1:]))


@pytest.mark.parametrize('name', CONFIGS)
def test_places_of_an_invalid_object_are_ignored_and_no_others(name):
    losses, _, shapes, places = step(name, [VALID], [INVALID, REGION])
    dropped = step(name, [VALID], [REGION], sniper=False)
    alone = step(name, [INVALID], [REGION], sniper=False)
    nothing = step(name, [], [REGION], sniper=False)
    of_invalid = (alone[3] != nothing[3]) & (dropped[3] == nothing[3])
    assert of_invalid.sum() > 9
    assert (places[of_invalid] == 0).all()
    assert (dropped[3][of_invalid] != 0).all()  # whichever way FocalLoss reads the targets
    assert torch.equal(places[~of_invalid], dropped[3][~of_invalid])
    # Shapes are learned of valid objects; their number of samples is as it was.
    assert torch.equal(shapes, dropped[2])
    rpn = name == 'GARPNHead'
    assert losses['loss_anchor_shape' if rpn else 'loss_shape'] > 0


def test_anchors_on_an_invalid_object_are_ignored():
    """All anchors have a gradient where nothing is sampled."""
    _, scores, _, _ = step('GARetinaHead', [VALID], [INVALID, REGION])
    _, dropped, _, _ = step('GARetinaHead', [VALID], [REGION], sniper=False)
    ignored = scores == 0
    assert ignored.sum() > 0
    assert (dropped[ignored] > 0).all()
    assert torch.equal(scores[~ignored], dropped[~ignored])


@pytest.mark.parametrize('name', CONFIGS)
def test_without_valid_objects_losses_are_finite(name):
    losses, *gradients = step(name, [], [INVALID])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def masked_convolution(conv, x, mask=None):
    """What mmcv's does on a GPU; on a CPU it has none."""
    output = Conv2d.forward(conv, x)
    if mask is None:
        return output
    assert len(x) == 1
    return output * mask


@pytest.mark.parametrize('family', ['GA-Faster R-CNN', 'GA-RetinaNet'])
def test_it_finds_objects_at_each_level_one_window_at_a_time(
    at_levels, picture, unresized, monkeypatch, family
):
    monkeypatch.setattr(MaskedConv2d, 'forward', masked_convolution)
    levels = [
        dict(resize=dict(factor=1.5), valid_range=(0, 50)),
        dict(resize=dict(factor=0.7), valid_range=(30, None)),
    ]
    model = at_levels(family, dict(chip_size=64, levels=levels), batch_pixels=1)
    images = picture(160, 120), picture(160, 120, 1)
    together = [result.pred_instances for result in model.test_step(unresized(*images))]
    for image, got in zip(images, together):
        assert set(got.levels.tolist()) == {0, 1}
        (alone,) = model.test_step(unresized(image))
        assert torch.equal(got.bboxes, alone.pred_instances.bboxes)
