"""Each RoI head of MMDetection learns and is tested as docs/detectors.md says."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads import BaseRoIHead, HybridTaskCascadeRoIHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from mmsniper.models import SNIPERRoIHead, SNIPERRoIMixin

SIZE = 64
PYRAMID = dict(
    chip_size=SIZE,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 16)),
        dict(resize=dict(factor=1.0), valid_range=(12, None)),
    ],
)
NOTHING_IN_RANGE = dict(
    chip_size=SIZE, levels=[dict(resize=dict(factor=2.0), valid_range=(5000, None))]
)
# Level 0, 32 chip px and less are in range.
VALID, INVALID = [0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 40.0, 40.0]
IN_RANGE = [[0.0, 0.0, 30.0, 28.0], [9.0, 9.0, 40.0, 40.0], [40.0, 40.0, 60.0, 60.0]]
TOO_LARGE = [[0.0, 0.0, 33.0, 33.0], [25.0, 25.0, 60.0, 60.0], INVALID]

HEADS = ['CascadeRCNN', 'Double-Head R-CNN', 'Dynamic R-CNN', 'Grid R-CNN', 'HTC']
HEADS += ['Mask Scoring R-CNN', 'PISA', 'PointRend', 'SCNet', 'TridentNet']
MASKED = ['HTC', 'Mask Scoring R-CNN', 'PISA', 'PointRend', 'SCNet']


def objects(boxes, labels):
    masks = np.zeros((len(boxes), SIZE, SIZE), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes).astype(int).reshape(-1, 4)):
        mask[y1:y2, x1:x2] = 1
    return InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=BitmapMasks(masks, SIZE, SIZE),
    )


def sample(valid=(), invalid=()):
    """Of objects (box, label); what they are in the semantic map is their label."""
    meta = dict(img_shape=(SIZE, SIZE), ori_shape=(100, 120), scale_factor=(2.0, 2.0))
    data = DetDataSample(metainfo=dict(meta, batch_input_shape=(SIZE, SIZE)))
    data.gt_instances = objects(*([list(v) for v in zip(*valid)] or ([], [])))
    data.ignored_instances = objects(*([list(v) for v in zip(*invalid)] or ([], [])))
    rng = np.random.default_rng(0)
    classes = torch.from_numpy(rng.integers(0, 100, (1, SIZE, SIZE), dtype=np.uint8))
    data.gt_sem_seg = PixelData(sem_seg=classes)
    return data


def proposals(boxes):
    return InstanceData(bboxes=torch.tensor(boxes), scores=torch.ones(len(boxes)))


@pytest.fixture
def make_head(family_config, build):
    def make(family, pyramid=None):
        """The stock head, or with a pyramid the SNIPER version of it."""
        cfg = family_config(family)
        head = cfg.roi_head
        head.update(train_cfg=cfg.train_cfg.rcnn, test_cfg=cfg.test_cfg.rcnn)
        for stage in head.train_cfg if isinstance(head.train_cfg, list) else [head.train_cfg]:
            if stage.sampler.type != 'PseudoSampler':
                stage.sampler.add_gt_as_proposals = False
        if pyramid is not None:
            head.update(type='SNIPERRoIHead', head=head.type, pyramid=pyramid)
        return build(head)

    return make


def step(head, boxes, data):
    """Losses and gradients of a head."""
    torch.manual_seed(1)
    channels = 1024 if 'shared_head' in dict(head.named_children()) else 32
    strides = [16] if channels == 1024 else [4, 8, 16, 32, 64]
    feats = tuple(
        torch.rand(1, channels, SIZE // s, SIZE // s, requires_grad=True) for s in strides
    )
    torch.manual_seed(2)
    losses = {k: v for k, v in head.loss(feats, [proposals(boxes)], [data]).items() if 'loss' in k}
    sum(v.sum() for v in losses.values()).backward()
    gradients = {k: p.grad for k, p in head.named_parameters()}
    return losses, gradients | {f'map {i}': f.grad for i, f in enumerate(feats)}


@pytest.mark.parametrize('family', HEADS)
def test_losses_are_those_of_the_stock_head_on_all_objects_and_the_proposals_in_range(
    make_head, family
):
    """Proposals out of range have no gradient; one on an invalid object is foreground."""
    valid, invalid = (VALID, 1), (INVALID, 2)
    ours, stock = make_head(family, PYRAMID), make_head(family)
    assert list(ours.state_dict()) == list(stock.state_dict())
    mixed = [box for pair in zip(IN_RANGE, TOO_LARGE) for box in pair]
    losses, gradients = step(ours, mixed, sample([valid], [invalid]))
    expected_losses, expected = step(stock, IN_RANGE, sample([valid, invalid]))
    assert set(losses) == set(expected_losses)
    for name, loss in expected_losses.items():
        torch.testing.assert_close(losses[name], loss, msg=lambda m, name=name: f'{name}: {m}')
    for name, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)
    # What stock makes of the same input: with the invalid object dropped, and with all proposals.
    for boxes, data in ((IN_RANGE, sample([valid])), (mixed, sample([valid, invalid]))):
        other, _ = step(make_head(family), boxes, data)
        assert any(
            name not in other or not torch.allclose(loss, other[name])
            for name, loss in losses.items()
        )


@pytest.mark.parametrize('case', ['objects', 'nothing in range', 'no objects'])
@pytest.mark.parametrize('family', HEADS)
def test_a_training_step_reaches_every_parameter(family_config, build, family, case):
    cfg = family_config(family)
    pyramid = NOTHING_IN_RANGE if case == 'nothing in range' else PYRAMID
    cfg.roi_head.update(type='SNIPERRoIHead', head=cfg.roi_head.type, pyramid=pyramid)
    cfg.train_cfg.rpn.assigner.type = 'ValidRangeAssigner'
    cfg.train_cfg.rpn_proposal.max_per_img = 20
    model = build(cfg).train()
    assert isinstance(model.roi_head, SNIPERRoIMixin)
    samples = [sample(), sample()]
    if case != 'no objects':
        samples[0] = sample([(VALID, 1)], [(INVALID, 2), (IN_RANGE[2], -1)])
    images = [torch.randint(0, 255, (3, SIZE, SIZE), dtype=torch.uint8) for _ in samples]
    batch = dict(inputs=images, data_samples=samples)
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    trained = {k: p.grad for k, p in model.named_parameters() if p.requires_grad}
    assert [k for k, gradient in trained.items() if gradient is None] == []
    assert all(torch.isfinite(gradient).all() for gradient in trained.values())


def test_dynamic_rcnn_looks_at_the_proposals_in_range(make_head):
    """INVALID's own proposal has an IoU of 1, and is none of those that it learns from."""
    head = make_head('Dynamic R-CNN', PYRAMID)
    head.train_cfg.dynamic_rcnn.iou_topk = 1
    step(head, [INVALID, IN_RANGE[0]], sample([(VALID, 1)], [(INVALID, 2)]))
    assert head.iou_history == [pytest.approx(28 / 30)]
    head.bbox_sampler.sampler.add_gt_as_proposals = True  # as MMDetection has it
    step(head, [INVALID, IN_RANGE[0]], sample([], [(INVALID, 2)]))
    assert head.iou_history[1] == pytest.approx(28 * 30 / 1600)
    step(head, [INVALID, IN_RANGE[0]], sample([(VALID, 1)], [(INVALID, 2)]))
    assert head.iou_history[2] == 1


