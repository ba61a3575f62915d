"""Invalid objects are neither positive nor background (docs/detectors.md), family by family."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import DINOHead, LDHead, RTMDetInsHead, paa_head
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmsniper.models.assigners import with_appended_invalid

NUM_CLASSES = 3
SIZE = 384  # of the input, in pixels
FPN = [48, 24, 12, 6, 3]  # sizes of P3 to P7
VALID = ([20.0, 24.0, 60.0, 60.0], 0)
INVALID = ([50.0, 44.0, 90.0, 82.0], 2)
REGION = ([200.0, 200.0, 300.0, 300.0], -1)

# name -> (stock config, sizes of the feature maps, changes to the head)
SMALL = dict(in_channels=8, feat_channels=32, stacked_convs=1)
HEADS = {
    'retina': ('retinanet/retinanet_r50_fpn_1x_coco.py', FPN, SMALL),
    'atss': ('atss/atss_r50_fpn_1x_coco.py', FPN, SMALL),
    'gfl': ('gfl/gfl_r50_fpn_1x_coco.py', FPN, SMALL),
    'tood': ('tood/tood_r50_fpn_1x_coco.py', FPN, SMALL),
    'tood, first epochs': ('tood/tood_r50_fpn_anchor-based_1x_coco.py', FPN, SMALL),
    'ddod': ('ddod/ddod_r50_fpn_1x_coco.py', FPN, SMALL),
    'fsaf': ('fsaf/fsaf_r50_fpn_1x_coco.py', FPN, SMALL),
    'sabl': ('sabl/sabl-retinanet_r50_fpn_1x_coco.py', FPN, SMALL),
    'reppoints': (
        'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
        FPN,
        {**SMALL, 'point_feat_channels': 32},
    ),
    'yolof': ('yolof/yolof_r50-c5_8xb8-1x_coco.py', [12], dict(in_channels=8)),
    'rtmdet': (
        'rtmdet/rtmdet_s_8xb32-300e_coco.py',
        FPN[:3],
        {**SMALL, 'norm_cfg': dict(type='BN')},
    ),
    'rtmdet, without shared weights': (
        'rtmdet/rtmdet_s_8xb32-300e_coco.py',
        FPN[:3],
        {
            **SMALL,
            'norm_cfg': dict(type='BN'),
            'type': 'RTMDetHead',
            'share_conv': None,
            'exp_on_reg': None,
        },
    ),
    'rtmdet-ins': (
        'rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
        FPN[:3],
        {**SMALL, 'norm_cfg': dict(type='BN'), 'type': 'SNIPERRTMDetInsSepBNHead'},
    ),
    'rtmdet-ins, without shared weights': (
        'rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
        FPN[:3],
        {**SMALL, 'norm_cfg': dict(type='BN'), 'type': 'SNIPERRTMDetInsHead', 'share_conv': None},
    ),
    'fcos': (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        FPN,
        {**SMALL, 'type': 'SNIPERFCOSHead'},
    ),
    'fcos, centre sampling': (
        'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
        FPN,
        {**SMALL, 'type': 'SNIPERFCOSHead'},
    ),
    'nas-fcos': (
        'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
        FPN,
        {**SMALL, 'type': 'SNIPERNASFCOSHead'},
    ),
    'foveabox': (
        'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
        FPN,
        {**SMALL, 'type': 'SNIPERFoveaHead'},
    ),
    'yolox': ('yolox/yolox_s_8xb8-300e_coco.py', FPN[:3], {**SMALL, 'type': 'SNIPERYOLOXHead'}),
    'yolox, last epochs': (
        'yolox/yolox_s_8xb8-300e_coco.py',
        FPN[:3],
        {**SMALL, 'type': 'SNIPERYOLOXHead'},
    ),
    'vfnet': ('vfnet/vfnet_r50_fpn_1x_coco.py', FPN, {**SMALL, 'type': 'SNIPERVFNetHead'}),
    'paa': ('paa/paa_r50_fpn_1x_coco.py', FPN, {**SMALL, 'type': 'SNIPERPAAHead'}),
    'free anchor': (
        'free_anchor/freeanchor_r50_fpn_1x_coco.py',
        FPN,
        {**SMALL, 'type': 'SNIPERFreeAnchorRetinaHead'},
    ),
    'centernet2': (
        'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
        FPN,
        {**SMALL, 'type': 'SNIPERCenterNetUpdateHead'},
    ),
    'pisa': ('pisa/retinanet-r50_fpn_pisa_1x_coco.py', FPN, SMALL),
    'ld': ('ld/ld_r18-gflv1-r101_fpn_1x_coco.py', FPN, SMALL),
    'stock vfnet': ('vfnet/vfnet_r50_fpn_1x_coco.py', FPN, SMALL),
    'stock yolox': ('yolox/yolox_s_8xb8-300e_coco.py', FPN[:3], SMALL),
    'stock fcos': ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', FPN, SMALL),
}
DEAF = ['stock vfnet', 'stock yolox', 'stock fcos']


class HalfMixture:
    """In place of scikit-learn's mixture, which PAA needs: the anchors of small loss are chosen."""

    def __init__(self, *args, **kwargs):
        pass

    def fit(self, losses):
        self.middle = losses.mean()

    def predict(self, losses):
        return (losses.ravel() > self.middle).astype(int)

    def score_samples(self, losses):
        return losses.ravel()


