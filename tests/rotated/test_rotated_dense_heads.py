"""Invalid rotated objects are neither positive nor background, family by family.

Heads and assigners are those that the conversion makes of MMRotate's configs. As in
``tests/models/test_dense_heads.py``, of upright boxes.
"""

import pytest
import torch
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import RotatedBoxes

from mmsniper.convert.model import sniper_model
from mmsniper.convert.scopes import other_scopes, spell_out, spell_out_ours

NUM_CLASSES = 3
SIZE = 384  # of the input, in pixels
FPN = [48, 24, 12, 6, 3]  # sizes of P3 to P7
VALID = ((40.0, 42.0, 42.0, 34.0, 0.3), 0)
INVALID = ((84.0, 76.0, 44.0, 36.0, -0.4), 2)
REGION = ((250.0, 250.0, 100.0, 100.0, 0.2), -1)
PYRAMID = dict(chip_size=SIZE, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])

SMALL = dict(in_channels=8, feat_channels=32, stacked_convs=1)
RPN = dict(in_channels=8, feat_channels=32)
# mmcv has the loss by rotated IoU for GPUs only.
ON_A_CPU = dict(loss_bbox=dict(type='mmrotate.GDLoss_v1', loss_type='kld', fun='log1p', tau=1))
UPRIGHT_LOSS = dict(
    use_hbbox_loss=True,
    loss_bbox=dict(type='mmdet.GIoULoss'),
    loss_angle=dict(type='mmdet.L1Loss', loss_weight=0.2),
)
RTMDET = {**SMALL, **ON_A_CPU, 'norm_cfg': dict(type='BN')}
# name -> (stock config, sizes of the feature maps, changes to the head)
HEADS = {
    'retina': ('rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py', FPN, SMALL),
    'retina, upright anchors': (
        'rotated_retinanet/rotated-retinanet-hbox-le90_r50_fpn_1x_dota.py',
        FPN,
        SMALL,
    ),
    'angle classes': (
        'csl/rotated-retinanet-rbox-le90_r50_fpn_csl-gaussian_amp-1x_dota.py',
        FPN,
        SMALL,
    ),
    'angle phases': ('psc/rotated-retinanet-rbox-le90_r50_fpn_psc-dual_amp-1x_dota.py', FPN, SMALL),
    'atss': ('rotated_atss/rotated-atss-le90_r50_fpn_1x_dota.py', FPN, {**SMALL, **ON_A_CPU}),
    'fcos': ('rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py', FPN, {**SMALL, **UPRIGHT_LOSS}),
    'rtmdet': ('rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py', FPN[:3], RTMDET),
    'rtmdet, without shared weights': (
        'rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py',
        FPN[:3],
        {**RTMDET, 'type': 'mmrotate.RotatedRTMDetHead', 'share_conv': None, 'exp_on_reg': None},
    ),
    'r3det, first head': ('r3det/r3det-oc_r50_fpn_1x_dota.py', FPN, SMALL),
    'r3det, second head': ('r3det/r3det-oc_r50_fpn_1x_dota.py', FPN, SMALL),
    's2anet, first head': ('s2anet/s2anet-le135_r50_fpn_1x_dota.py', FPN, SMALL),
    's2anet, second head': ('s2anet/s2anet-le135_r50_fpn_1x_dota.py', FPN, SMALL),
    'rpn': ('rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py', [96, *FPN[:4]], RPN),
    'oriented rpn': ('oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py', [96, *FPN[:4]], RPN),
}