# Any head, by its name ---------------------------------------------------------------------------


def test_a_head_is_the_one_that_its_name_says_and_copies_are(make_head):
    head = make_head('HTC', PYRAMID)
    assert isinstance(head, SNIPERRoIHead)
    assert isinstance(head, HybridTaskCascadeRoIHead)
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert type(other) is type(head)
        assert other.pyramid == head.pyramid
        expected, _ = step(head, IN_RANGE, sample([(VALID, 1)]))
        assert step(other, IN_RANGE, sample([(VALID, 1)]))[0] == expected


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        ('NoSuchRoIHead', 'NoSuchRoIHead: it is not registered; custom_imports'),
        ('RPNHead', 'RPNHead: it is no RoI head'),
        ('MultiInstanceRoIHead', 'it gives two objects to a proposal'),
        ('SparseRoIHead', 'SNIPERSparseRoIHead is its version'),
    ],
)
def test_what_can_be_no_such_head_is_refused(head, message):
    with pytest.raises(ValueError, match=message):
        SNIPERRoIHead(head=head, pyramid=PYRAMID)


def test_every_roi_head_of_mmdetection_is_in_these_tests(family_config):
    """A new one is to be looked at: what its losses are made of, and when its boxes are final."""
    tested = {family_config(family).roi_head.type for family in HEADS}
    stock = {
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type)
        and issubclass(kind, BaseRoIHead)
        and kind.__module__.startswith('mmdet.')
    }
    assert stock - tested == {'StandardRoIHead', 'SparseRoIHead', 'MultiInstanceRoIHead'}


