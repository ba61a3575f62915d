"""DDQ: its distinct, dense and denoising queries, and how many of them a test has."""

import pickle

import pytest
import torch
from marked_objects import batch, objects
from mmdet.registry import MODELS

from mmsniper.convert.model import sniper_model

SIZE = 128
VALID = ([20.0, 24.0, 60.0, 60.0], 0)
INVALID = ([70.0, 68.0, 108.0, 109.0], 2)
REGION = ([100.0, 10.0, 120.0, 50.0], -1)
TWO_LEVELS = dict(
    chip_size=96,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 64)),
        dict(resize=dict(factor=0.7), valid_range=(48, None)),
    ],
)
DENSE = 4  # queries of an object


@pytest.fixture
def ddq(family_config, build):
    cfg = family_config('DDQ')
    cfg.num_queries = 200  # of 340 cells, so that some are on the objects
    sniper_model(cfg, TWO_LEVELS)
    assert cfg.bbox_head.type == 'SNIPERDDQDETRHead'
    return build(cfg).train()


class Step:
    """Losses of a detector, and their gradients at the class scores of each kind of query.

    ``distinct``, ``dense`` and ``denoising``: shape (layers, inputs, queries, C); ``proposed`` and
    ``dense_proposed``, of the encoder: shape (inputs, queries, C).
    """

    def __init__(self, model, *inputs):
        head, outputs, given = model.bbox_head, [], {}
        stock_loss = head.loss

        def keep(_, __, output):
            output[0].retain_grad()
            outputs.append(output[0])

        def loss(**kwargs):
            given.update(kwargs)
            for name in ('enc_outputs_class', 'aux_enc_outputs_class'):
                kwargs[name].retain_grad()
            return stock_loss(**kwargs)

        images, samples = batch(SIZE, *inputs)
        torch.manual_seed(1)  # of the noise
        model.zero_grad()
        hook, head.loss = head.register_forward_hook(keep), loss
        losses = model.loss(images, samples)
        hook.remove()
        del head.loss
        self.losses = {
            key: sum(loss) if isinstance(loss, list) else loss for key, loss in losses.items()
        }
        sum(self.losses.values()).backward()
        noise, dense = (given['dn_meta'][f'num_{kind}_queries'] for kind in ('denoising', 'dense'))
        gradient = outputs[0].grad
        self.denoising = gradient[:, :, :noise]
        self.distinct = gradient[:, :, noise:-dense]
        self.dense = gradient[:, :, -dense:]
        self.proposed = given['enc_outputs_class'].grad[None]
        self.dense_proposed = given['aux_enc_outputs_class'].grad[None]
        self.parameters = [p.grad for p in model.parameters()]


QUERIES = dict(distinct=1, proposed=1, dense=DENSE, dense_proposed=DENSE)
"""Kinds of queries, and how many of each an object has."""


def test_queries_that_only_an_invalid_object_would_have_are_ignored(ddq):
    marked_step = Step(ddq, ([VALID], [REGION, INVALID]))
    dropped_step = Step(ddq, ([VALID], [REGION]))
    alone_step = Step(ddq, ([INVALID], [REGION]))
    for queries, of_an_object in QUERIES.items():
        steps = (marked_step, dropped_step, alone_step)
        marked, dropped, alone = (getattr(step, queries)[:, 0] for step in steps)
        ignored = (marked == 0).all(dim=-1) & (dropped != 0).any(dim=-1)
        assert ignored.sum(dim=1).tolist() == [of_an_object] * len(marked), queries
        assert (dropped[ignored] > 0).all(), 'dropped, it is background'
        assert torch.equal(marked[~ignored], dropped[~ignored])
        # Those that are positive for it alone, and for no valid object.
        wanted = (alone[..., INVALID[1]] < 0) & (dropped[..., VALID[1]] >= 0)
        assert wanted.any(), queries
        assert ignored[wanted].all()
    assert torch.equal(marked_step.denoising, dropped_step.denoising)
    assert marked_step.denoising.abs().sum() > 0
    marked, dropped = marked_step.losses, dropped_step.losses
    changed = {key for key in marked if marked[key] != dropped[key]}
    assert changed == {key for key in marked if 'loss_cls' in key and 'dn_' not in key}


def test_without_a_valid_object_losses_are_finite_and_nothing_dense_is_learned_as_in_stock(ddq):
    step, nothing = Step(ddq, ([], [INVALID])), Step(ddq, ([], []))
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    assert all(torch.isfinite(grad).all() for grad in step.parameters if grad is not None)
    assert not step.dense.any()
    assert not nothing.dense.any()
    ignored = (step.distinct == 0).all(dim=-1) & (nothing.distinct != 0).any(dim=-1)
    assert ignored.sum(dim=-1).tolist() == [[1]] * len(step.distinct)