class SecondHead:
    """The second head of a detector that has two, which learns from the boxes of the first."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def __getattr__(self, name):
        return getattr(self.second, name)

    def loss(self, features, samples):
        rois = self.first.filter_bboxes(*self.first(features))
        outputs = self.second(self.second.feature_refine(features, rois))
        objects, ignored, metas = unpack_gt_instances(samples)
        return self.second.loss_by_feat(*outputs, objects, metas, ignored, rois=rois)


def two_heads(cfg, changes):
    """Both heads of R3Det or S2ANet, as converted."""
    model = cfg.model
    heads = [model.bbox_head_init, *model.bbox_head_refine]
    for head in heads:
        head.update(changes, num_classes=NUM_CLASSES)
        if 'frm_cfg' in head:
            head.frm_cfg.feat_channels = changes['in_channels']
    sniper_model(model, PYRAMID)
    spell_out_ours(cfg)
    cfgs = [model.train_cfg.init, *model.train_cfg.refine]
    torch.manual_seed(0)
    heads = [
        MODELS.build({**head, 'train_cfg': cfg, 'test_cfg': model.test_cfg})
        for head, cfg in zip(heads, cfgs, strict=True)
    ]
    for head in heads:
        head.init_weights()
    return heads


def converted_head(name):
    """The head ``name``, small, as the conversion makes it, and features for it."""
    path, sizes, changes = HEADS[name]
    cfg = get_config(f'mmrotate::{path}')
    spell_out(cfg, other_scopes(cfg))
    model = cfg.model
    torch.manual_seed(1)
    features = [torch.randn(1, 8, size, size) for size in sizes]
    if 'bbox_head_init' in model:
        first, second = two_heads(cfg, changes)
        return SecondHead(first, second) if 'second' in name else first, features
    is_rpn = 'rpn_head' in model
    head = model.rpn_head if is_rpn else model.bbox_head
    for key, value in changes.items():
        if value is None:
            del head[key]
        else:
            head[key] = value
    if not is_rpn:
        head.num_classes = NUM_CLASSES
    sniper_model(model, PYRAMID)
    spell_out_ours(cfg)
    head = model.rpn_head if is_rpn else model.bbox_head
    train_cfg = model.train_cfg.rpn if is_rpn else model.train_cfg
    (train_cfg or {}).pop('sampler', None)  # all anchors, not some at random
    torch.manual_seed(0)
    head = MODELS.build({**head, 'train_cfg': train_cfg, 'test_cfg': model.test_cfg})
    head.init_weights()
    return head, features


def objects(of):
    return InstanceData(
        bboxes=RotatedBoxes(torch.tensor([box for box, _ in of]).reshape(-1, 5)),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
    )


def sample(valid, ignored, is_rpn):
    shape = (SIZE, SIZE)
    meta = dict(img_id=0, img_shape=shape, pad_shape=shape, batch_input_shape=shape)
    data = DetDataSample(
        metainfo={**meta, 'ori_shape': shape, 'scale_factor': (1.0, 1.0)},
        gt_instances=objects(valid),
        ignored_instances=objects(ignored),
    )
    if is_rpn:  # as TwoStageDetector
        data.gt_instances.labels = torch.zeros_like(data.gt_instances.labels)
    return data


def total(loss):
    return sum(map(torch.sum, loss)) if isinstance(loss, (list, tuple)) else loss.sum()


class Step:
    """Losses of a head, and their gradients at each prior's (P) outputs, of each kind (P, C)."""

    def __init__(self, head, features, valid, ignored):
        kept = []

        def keep(_, __, outputs):
            kept.extend(outputs)
            for maps in outputs:
                for one in maps:
                    one.requires_grad and one.retain_grad()

        head.zero_grad()
        hook = head.register_forward_hook(keep)
        losses = head.loss(features, [sample(valid, ignored, head.num_classes == 1)])
        hook.remove()
        self.losses = {k: total(v) for k, v in losses.items() if 'loss' in k}
        sum(self.losses.values()).backward()
        anchors = kept[0][0].shape[1] // head.cls_out_channels
        self.gradient, *self.others = (_of_priors(maps, anchors) for maps in kept)
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        self.finite = all(torch.isfinite(g).all() for g in gradients)

    def background(self, without_objects):
        """Which priors are taught as where there is no object at all, but for the average."""
        ratio = (without_objects.gradient / self.gradient).nanmedian()
        scaled = self.gradient * ratio
        return torch.isclose(scaled, without_objects.gradient, rtol=1e-3, atol=0).all(dim=1)


def _of_priors(maps, anchors):
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in maps]
    return torch.cat(
        [one[0].permute(1, 2, 0).reshape(-1, one.shape[1] // anchors) for one in gradients]
    )


@pytest.fixture(scope='module', autouse=True)
def in_mmrotates_scope():
    """As in a training, whatever the tests before have left."""
    with DefaultScope.overwrite_default_scope('mmrotate'):
        yield


@pytest.fixture(scope='module', params=HEADS)
def steps(request):
    head, features = converted_head(request.param)
    of = dict(
        marked=([VALID], [REGION, INVALID]),
        dropped=([VALID], [REGION]),
        alone=([INVALID], [REGION]),
        only_invalid=([], [REGION, INVALID]),
        nothing=([], [REGION]),
    )
    return {key: Step(head, features, *given) for key, given in of.items()}


def of_invalid_only(steps):
    """Priors that are something to the invalid object if it is alone, and nothing to the valid."""
    nothing = steps['nothing']
    return steps['dropped'].background(nothing) & ~steps['alone'].background(nothing)


def test_an_invalid_rotated_object_is_not_background(steps):
    ignored = of_invalid_only(steps)
    assert ignored.sum() > 0
    marked = steps['marked']
    assert (marked.gradient[ignored] == 0).all()
    for of_kind in marked.others:
        assert (of_kind[ignored] == 0).all()
    # The same priors do learn the background where the object is dropped.
    assert (steps['dropped'].gradient[ignored] > 0).all()


def test_all_else_is_learned_as_if_the_invalid_object_were_not_there(steps):
    marked, dropped = steps['marked'], steps['dropped']
    others = ~of_invalid_only(steps)
    # MaxIoUAssigner's rule is by overlap: it also ignores background that is near, of which the
    # object alone would make nothing; nothing else is ignored.
    untaught = (marked.gradient == 0).all(dim=1)
    same = torch.isclose(marked.gradient, dropped.gradient, rtol=1e-4, atol=0).all(dim=1)
    assert (same | untaught)[others].all()
    assert (untaught & ~same).sum() <= 10 * of_invalid_only(steps).sum()
    for mine, theirs in zip(marked.others, dropped.others, strict=True):
        near = untaught & ~same
        torch.testing.assert_close(mine[~near], theirs[~near], rtol=1e-4, atol=1e-8)


def test_without_a_valid_object_losses_and_gradients_are_finite(steps):
    step = steps['only_invalid']
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    assert step.finite
    ignored = ~steps['alone'].background(steps['nothing'])
    assert (step.gradient[ignored] == 0).all()
    assert step.gradient[~ignored].abs().sum() > 0
