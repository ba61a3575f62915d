"""Co-DETR: what an invalid object does to its queries, and to the heads that teach them.

Its code is in MMDetection's projects, in no package: run with a checkout of it in PYTHONPATH.
"""

import copy
import pickle
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from marked_objects import batch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from untrained import StatisticsOfBatches

from harness.reduced import reduced
from mmsniper.convert import load_config
from mmsniper.convert.model import sniper_model
from mmsniper.engine import SNIPERRunner
from mmsniper.models import SNIPERCoDINOHead
from mmsniper.models import co_detr as co_detr_module
from mmsniper.models.proposals import propose
from mmsniper.models.temporary_settings import box_head

CODE = 'projects.CO-DETR.codetr'
try:
    project = import_module(CODE)
except ModuleNotFoundError:
    pytest.skip(f'needs {CODE}, a checkout of MMDetection', allow_module_level=True)
CONFIG = Path(project.__file__).parents[1] / 'configs/codino/co_dino_5scale_r50_8xb2_1x_coco.py'

SIZE, CLASSES = 128, 3
PYRAMID = dict(
    chip_size=SIZE,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 40)),
        dict(resize=dict(factor=0.5), valid_range=(32, None)),
    ],
)
VALID = ([20.0, 24.0, 60.0, 60.0], 0)
INVALID = ([70.0, 68.0, 118.0, 115.0], 2)
REGION = ([100.0, 10.0, 120.0, 50.0], -1)


def stock_config():
    cfg = reduced(Config.fromfile(CONFIG)).model
    for head in (cfg.query_head, *cfg.bbox_head, *(of.bbox_head for of in cfg.roi_head)):
        head.num_classes = CLASSES
    cfg.data_preprocessor.pad_size_divisor = 32  # as our configs have it
    cfg.query_head.num_query = 200  # of 340 cells and more, so that some are on the objects
    return cfg


@pytest.fixture
def co_detr(build):
    cfg = stock_config()
    sniper_model(cfg, PYRAMID)
    return build(cfg).train()


class Step:
    """Losses of a Co-DETR, and their gradients at the class scores of each kind of query.

    ``queries``, ``denoising``: shape (layers, inputs, queries, C); ``proposed``, of the encoder:
    shape (inputs, queries, C); ``anchors``, of ATSS: shape (inputs, C, cells). ``taught`` are the
    queries that other heads teach, R-CNN and ATSS: their targets.
    """

    def __init__(self, model, *inputs):
        head, atss, outputs = model.query_head, model.bbox_head[0], {}
        parts = head.forward, head.get_aux_targets
        self.taught = []

        def forward(*args, **kwargs):
            found = parts[0](*args, **kwargs)
            outputs['scores'], outputs['proposed'] = found[0], found[2]
            for scores in outputs.values():
                scores.retain_grad()
            return found

        def get_aux_targets(*args):
            self.taught.append(parts[1](*args))
            return self.taught[-1]

        def keep(_, __, found):
            outputs['anchors'] = found[0]
            for scores in found[0]:
                scores.retain_grad()

        images, samples = batch(SIZE, *inputs)
        torch.manual_seed(1)  # of noise and samples
        model.zero_grad()
        head.forward, head.get_aux_targets = forward, get_aux_targets
        hook = atss.register_forward_hook(keep)
        try:
            losses = model.loss(images, samples)
        finally:
            hook.remove()
            del head.forward, head.get_aux_targets
        self.losses = {
            key: sum(loss) if isinstance(loss, list | tuple) else loss
            for key, loss in losses.items()
        }
        sum(self.losses.values()).backward()
        gradient = outputs['scores'].grad
        noise = gradient.shape[2] - head.num_query
        self.denoising, self.queries = gradient[:, :, :noise], gradient[:, :, noise:]
        self.proposed = outputs['proposed'].grad[None]
        self.anchors = torch.cat([scores.grad.flatten(2) for scores in outputs['anchors']], dim=2)
        self.parameters = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def is_background(gradient):
    return (gradient > 0).all(dim=-1)