@pytest.fixture(autouse=True, scope='module')
def mixture():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paa_head, 'skm', SimpleNamespace(GaussianMixture=HalfMixture))
        yield


def wrap_assigners(cfg):
    for key, value in cfg.items():
        if not isinstance(value, dict):
            continue
        if key.endswith('assigner'):
            cfg[key] = ConfigDict(type='IgnoreInvalidAssigner', assigner=value)
        else:
            wrap_assigners(value)


def dense_head(name):
    """The head ``name``, small, with all its assigners wrapped, and features for it."""
    path, sizes, changes = HEADS[name]
    model = get_config(f'mmdet::{path}').model
    train_cfg = model.get('train_cfg') or ConfigDict()
    wrap_assigners(train_cfg)
    head = model.bbox_head
    for key in [key for key, value in changes.items() if value is None]:
        del head[key]
    changes = {key: value for key, value in changes.items() if value is not None}
    head.update(changes, num_classes=NUM_CLASSES, train_cfg=train_cfg, test_cfg=model.test_cfg)
    epoch = 0 if 'first epochs' in name else 100
    MessageHub.get_current_instance().update_info('epoch', epoch)
    torch.manual_seed(0)
    head = MODELS.build(head)
    head.init_weights()
    if name == 'yolox, last epochs':  # as YOLOXModeSwitchHook has it
        head.use_l1 = True
    return head, tuple(torch.randn(1, 8, size, size) for size in sizes)


def foreground_scores(head):
    """Which of a head's outputs says that there is an object, and its channels."""
    if hasattr(head, 'loss_obj'):
        return 2, 1
    return 0, getattr(head, 'cls_out_channels', NUM_CLASSES)


def objects(of, with_masks=False):
    made = InstanceData(
        bboxes=torch.tensor([box for box, _ in of]).reshape(-1, 4).float(),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
    )
    if with_masks:
        made.masks = BitmapMasks([lower_left_half(box) for box, _ in of], SIZE, SIZE)
    return made


def lower_left_half(box):
    """A mask (SIZE, SIZE) that has its centre of mass elsewhere than its box."""
    x1, y1, x2, y2 = map(int, box)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y1:y2, x1:x2] = np.tri(y2 - y1, x2 - x1, dtype=np.uint8)
    return mask


def sample(valid, ignored, with_masks=False):
    shape = (SIZE, SIZE)
    meta = dict(img_id=0, img_shape=shape, pad_shape=shape, batch_input_shape=shape)
    return DetDataSample(
        metainfo={**meta, 'ori_shape': shape, 'scale_factor': (1.0, 1.0)},
        gt_instances=objects(valid, with_masks),
        ignored_instances=objects(ignored, with_masks),
    )


def total(loss):
    return sum(part.sum() for part in loss) if isinstance(loss, (list, tuple)) else loss.sum()


class Step:
    """Losses of a head, and their gradient at each prior's (P) scores (C), shape (P, C).

    C are the classes, or of a head with objectness (YOLOX) that alone.
    """

    def __init__(self, head, features, valid, ignored):
        scores = []
        index, channels = foreground_scores(head)

        def keep(_, __, outputs):
            scores.extend(outputs[index])
            for score in scores:
                score.retain_grad()

        head.zero_grad()
        teacher = [head(features)] if isinstance(head, LDHead) else []
        hook = head.register_forward_hook(keep)
        data = sample(valid, ignored, isinstance(head, RTMDetInsHead))
        losses = head.loss(features, *teacher, [data])
        hook.remove()
        self.losses = {k: total(v) for k, v in losses.items() if 'loss' in k}
        sum(self.losses.values()).backward()
        self.gradient = torch.cat(
            [score.grad[0].permute(1, 2, 0).reshape(-1, channels) for score in scores]
        )
        self.parameters = {k: copy.deepcopy(p.grad) for k, p in head.named_parameters()}

    def background(self, without_objects):
        """Which priors are taught as where there is no object at all, but for the average."""
        ratio = (without_objects.gradient / self.gradient).nanmedian()
        scaled = self.gradient * ratio
        return torch.isclose(scaled, without_objects.gradient, rtol=1e-3, atol=0).all(dim=1)