def test_without_invalid_objects_the_losses_are_those_of_stock(ddq, family_config):
    cfg = family_config('DDQ')
    cfg.num_queries = ddq.num_queries
    stock = MODELS.build(cfg).train()
    stock.load_state_dict(ddq.state_dict())
    inputs = ([VALID], [REGION]), ([], []), ([VALID, INVALID], [])
    ours, theirs = (Step(model, *inputs).losses for model in (ddq, stock))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_of_a_batch_each_input_has_its_own_invalid_objects_and_samples_are_left_alone(ddq):
    inputs = ([VALID], [INVALID]), ([VALID, INVALID], [])
    images, samples = batch(SIZE, *inputs)
    before = [sample.metainfo for sample in samples]
    ddq.loss(images, samples)
    assert [len(sample.gt_instances) for sample in samples] == [1, 2]
    assert [sample.metainfo for sample in samples] == before
    dense = Step(ddq, *inputs).dense
    turned = Step(ddq, *inputs[::-1]).dense
    zero = (dense == 0).all(dim=-1).sum(dim=-1)
    assert zero.tolist() == [[DENSE, 0]] * len(dense)
    assert (turned == 0).all(dim=-1).sum(dim=-1).tolist() == [[0, DENSE]] * len(dense)


@pytest.mark.parametrize(
    ('queries', 'invalid', 'ignored'),
    [
        (DENSE + 5, 1, DENSE),  # those that come next, not those that the valid object has
        (DENSE + 3, 1, 3),
        (DENSE + 3, 4, 3),  # there are more objects than queries left
        (DENSE, 4, 0),
    ],
)
def test_invalid_objects_have_what_the_valid_ones_left_over(ddq, queries, invalid, ignored):
    scores, boxes = torch.rand(queries, 3), torch.tensor([VALID[0]] * queries)
    given = objects([VALID] + [(VALID[0], 2)] * invalid)
    meta = dict(img_shape=(SIZE, SIZE), num_valid_instances=1)
    labels, weights, *_ = ddq.bbox_head.aux_loss_for_dense._get_target_single(
        scores, boxes, given.bboxes, given.labels, meta
    )
    assert weights[labels == VALID[1]].tolist() == [1] * DENSE
    assert (weights == 0).sum() == ignored


def test_in_testing_all_distinct_queries_of_a_window_take_part(at_levels, picture, unresized):
    model = at_levels('DDQ', TWO_LEVELS, merge_cfg=dict(score_thr=0.0))
    head, counts = model.bbox_head, []
    predict, most = head.predict_by_feat, head.test_cfg.max_per_img

    def with_few_left(*args, **kwargs):
        masks = model.cache_dict['distinct_query_mask'][-1]
        for mask in masks[:: model.cache_dict['num_heads']]:
            mask[0, 5 + len(counts) :] = False  # as if NMS had left so many, in each another number
            counts.append(int(mask[0].sum()))
        found = predict(*args, **kwargs)
        assert [len(of_window) for of_window in found] == [3 * n for n in counts[-len(found) :]]
        return found

    head.predict_by_feat = with_few_left
    model.test_step(unresized(picture(190, 130)))
    assert 3 * counts[0] < most, 'the best k of stock are more than there are'
    assert counts[0] < counts[1]
    assert head.test_cfg.max_per_img == most
    assert '_predict_by_feat_single' not in vars(head)


def test_images_of_a_batch_find_what_each_finds_alone(at_levels, picture, unresized):
    model = at_levels('DDQ', TWO_LEVELS)
    images = [picture(190, 130, seed) for seed in range(2)]
    together = model.test_step(unresized(*images))
    for image, found in zip(images, together):
        (alone,) = model.test_step(unresized(image))
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(found.pred_instances[key], alone.pred_instances[key])


def test_a_copy_has_its_own_queries(at_levels, picture, unresized):
    """All modules of DDQ share a dict."""
    model = at_levels('DDQ', TWO_LEVELS)
    data = unresized(picture(120, 90))
    (expected,) = model.test_step(data)
    other = pickle.loads(pickle.dumps(model))
    assert other.cache_dict is other.decoder.cache_dict
    assert other.cache_dict['cls_branches'] is other.bbox_head.cls_branches
    for value in model.parameters():
        torch.nn.init.zeros_(value)
    (found,) = other.test_step(data)
    assert torch.equal(found.pred_instances.bboxes, expected.pred_instances.bboxes)
