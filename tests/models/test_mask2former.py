"""Queries of Mask2Former that are on invalid objects are neither objects nor background."""

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import Mask2FormerHead, mask2former_head
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

SIZE, NUM_CLASSES, LAYERS = 96, 3, 3  # the first of which is before the decoder
VALID, INVALID, OTHER = ([8, 10, 40, 44], 1), ([50, 40, 88, 90], 2), ([60, 4, 90, 30], 0)


@pytest.fixture(autouse=True)
def same_points(monkeypatch):
    """The random points of a layer are the same, however many were drawn before."""

    def seeded(function):
        def call(*args, **kwargs):
            torch.manual_seed(5)
            return function(*args, **kwargs)

        return call

    for owner, name in (
        (Mask2FormerHead, '_get_targets_single'),
        (mask2former_head, 'get_uncertain_point_coords_with_randomness'),
    ):
        monkeypatch.setattr(owner, name, seeded(getattr(owner, name)))


@pytest.fixture
def make(family_config, build):
    def make_(sniper=True, **changes):
        cfg = family_config('Mask2Former')
        cfg.panoptic_head.update(changes)
        if sniper:
            cfg.panoptic_head.type = 'SNIPERMask2FormerHead'
        return build(cfg).panoptic_head.train()

    return make_


def objects(of):
    masks = np.zeros((len(of), SIZE, SIZE), np.uint8)
    for mask, ((x1, y1, x2, y2), _) in zip(masks, of):
        mask[y1:y2, x1:x2] = 1
    return InstanceData(
        bboxes=torch.tensor([box for box, _ in of]).reshape(-1, 4).float(),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
        masks=BitmapMasks(masks, SIZE, SIZE),
    )


def sample(valid=(), invalid=()):
    shape = (SIZE, SIZE)
    return DetDataSample(
        metainfo=dict(img_shape=shape, batch_input_shape=shape),
        gt_instances=objects(valid),
        ignored_instances=objects(invalid),
    )


def step(head, *data):
    """Losses, and the gradient at the class scores of each layer, (n, queries, classes + 1)."""
    scores = []

    def keep(_, __, output):
        output.retain_grad()
        scores.append(output)

    handle = head.cls_embed.register_forward_hook(keep)
    torch.manual_seed(3)
    channels = [conv.conv.in_channels for conv in head.pixel_decoder.input_convs][::-1]
    channels = [head.pixel_decoder.lateral_convs[0].conv.in_channels, *channels]
    feats = [
        torch.rand(len(data), c, SIZE // s, SIZE // s) for c, s in zip(channels, (4, 8, 16, 32))
    ]
    losses = head.loss(feats, list(data))
    handle.remove()
    sum(losses.values()).backward()
    return {name: loss.item() for name, loss in losses.items()}, [s.grad for s in scores]


def ignored_of(gradients):
    return [(of_layer == 0).all(dim=-1) for of_layer in gradients]


def test_queries_on_invalid_objects_have_no_gradient_and_others_that_of_stock(make):
    losses, gradients = step(make(), sample([VALID], [INVALID]))
    expected, stock = step(make(sniper=False), sample([VALID]))
    assert len(gradients) == len(stock) == LAYERS
    for ours, theirs, ignored in zip(gradients, stock, ignored_of(gradients)):
        assert ignored.sum() == 1
        assert (theirs[ignored][:, :NUM_CLASSES] > 0).all()  # background there
        assert torch.equal(ours[~ignored], theirs[~ignored])
    changed = {name for name in losses if losses[name] != expected[name]}
    assert changed == {name for name in losses if name.endswith('loss_cls')}


def test_it_is_the_query_that_the_object_would_have_beside_the_valid_ones(make):
    """Alone it gets its first choice; if a valid object has that, its next one."""
    alone = ignored_of(step(make(), sample([], [INVALID]))[1])
    _, stock = step(make(sniper=False), sample([INVALID]))
    for ignored, of_layer in zip(alone, stock):
        positive = (of_layer[..., INVALID[1]] < 0) & ~(of_layer[..., NUM_CLASSES] < 0)
        assert torch.equal(ignored, positive)
    beside = ignored_of(step(make(), sample([INVALID], [INVALID]))[1])
    for ignored, first in zip(beside, alone):
        assert ignored.sum() == 1
        assert not (ignored & first).any()


def test_without_invalid_objects_losses_and_gradients_are_those_of_stock(make):
    data = sample([VALID, OTHER]), sample([INVALID])
    losses, gradients = step(make(), *data)
    expected, stock = step(make(sniper=False), *data)
    assert losses == expected
    assert all(map(torch.equal, gradients, stock))


def test_each_input_of_a_batch_ignores_its_own(make):
    losses, gradients = step(
        make(), sample([VALID], [INVALID, OTHER]), sample([OTHER]), sample([], [VALID])
    )
    assert all(map(np.isfinite, losses.values()))
    for ignored in ignored_of(gradients):
        assert ignored.sum(dim=1).tolist() == [2, 0, 1]


def test_without_valid_objects_all_is_finite_and_every_parameter_has_a_gradient(make):
    head = make()
    losses, _ = step(head, sample([], [INVALID]))
    assert all(map(np.isfinite, losses.values()))
    assert all(loss == 0 for name, loss in losses.items() if not name.endswith('loss_cls'))
    stock = make(sniper=False)
    step(stock, sample())
    for (name, ours), theirs in zip(head.named_parameters(), stock.parameters()):
        assert (ours.grad is None) == (theirs.grad is None), name
        assert ours.grad is None or torch.isfinite(ours.grad).all()


def test_more_invalid_objects_than_queries_leave_no_background(make):
    head = make(num_queries=6)
    _, gradients = step(head, sample([VALID, OTHER], [INVALID, OTHER] * 4))
    for of_layer, ignored in zip(gradients, ignored_of(gradients)):
        assert ignored.sum() == 4
        left = of_layer[~ignored]  # the queries of the two valid objects
        assert sorted(left.argmin(dim=1).tolist()) == [OTHER[1], VALID[1]]


def test_samples_are_left_as_they_are(make):
    data = sample([VALID], [INVALID])
    step(make(), data)
    assert len(data.gt_instances) == len(data.ignored_instances) == 1
    assert isinstance(data.gt_instances.masks, BitmapMasks)


def test_stuff_is_refused(family_config):
    cfg = family_config('Mask2Former').panoptic_head
    cfg.update(type='SNIPERMask2FormerHead', num_stuff_classes=2)
    with pytest.raises(ValueError, match='for instances, num_stuff_classes must be 0, got 2'):
        MODELS.build(cfg)


def test_weights_of_another_number_of_classes_are_refused(family_config):
    """As where a child config of COCO's says ``num_things_classes`` alone."""
    cfg = family_config('Mask2Former').panoptic_head
    cfg.update(type='SNIPERMask2FormerHead', num_things_classes=7)
    cfg.loss_cls.class_weight = [1.0] * 80 + [0.1]
    with pytest.raises(ValueError, match=r'class_weight has 81 numbers.*\[1\.0\] \* 7 \+ \[0\.1\]'):
        MODELS.build(cfg)
    cfg.loss_cls.class_weight = [1.0] * 7 + [0.1]
    assert MODELS.build(cfg).num_classes == 7