@pytest.fixture(scope='module', params=[name for name in HEADS if name not in DEAF])
def steps(request):
    return make_steps(request.param)


def make_steps(name):
    head, features = dense_head(name)
    of = dict(
        marked=([VALID], [REGION, INVALID]),
        dropped=([VALID], [REGION]),
        alone=([INVALID], [REGION]),
        only_invalid=([], [REGION, INVALID]),
        nothing=([], [REGION]),
    )
    return {'name': name, **{key: Step(head, features, *given) for key, given in of.items()}}


def of_invalid_only(steps):
    """Priors that are something to the invalid object if it is alone, and nothing to the valid."""
    nothing = steps['nothing']
    return steps['dropped'].background(nothing) & ~steps['alone'].background(nothing)


def test_an_invalid_object_is_not_background(steps):
    ignored = of_invalid_only(steps)
    assert ignored.sum() > 0
    assert (steps['marked'].gradient[ignored] == 0).all()
    # The same priors do learn the background where the object is dropped.
    assert (steps['dropped'].gradient[ignored, :NUM_CLASSES] > 0).all()


def test_all_else_is_learned_as_if_the_invalid_object_were_not_there(steps):
    others = ~of_invalid_only(steps)
    marked, dropped = steps['marked'], steps['dropped']
    same = (marked.gradient == dropped.gradient).all(dim=1)
    # FSAF gives an object to one level only, after the assignment. At the rim of a heat map the
    # background's loss is nearly that without an object.
    if steps['name'] in ('fsaf', 'centernet2'):
        same |= (marked.gradient == 0).all(dim=1)
    assert same[others].all()
    changed = {key for key in marked.losses if marked.losses[key] != dropped.losses[key]}
    assert changed <= {'loss_cls', 'loss_obj', 'negative_bag_loss'}


def test_without_a_valid_object_losses_and_gradients_are_finite(steps):
    step, stock = steps['only_invalid'], steps['nothing']
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    ignored = ~steps['alone'].background(steps['nothing'])
    assert (step.gradient[ignored] == 0).all()
    assert step.gradient[~ignored].abs().sum() > 0
    for name, gradient in step.parameters.items():
        assert (gradient is None) == (stock.parameters[name] is None)
        assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize('name', DEAF)
def test_a_head_that_weighs_no_labels_does_not_listen(name):
    steps = make_steps(name)
    ignored = of_invalid_only(steps)
    assert ignored.sum() > 0
    assert (steps['marked'].gradient[ignored] > 0).all()


def test_fcos_takes_batches_of_inputs_with_and_without_ignored_instances():
    head, features = dense_head('fcos')
    points = head.prior_generator.grid_priors([f.shape[-2:] for f in features], device='cpu')
    bare = sample([VALID], [])
    del bare.ignored_instances
    batch = [bare, sample([VALID], [INVALID]), sample([VALID], [REGION])]
    labels, boxes = head.get_targets(
        points, [with_appended_invalid(one).gt_instances for one in batch]
    )
    ignored = [[(of_input < 0).sum().item() for of_input in level.chunk(3)] for level in labels]
    assert all(level[0] == level[2] == 0 for level in ignored)
    assert sum(level[1] for level in ignored) > 0
    assert [len(level) for level in boxes] == [len(level) for level in labels]


def test_of_instances_that_nothing_was_appended_to_fcos_has_the_stock_targets():
    """As of those who call ``get_targets`` themselves."""
    ours, stock = (
        MODELS.build(dict(type=type, num_classes=NUM_CLASSES, **SMALL))
        for type in ('SNIPERFCOSHead', 'FCOSHead')
    )
    points = stock.prior_generator.grid_priors([(n, n) for n in FPN], device='cpu')
    objects = InstanceData(bboxes=torch.tensor([VALID[0]]), labels=torch.tensor([VALID[1]]))
    for mine, theirs in zip(
        ours.get_targets(points, [objects]), stock.get_targets(points, [objects]), strict=True
    ):
        assert all(map(torch.equal, mine, theirs))