def test_all_parts_are_exchanged():
    config, wanted = stock_config(), stock_config()
    sniper_model(config, PYRAMID)
    assert config.query_head.type == 'SNIPERCoDINOHead'
    assert [head.type for head in config.roi_head] == ['SNIPERCoRoIHead']
    assert [head.type for head in config.bbox_head] == ['SNIPERCoATSSHead']
    queries, rcnn, atss = config.train_cfg
    assert queries.assigner.type == atss.assigner.type == 'IgnoreInvalidAssigner'
    assert rcnn.rpn.assigner.type == 'ValidRangeAssigner'
    assert rcnn.rcnn == wanted.train_cfg[1].rcnn
    assert config.test_cfg == wanted.test_cfg


@pytest.mark.parametrize('queries', ['queries', 'proposed'])
def test_queries_that_only_an_invalid_object_would_have_are_ignored(co_detr, queries):
    marked, dropped, alone = (
        getattr(Step(co_detr, of), queries)[:, 0]
        for of in (([VALID], [REGION, INVALID]), ([VALID], [REGION]), ([INVALID], [REGION]))
    )
    ignored = (marked == 0).all(dim=-1) & (dropped != 0).any(dim=-1)
    assert ignored.sum(dim=1).tolist() == [1] * len(marked)
    assert is_background(dropped[ignored]).all()
    assert torch.equal(marked[~ignored], dropped[~ignored])
    # Those that are positive for it alone, and for no valid object.
    wanted = (alone[..., INVALID[1]] < 0) & (dropped[..., VALID[1]] >= 0)
    assert wanted.any()
    assert ignored[wanted].all()


def test_noise_is_of_the_valid_objects(co_detr):
    marked, dropped = (
        Step(co_detr, ([VALID], [REGION, *invalid])).denoising for invalid in ([INVALID], [])
    )
    assert torch.equal(marked, dropped)
    assert marked.abs().sum() > 0


