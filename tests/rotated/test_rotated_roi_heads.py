"""RoI heads of rotated boxes learn from no proposal that is out of range, as converted."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import RotatedBoxes

from mmsniper.convert.model import sniper_model
from mmsniper.convert.scopes import other_scopes, spell_out, spell_out_ours

SIZE = 256
PYRAMID = dict(
    chip_size=SIZE,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 40)),
        dict(resize=dict(factor=0.5), valid_range=(30, None)),
    ],
)
# In range: sizes 34 and, of the invalid one, 59; long and turned.
VALID = ((60.0, 60.0, 60.0, 20.0, 0.5), 1)
INVALID = ((170.0, 160.0, 70.0, 50.0, -0.4), 2)
BACKGROUND = (60.0, 190.0, 40.0, 24.0, 0.3)
ON_VALID = (61.0, 60.0, 58.0, 20.0, 0.5)
ON_INVALID = (171.0, 160.0, 70.0, 48.0, -0.4)
ON_A_PART = (150.0, 150.0, 50.0, 24.0, -0.4)  # of the invalid object, in range
FAMILIES = {
    'Rotated Faster R-CNN': 'rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py',
    'Oriented R-CNN': 'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py',
    'RoI Transformer': 'roi_trans/roi-trans-le90_r50_fpn_1x_dota.py',
}
STRIDES = (4, 8, 16, 32)


def small(config):
    """The same with few channels, wherever they are."""
    for value in config.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                small(part)
    for key in ('in_channels', 'out_channels'):
        if key in config and config[key] == 256:
            config[key] = 8
    if 'fc_out_channels' in config:
        config['fc_out_channels'] = 16


@pytest.fixture(scope='module', autouse=True)
def in_mmrotates_scope():
    """As in a training, whatever the tests before have left."""
    with DefaultScope.overwrite_default_scope('mmrotate'):
        yield


@pytest.fixture(scope='module', params=FAMILIES)
def family(request):
    cfg = get_config(f'mmrotate::{FAMILIES[request.param]}')
    spell_out(cfg, other_scopes(cfg))
    model = cfg.model
    small(model.roi_head)
    stages = model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = 10_000  # all proposals, not some at random
        stage.sampler.pos_fraction = 0.5
    stock = {**model.roi_head, 'train_cfg': stages, 'test_cfg': model.test_cfg.rcnn}
    sniper_model(model, PYRAMID)
    spell_out_ours(cfg)
    ours = {**model.roi_head, 'train_cfg': stages, 'test_cfg': model.test_cfg.rcnn}
    torch.manual_seed(0)
    heads = MODELS.build(ours), MODELS.build(stock)
    for head in heads:
        head.init_weights()
    heads[1].load_state_dict(heads[0].state_dict())
    rotated = request.param == 'Oriented R-CNN'
    return (*heads, rotated)


def objects(of):
    return InstanceData(
        bboxes=RotatedBoxes(torch.tensor([box for box, _ in of]).reshape(-1, 5)),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
    )


def gradients(head, rotated, invalid):
    """For each proposal that the first stage learns from, its label and gradient."""
    boxes = RotatedBoxes(torch.tensor([ON_VALID, ON_INVALID, ON_A_PART, BACKGROUND]))
    boxes = boxes if rotated else HorizontalBoxes(boxes.convert_to('hbox').tensor)
    shape = (SIZE, SIZE)
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), level=0)
    data = DetDataSample(metainfo=meta | dict(homography_matrix=torch.eye(3).numpy()))
    data.gt_instances, data.ignored_instances = objects([VALID]), objects(invalid)
    seen = []

    def keep(module, args, kwargs, outputs):
        outputs[0].retain_grad()
        seen.append((module, outputs[0]))

    made = []
    first = head.bbox_head[0] if isinstance(head.bbox_head, torch.nn.ModuleList) else head.bbox_head
    stock_targets = first.get_targets
    first.get_targets = lambda sampled, *a, **k: (
        made.append(sampled) or stock_targets(sampled, *a, **k)
    )
    hook = first.register_forward_hook(keep, with_kwargs=True)
    torch.manual_seed(1)
    feats = [torch.randn(1, 8, SIZE // s, SIZE // s) for s in STRIDES]
    head.zero_grad()
    proposals = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)))
    losses = head.loss(feats, [proposals], [data])
    hook.remove()
    del first.get_targets
    sum(v.sum() for k, v in losses.items() if 'loss' in k).backward()
    (sampled,) = made[0]
    priors = torch.cat([_plain(sampled.pos_priors), _plain(sampled.neg_priors)])
    labels = [*sampled.pos_gt_labels.tolist(), *[-1] * len(sampled.neg_priors)]
    of_proposal = {}
    for prior, label, gradient in zip(priors, labels, seen[0][1].grad, strict=True):
        (found,) = (torch.cdist(prior[None], boxes.tensor) < 1e-3).nonzero()[:, 1].tolist() or (-1,)
        of_proposal[found] = (label, gradient)
    return of_proposal


def _plain(boxes):
    return boxes if isinstance(boxes, torch.Tensor) else boxes.tensor


def test_proposals_on_an_invalid_rotated_object_are_neither_foreground_nor_background(family):
    ours, stock, rotated = family
    found = gradients(ours, rotated, [INVALID])
    assert found[0][0] == VALID[1]  # on the valid object
    assert 1 not in found  # on the invalid one, of its size
    assert found[3][0] == -1
    # To the stock head, which does not know of the object, it is background.
    dropped = gradients(stock, rotated, [])
    assert dropped[1][0] == -1
    assert dropped[1][1].abs().sum() > 0


def test_all_else_is_learned_as_if_the_invalid_object_were_not_there(family):
    ours, _, rotated = family
    marked, dropped = (gradients(ours, rotated, invalid) for invalid in ([INVALID], []))
    assert marked.keys() == dropped.keys()
    for proposal, (label, gradient) in marked.items():
        assert dropped[proposal][0] == label
        torch.testing.assert_close(gradient, dropped[proposal][1])