# Queries -----------------------------------------------------------------------------------------


@pytest.fixture(params=['Sparse R-CNN', 'QueryInst'])
def make_sparse(request, family_config, build):
    def make(sniper=True):
        cfg = family_config(request.param)
        if sniper:
            cfg.roi_head.type = 'SNIPERSparseRoIHead'
        return build(cfg).train()

    return make


def sparse_step(model, data):
    """Losses, and the gradient at the class scores of each stage, shape (queries, classes)."""
    scores = []

    def keep(_, __, output):
        output.retain_grad()
        scores.append(output)

    hooks = [head.fc_cls.register_forward_hook(keep) for head in model.roi_head.bbox_head]
    model.zero_grad()
    torch.manual_seed(3)
    feats = tuple(torch.rand(1, 32, SIZE // s, SIZE // s) for s in (4, 8, 16, 32))
    _, found = model.rpn_head.loss_and_predict(feats, [data])
    losses = model.roi_head.loss(feats, found, [data])
    losses = {k: v for k, v in losses.items() if 'loss' in k}
    sum(losses.values()).backward()
    for hook in hooks:
        hook.remove()
    return losses, [score.grad.view(-1, 3) for score in scores]


def test_queries_on_invalid_objects_are_ignored(make_sparse):
    model = make_sparse()
    valid, invalid = (VALID, 1), (INVALID, 2)
    marked, gradients = sparse_step(model, sample([valid], [invalid]))
    dropped, stock = sparse_step(make_sparse(sniper=False), sample([valid]))
    for ours, theirs in zip(gradients, stock):
        ignored = (ours == 0).all(dim=1)
        assert ignored.sum() == 1
        assert (theirs[ignored] > 0).all()  # background there
        assert torch.equal(ours[~ignored], theirs[~ignored])
    assert {k for k in marked if marked[k] != dropped[k]} == {f's{i}.loss_cls' for i in range(6)}


def test_without_invalid_objects_queries_learn_as_in_stock(make_sparse):
    losses, gradients = sparse_step(make_sparse(), sample([(VALID, 1)]))
    expected, stock = sparse_step(make_sparse(sniper=False), sample([(VALID, 1)]))
    assert losses == expected
    assert all(map(torch.equal, gradients, stock))


def test_without_valid_objects_queries_learn_background_by_a_sum(make_sparse):
    """Stock divides it by the number of objects, plus the smallest number that is not lost."""
    eps = torch.finfo(torch.float32).eps
    losses, _ = sparse_step(make_sparse(), sample())
    stock, _ = sparse_step(make_sparse(sniper=False), sample())
    _, gradients = sparse_step(make_sparse(), sample([], [(INVALID, 2)]))
    for i in range(6):
        assert losses[f's{i}.loss_cls'] == stock[f's{i}.loss_cls'] * eps
        assert losses[f's{i}.loss_bbox'] == 0
        assert (gradients[i] == 0).all(dim=1).sum() == 1


# Testing at all levels ---------------------------------------------------------------------------

LEVELS = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 50)),
        dict(resize=dict(factor=0.7), valid_range=(30, None)),
    ],
)
WHOLE = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])