# Of the others, LD has a teacher, RTMDet-Ins masks, and YOLOF and RepPoints have other settings.
FIRST_STAGES = [
    name for name in HEADS if name not in (*DEAF, 'ld', 'yolof', 'reppoints') and 'ins' not in name
]


@pytest.mark.parametrize('name', FIRST_STAGES)
def test_in_place_of_an_rpn_a_head_ignores_invalid_objects_of_any_class(monkeypatch, name):
    # An RPN has one class, and two-stage detectors leave the classes of ignored instances alone.
    monkeypatch.setitem(globals(), 'NUM_CLASSES', 1)
    head, features = dense_head(name)
    cfg = ConfigDict(
        nms_pre=10,
        max_per_img=5,
        score_thr=0,
        min_bbox_size=0,
        nms=dict(type='nms', iou_threshold=0.5),
    )

    def loss(ignored):
        losses, _ = head.loss_and_predict(features, [sample([VALID], ignored)], cfg)
        return sum(total(value) for key, value in losses.items() if 'loss' in key)

    marked = [loss([(INVALID[0], label)]) for label in (0, 1, 2)]
    assert marked[0] == marked[1] == marked[2] != loss([])


def test_in_the_padding_vfnet_learns_the_background_as_stock_does():
    head, features = dense_head('vfnet')
    stock, _ = dense_head('stock vfnet')
    padded = sample([VALID], [])
    padded.set_metainfo(dict(img_shape=(SIZE, 200), pad_shape=(SIZE, 224)))
    losses = [one.loss(features, [padded]) for one in (head, stock)]
    assert losses[0]['loss_cls'] == losses[1]['loss_cls']


def test_heads_say_which_settings_they_need():
    with pytest.raises(ValueError, match='needs loss_obj=.*got a FocalLoss'):
        MODELS.build(
            dict(
                type='SNIPERYOLOXHead',
                num_classes=1,
                in_channels=8,
                loss_obj=dict(type='FocalLoss'),
            )
        )
    with pytest.raises(ValueError, match='needs use_atss=True'):
        MODELS.build(dict(type='SNIPERVFNetHead', num_classes=1, in_channels=8, use_vfl=False))


def test_of_a_batch_each_input_has_its_own_invalid_objects():
    """Also where a head looks at the invalid objects of all inputs first."""
    for name in ('paa', 'yolox', 'foveabox'):
        head, features = dense_head(name)
        batch = [torch.cat([f, f]) for f in features]
        samples = [sample([VALID], []), sample([VALID], [INVALID])]
        key = 'loss_obj' if name == 'yolox' else 'loss_cls'
        together = head.loss(batch, samples)[key]
        turned = head.loss(batch, samples[::-1])[key]
        dropped = head.loss(batch, [samples[0]] * 2)[key]
        assert torch.isclose(together, turned)
        assert together < dropped


DETECTION = dict(num_classes=NUM_CLASSES, embed_dims=16, num_pred_layer=3)
QUERIES, PROPOSALS, LAYERS = 12, 20, 2
ON_VALID, ON_INVALID = 3, 7  # queries, and proposals, that predict exactly these boxes


def set_prediction_head(name, **changes):
    """A head of the DETR family, with the stock costs and losses."""
    paths = dict(
        deformable='deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        two_stage='deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
        dino='dino/dino-4scale_r50_8xb2-12e_coco.py',
    )
    model = get_config(f'mmdet::{paths[name]}').model
    wrap_assigners(model.train_cfg)
    head = model.bbox_head
    head.update(DETECTION, as_two_stage=name != 'deformable', train_cfg=model.train_cfg)
    head.type = 'SNIPERDINOHead' if name == 'dino' else 'SNIPERDeformableDETRHead'
    for key, value in changes.items():  # ConfigDict.update would merge
        head[key] = value
    torch.manual_seed(0)
    head = MODELS.build(head)
    head.init_weights()
    return head


def predicted_boxes(number, noise):
    """Boxes (1, number, 4), cxcywh in [0, 1]: small ones, but for those of the two objects."""
    boxes = torch.rand(1, number, 4) * torch.tensor([0.5, 0.5, 0.05, 0.05]) + 0.4
    for index, (box, _) in ((ON_VALID, VALID), (ON_INVALID, INVALID)):
        x1, y1, x2, y2 = box
        boxes[0, noise + index] = torch.tensor([x1 + x2, y1 + y2, 2 * (x2 - x1), 2 * (y2 - y1)])
        boxes[0, noise + index] /= 2 * SIZE
    return boxes