def test_anchors_of_an_invalid_object_are_ignored_and_teach_no_queries(co_detr):
    marked, dropped, alone = (
        Step(co_detr, of) for of in (([VALID], [INVALID]), ([VALID], []), ([INVALID], []))
    )
    ignored = (marked.anchors == 0).all(dim=1) & (dropped.anchors != 0).any(dim=1)
    wanted = (alone.anchors[:, INVALID[1]] < 0) & (dropped.anchors[:, VALID[1]] >= 0)
    assert wanted.any()
    assert torch.equal(ignored, wanted)
    for step in (marked, dropped):
        _, (_, labels, _, weights, *_) = step.taught
        assert set(labels[weights > 0].tolist()) == {VALID[1]}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Queries are filled up with background, as on a GPU."""
    monkeypatch.setattr(torch.Tensor, 'cuda', lambda self: self)
    monkeypatch.setattr(co_detr_module, '_on_gpu', lambda tensor: True)


def test_queries_are_filled_up_with_background_that_no_head_ignores(
    co_detr, as_on_a_gpu, monkeypatch
):
    given = []
    theirs = project.CoDINOHead.get_aux_targets
    monkeypatch.setattr(
        project.CoDINOHead,
        'get_aux_targets',
        lambda self, coords, *args: given.append(coords) or theirs(self, coords, *args),
    )
    other = ([VALID, INVALID], [])  # with more positive anchors, which others are filled up to
    marked, dropped = (Step(co_detr, ([VALID], of), other) for of in ([INVALID], []))
    _, of_atss, _, without = (coords[1][0] for coords in given)
    assert {*of_atss.tolist()} == {-1, VALID[1], CLASSES}
    assert torch.equal(of_atss == -1, (marked.anchors == 0).all(dim=1)[0])
    assert {*without.tolist()} == {VALID[1], CLASSES}
    for _, (_, labels, _, weights, *_, masks) in (marked.taught, dropped.taught):
        assert set(labels[0].tolist()) == {VALID[1], CLASSES}
        assert (weights == 1).all()
        assert masks is None


def test_without_invalid_objects_the_losses_are_those_of_stock(build, as_on_a_gpu):
    whole_range = dict(resize=dict(factor=1.0), valid_range=(0, None))
    cfg = stock_config()
    sniper_model(cfg, dict(chip_size=SIZE, levels=[whole_range]))
    inputs = ([VALID], [REGION]), ([INVALID], [])  # stock takes equal numbers of proposals of each
    ours, stock = (build(of).train() for of in (cfg, stock_config()))
    stock.load_state_dict(ours.state_dict())
    ours, theirs = (Step(model, *inputs).losses for model in (ours, stock))
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize('invalid', [[], [INVALID]])
def test_without_a_valid_object_losses_and_gradients_are_finite(co_detr, invalid):
    step = Step(co_detr, ([], invalid), ([], []))
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    without = [name for name, grad in step.parameters.items() if grad is None]
    assert without == []
    assert all(torch.isfinite(grad).all() for grad in step.parameters.values())


def test_proposals_of_an_input_teach_queries_whatever_the_others_have(co_detr, monkeypatch):
    """Stock takes as many of each input as the input with the fewest has, here none."""
    _, samples = batch(SIZE, ([VALID], []), ([], [INVALID]))
    feats = [torch.rand(2, 256, SIZE // 2**i, SIZE // 2**i) for i in range(2, 8)]
    of_size = {32: [VALID[0]] * 20, 64: [INVALID[0]] * 20}  # in level 0's range, and not
    proposals = [
        InstanceData(bboxes=torch.tensor(boxes) + torch.rand(20, 4), scores=torch.rand(20))
        for boxes in of_size.values()
    ]
    coords, labels, targets, of_boxes, name = co_detr.roi_head[0].loss(feats, proposals, samples)[
        'pos_coords'
    ]
    assert [len(of) for of in coords] == [21, 0], 'with the valid object itself'
    assert name == 'rcnn'
    assert set(labels[0].tolist()) == {VALID[1]}
    assert torch.equal(targets[0], torch.tensor([VALID[0]]).expand(21, 4))
    assert [tuple(of.shape) for of in of_boxes] == [(21, 256), (0, 256)]


def test_a_batch_without_proposals_in_range_has_no_loss_of_them(co_detr, monkeypatch):
    monkeypatch.setattr(
        project.CoStandardRoIHead, '_bbox_forward', lambda *args: pytest.fail('asked of nothing')
    )
    nothing = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    _, samples = batch(SIZE, ([], [INVALID]), ([], []))
    feats = [torch.rand(2, 256, SIZE // 2**i, SIZE // 2**i) for i in range(2, 8)]
    losses = co_detr.roi_head[0].loss(feats, [nothing, copy.deepcopy(nothing)], samples)
    assert float(losses['loss_cls']) == 0
    assert [tuple(of.shape) for of in losses['pos_coords'][3]] == [(0, 256)] * 2


def test_proposals_to_mine_from_are_made_of_what_the_encoder_sees(co_detr, unresized, picture):
    co_detr.eval()
    data = unresized(picture(120, 90))
    (found,) = propose(co_detr, data)
    given = co_detr.data_preprocessor(data)
    infos = [sample.metainfo for sample in given['data_samples']]
    with torch.no_grad():
        encoded = co_detr.query_head(co_detr.extract_feat(given['inputs']), infos)[-1]
        (wanted,) = co_detr.rpn_head.predict(encoded, given['data_samples'], rescale=False)
    assert len(found) > 0
    assert torch.equal(found.bboxes, wanted.bboxes)


@pytest.fixture
def at_all_levels(build):
    def make(type='PyramidDetector', **settings):
        cfg = stock_config()
        sniper_model(cfg, PYRAMID)
        cfg.update(settings, type=type, detector=cfg.type, pyramid=PYRAMID)
        return build(cfg).eval()

    return make


@pytest.mark.parametrize(
    ('module', 'most'), [('detr', 300), ('one-stage', 100), ('two-stage', 100)]
)
def test_in_testing_all_boxes_of_the_chosen_head_are_merged(
    at_all_levels, unresized, picture, module, most
):
    model = at_all_levels(eval_module=module, merge_cfg=dict(score_thr=0.0))
    heads = {'detr': model.query_head, 'one-stage': model.bbox_head[0]}
    head = heads.get(module, model.roi_head[0])
    assert box_head(model) is head
    assert model.merge_cfg.max_per_img == most
    own, look, counts = head.test_cfg, model._look, []

    def looked(*args):
        results = look(*args)
        counts.extend(len(of.pred_instances) for of in results)
        assert head.test_cfg.nms is None
        return results

    model._look = looked
    (result,) = model.test_step(unresized(picture(120, 90)))
    assert len(counts) == 2, 'of each level'
    if module == 'detr':
        assert counts == [200 * CLASSES] * 2
    else:
        assert min(counts) > most
    assert set(result.pred_instances.levels.tolist()) == {0, 1}
    assert head.test_cfg is own


def test_in_half_precision_places_stay_whole(at_all_levels, unresized, picture):
    model = at_all_levels(precision='bf16', merge_cfg=dict(score_thr=0.0))
    places, forward = [], model.query_head.forward

    def noted(*args):
        found = forward(*args)
        places.append(found[1])
        return found

    model.query_head.forward = noted
    (result,) = model.test_step(unresized(picture(120, 90)))
    assert len(result.pred_instances) > 0
    assert len(places) == 2
    assert not any(torch.equal(of, of.bfloat16().float()) for of in places)


def test_a_copy_finds_the_same(at_all_levels, unresized, picture):
    model, data = at_all_levels(), unresized(picture(120, 90))
    (wanted,) = model.test_step(data)
    (found,) = pickle.loads(pickle.dumps(model)).test_step(data)
    assert len(wanted.pred_instances) > 0
    assert torch.equal(found.pred_instances.bboxes, wanted.pred_instances.bboxes)


def test_its_code_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(MODELS, 'get', lambda name: None)
    with pytest.raises(ValueError, match=r'CoDINOHead is not registered.*projects.CO-DETR.codetr'):
        SNIPERCoDINOHead(num_classes=CLASSES)


MINE = """
_base_ = ['{stock}', '{fragment}', '{pyramid}']
sniper = dict(batch_size=2, autofocus=dict())
here = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{root}/', ann_file='ann.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('a', 'b'))))
train_dataloader = val_dataloader = test_dataloader = here
val_evaluator = test_evaluator = dict(ann_file='{root}/ann.json')
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture
def mine(small_images, tmp_path, pytestconfig):
    file, pyramid = tmp_path / 'mine.py', tmp_path / 'pyramid.py'
    pyramid.write_text(f'pyramid = {PYRAMID}')
    fragment = pytestconfig.rootpath / 'configs' / '_base_' / 'sniper.py'
    names = dict(stock=CONFIG, fragment=fragment, pyramid=pyramid, root=small_images)
    file.write_text(MINE.format(**names))
    cfg = reduced(load_config(file))
    for head in (cfg.model.query_head, cfg.model.bbox_head[0], cfg.model.roi_head[0].bbox_head):
        head.num_classes = 2
    cfg.update(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name)
    return cfg


def test_a_training_on_chips_and_a_test(mine):
    runner = SNIPERRunner.from_cfg(mine)
    runner.register_hook(StatisticsOfBatches())
    runner.train()
    log = runner.message_hub.log_scalars
    losses = {key: value.data[0] for key, value in log.items() if 'loss' in key}
    assert {'train/loss_cls_aux0', 'train/loss_cls_aux1', 'train/loss_rpn_cls'} <= losses.keys()
    assert all(np.isfinite(values).all() for values in losses.values())
    assert 'coco/bbox_mAP' in runner.test()