def found(model, batch):
    return [result.pred_instances for result in model.test_step(batch)]


@pytest.mark.parametrize('family', [*HEADS, 'Sparse R-CNN'])
def test_it_finds_objects_at_each_level(at_levels, picture, unresized, family):
    model = at_levels(family, LEVELS, noise=family not in ('Sparse R-CNN', 'TridentNet'))
    if family == 'Sparse R-CNN':
        places = model.rpn_head.init_proposal_bboxes.weight.data
        places.copy_(torch.tensor([0.2, 0.2, 0.1, 0.1]) + 0.6 * torch.rand_like(places))
        for head in model.roi_head.bbox_head:  # which leave them there
            torch.nn.init.zeros_(head.fc_reg.weight)
            torch.nn.init.zeros_(head.fc_reg.bias)
    for got in found(model, unresized(picture(160, 120), picture(100, 150, 1))):
        assert set(got.levels.tolist()) == {0, 1}
        size = (got.bboxes[:, 2:] - got.bboxes[:, :2]).prod(dim=1).sqrt()
        assert (size[got.levels == 0] < 50).all()
        assert (size[got.levels == 1] >= 30).all()
        if model.roi_head.with_mask:
            assert got.masks.shape[0] == len(got)


def mask_inputs(roi_head, feats):
    """What a head wants for its masks beside features, boxes and metainfo."""
    inputs = []
    if getattr(roi_head, 'with_semantic', False):
        inputs.append(roi_head.semantic_head(feats)[1])
    if getattr(roi_head, 'with_glbctx', False):
        inputs.append(roi_head.glbctx_head(feats)[1])
    return inputs


@pytest.mark.parametrize('family', MASKED)
def test_masks_and_scores_of_a_whole_image_are_those_of_the_stock_head(
    at_levels, picture, unresized, family
):
    model = at_levels(family, WHOLE)
    image = picture(150, 110)
    before = []
    merge = model.merge
    model.merge = lambda *args: before.append(copy.deepcopy(merge(*args))) or merge(*args)
    (got,) = found(model, unresized(image))
    info = dict(ori_shape=(110, 150), img_shape=(110, 150), scale_factor=(1.0, 1.0))
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    data = dict(inputs=[pixels], data_samples=[DetDataSample(metainfo=info)])
    data = model.data_preprocessor(data, False)
    (merged,) = before
    known = InstanceData(bboxes=merged.bboxes, labels=merged.labels, scores=merged.scores)
    with torch.no_grad():
        feats = model.extract_feat(data['inputs'])
        extra = mask_inputs(model.roi_head, feats)
        metas = [one.metainfo for one in data['data_samples']]
        (stock,) = model.roi_head.predict_mask(feats, *extra, metas, [known], rescale=True)
    assert len(got) > 10
    assert torch.equal(got.masks, stock.masks)
    torch.testing.assert_close(got.scores, stock.scores)
    assert torch.equal(got.scores, merged.scores) == (family != 'Mask Scoring R-CNN')


@pytest.mark.parametrize('family', ['HTC', 'PointRend'])
def test_windows_without_objects_need_no_masks(at_levels, picture, unresized, family):
    """Windows of three images go into a batch; in one of them nothing is found."""
    model = at_levels(family, WHOLE)
    images = [picture(96, 64, seed) for seed in range(3)]
    keep = model._keep
    model._keep = lambda found, window, scene: keep(found, window, scene)[: 5 * (window.image != 1)]
    first, empty, last = found(model, unresized(*images))
    assert [len(first), len(empty), len(last)] == [5, 0, 5]
    assert empty.masks.shape == (0, 64, 96)
    model._keep = lambda found, window, scene: keep(found, window, scene)[:5]
    _, _, alone = found(model, unresized(*images))
    assert torch.equal(last.masks, alone.masks)