class SetStep:
    """Losses of a set prediction head, and their gradient at the class scores.

    ``decoder``: shape (layers, queries, C); ``encoder``: shape (proposals, C).
    """

    def __init__(self, head, valid, ignored, noise=0, encoder_scores=None):
        torch.manual_seed(1)
        hidden = torch.randn(LAYERS, 1, noise + QUERIES, 16)
        references = [predicted_boxes(noise + QUERIES, noise)] * (LAYERS + 1)
        inputs = [hidden, references, None, None]
        if head.as_two_stage:
            scores = torch.randn(1, PROPOSALS, NUM_CLASSES) * 0.1 - 4
            if encoder_scores is not None:
                scores[0] += encoder_scores
            scores.requires_grad_()
            boxes = predicted_boxes(PROPOSALS, 0)
            if encoder_scores is not None:
                boxes[0, ON_INVALID + 1] = boxes[0, ON_INVALID]
            inputs[2:] = [scores, boxes]
        outputs = []

        def keep(_, __, output):
            output[0].retain_grad()
            outputs.append(output[0])

        more = {}
        if isinstance(head, DINOHead):
            more['dn_meta'] = dict(num_denoising_queries=noise, num_denoising_groups=1)
        head.zero_grad()
        hook = head.register_forward_hook(keep)
        losses = head.loss(*inputs, batch_data_samples=[sample(valid, ignored)], **more)
        hook.remove()
        self.losses = {key: total(loss) for key, loss in losses.items()}
        sum(self.losses.values()).backward()
        gradient = outputs[0].grad[:, 0]
        self.denoising, self.decoder = gradient[:, :noise], gradient[:, noise:]
        self.encoder = scores.grad[0] if head.as_two_stage else None
        self.parameters = [p.grad for p in head.parameters()]


SET_HEADS = [
    ('deformable', 0, {}),
    ('two_stage', 0, {}),
    ('dino', 2, {}),
    ('dino', 2, dict(loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0))),
]


@pytest.fixture(
    scope='module', params=SET_HEADS, ids=['deformable', 'two stages', 'dino', 'dino, quality']
)
def set_steps(request):
    name, noise, changes = request.param
    head = set_prediction_head(name, **changes)
    return (
        SetStep(head, [VALID], [REGION, INVALID], noise),
        SetStep(head, [VALID], [REGION], noise),
        SetStep(head, [INVALID], [REGION], noise),
    )


@pytest.mark.parametrize('part', ['decoder', 'encoder'])
def test_a_query_on_an_invalid_object_is_not_background(set_steps, part):
    marked, dropped, alone = (getattr(step, part) for step in set_steps)
    if marked is None:
        pytest.skip('the encoder proposes nothing')
    class_of_invalid = 0 if part == 'encoder' and 'dn_loss_cls' not in set_steps[0].losses else 2
    assert (alone[..., ON_INVALID, class_of_invalid] < 0).all(), 'it would be a match'
    assert (marked[..., ON_INVALID, :] == 0).all()
    assert (dropped[..., ON_INVALID, :] > 0).all()
    others = torch.arange(marked.shape[-2]) != ON_INVALID
    assert torch.equal(marked[..., others, :], dropped[..., others, :])
    assert (marked[..., ON_VALID, 0] < 0).all()


def test_boxes_and_denoising_are_about_valid_objects_only(set_steps):
    marked, dropped, _ = set_steps
    scores = {key for key in marked.losses if 'loss_cls' in key and 'dn_' not in key}
    assert scores >= {key for key in marked.losses if marked.losses[key] != dropped.losses[key]}
    assert torch.equal(marked.denoising, dropped.denoising)
    assert marked.denoising.shape[1] == 0 or marked.denoising.abs().sum() > 0


ONE_STAGE_SETS = {
    'SNIPERDETRHead': 'detr/detr_r50_8xb2-150e_coco.py',
    'SNIPERConditionalDETRHead': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'SNIPERDABDETRHead': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
}


@pytest.mark.parametrize('kind', ONE_STAGE_SETS)
def test_one_query_of_a_layer_is_ignored_for_an_invalid_object(kind):
    model = get_config(f'mmdet::{ONE_STAGE_SETS[kind]}').model
    wrap_assigners(model.train_cfg)
    head = model.bbox_head
    head.update(type=kind, num_classes=NUM_CLASSES, embed_dims=16, train_cfg=model.train_cfg)
    torch.manual_seed(0)
    head = MODELS.build(head)
    head.init_weights()
    hidden = torch.randn(LAYERS, 1, QUERIES, 16)
    shape = (LAYERS, 1, QUERIES, 4) if kind == 'SNIPERDABDETRHead' else (1, QUERIES, 2)
    references = torch.rand(shape)
    inputs = [hidden] if kind == 'SNIPERDETRHead' else [hidden, references]

    def gradient(valid, ignored):
        outputs = []

        def keep(_, __, output):
            output[0].retain_grad()
            outputs.append(output[0])

        hook = head.register_forward_hook(keep)
        losses = head.loss(*inputs, batch_data_samples=[sample(valid, ignored)])
        hook.remove()
        sum(map(total, losses.values())).backward()
        return outputs[0].grad[:, 0]

    marked, dropped = gradient([VALID], [INVALID]), gradient([VALID], [])
    ignored = (marked == 0).all(dim=-1)
    assert (dropped[ignored] != 0).all()
    assert ignored.sum(dim=1).tolist() == [1] * LAYERS
    # A weighted mean counts the ignored query not; all else is in proportion.
    ratio = (marked / dropped)[~ignored]
    assert torch.allclose(ratio, ratio.median(), rtol=1e-3)
    assert ratio.median() == 1 or kind == 'SNIPERDETRHead'
    # It is one that the invalid object would have, or comes next after one that the valid one has.
    alone = (gradient([INVALID], [])[..., 2] < 0).nonzero()
    valid = (dropped[..., 0] < 0).nonzero()
    free = (alone != valid).any(dim=1)
    assert torch.equal(ignored.nonzero()[free], alone[free])


def test_detr_has_its_class_weights():
    stock, ours = (
        MODELS.build(
            dict(
                type=kind,
                num_classes=NUM_CLASSES,
                train_cfg=None,
                loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, class_weight=1.0),
            )
        )
        for kind in ('DETRHead', 'SNIPERDETRHead')
    )
    assert ours.bg_cls_weight == stock.bg_cls_weight == 0.1
    assert torch.equal(ours.loss_cls.class_weight, stock.loss_cls.class_weight)


@pytest.mark.parametrize('name', ['deformable', 'two_stage', 'dino'])
def test_set_prediction_without_a_valid_object_is_finite(name):
    step = SetStep(set_prediction_head(name), [], [INVALID])
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    assert all(torch.isfinite(grad).all() for grad in step.parameters if grad is not None)
    assert (step.decoder[:, ON_INVALID] == 0).all()
    assert (step.decoder[:, ON_VALID] > 0).all()


def test_the_encoder_of_two_stages_takes_invalid_objects_for_objects_of_any_class():
    # Of two proposals on the invalid object, the twin is the better "object", and the other is
    # more of the invalid object's class. The encoder knows no classes.
    twin = ON_INVALID + 1
    scores = torch.zeros(PROPOSALS, NUM_CLASSES)
    scores[ON_INVALID, 2], scores[twin, 0] = 3, 3
    head = set_prediction_head('two_stage')
    step = SetStep(head, [VALID], [INVALID], encoder_scores=scores)
    assert (step.encoder[twin] == 0).all()
    assert (step.encoder[ON_INVALID] > 0).all()


@pytest.mark.parametrize('name', ['deformable', 'dino'])
def test_a_set_prediction_head_says_which_assigner_it_needs(name):
    config = dict(type='HungarianAssigner', match_costs=[dict(type='IoUCost')])
    with pytest.raises(TypeError, match=r'IgnoreInvalidAssigner.*HungarianAssigner'):
        set_prediction_head(name, train_cfg=dict(assigner=config))


def test_a_set_prediction_head_for_inference_needs_no_assigner():
    assert not hasattr(set_prediction_head('dino', train_cfg=None), 'assigner')


def test_the_data_samples_are_left_alone():
    given = sample([VALID], [REGION, INVALID])
    appended = with_appended_invalid(given)
    assert appended.gt_instances.labels.tolist() == [0, 2]
    assert appended.ignored_instances.labels.tolist() == [-1]
    assert given.gt_instances.labels.tolist() == [0]
    assert given.ignored_instances.labels.tolist() == [-1, 2]


def test_invalid_objects_without_the_fields_of_valid_ones_are_refused():
    given = sample([VALID], [INVALID])
    given.gt_instances.masks = torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="lack \\['masks'\\]"):
        with_appended_invalid(given)
