"""MMRotate's detectors, converted, learn from chips and are tested at every level."""

import copy
import math
import multiprocessing.dummy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmrotate.evaluation.functional import mean_ap
from mmrotate.structures.bbox import RotatedBoxes

from mmsniper.convert.config import load_config, read_config, sniper_version
from mmsniper.convert.model import sniper_model
from mmsniper.convert.scopes import other_scopes, spell_out
from mmsniper.datasets.wrappers import type_name
from mmsniper.models import SNIPERTTAModel
from mmsniper.models.runtime import Runtime
from mmsniper.testing.toy_dataset import ToyDatasetSpec, make_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))
from harness.reduced import reduced  # noqa: E402

FAMILIES = {
    'Rotated Faster R-CNN': 'rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py',
    'Oriented R-CNN': 'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py',
    'RoI Transformer': 'roi_trans/roi-trans-le90_r50_fpn_1x_dota.py',
    'Rotated RetinaNet': 'rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py',
    'Rotated FCOS': 'rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py',
    'Rotated RTMDet': 'rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py',
    'Rotated RetinaNet, angle classes': (
        'csl/rotated-retinanet-rbox-le90_r50_fpn_csl-gaussian_amp-1x_dota.py'
    ),
    'Rotated RetinaNet, angle phases': (
        'psc/rotated-retinanet-rbox-le90_r50_fpn_psc-dual_amp-1x_dota.py'
    ),
    'R3Det': 'r3det/r3det-refine-oc_r50_fpn_1x_dota.py',
    'S2ANet': 's2anet/s2anet-le135_r50_fpn_1x_dota.py',
    'Rotated ATSS': 'rotated_atss/rotated-atss-le90_r50_fpn_1x_dota.py',
}
# mmcv has the rotated IoU loss of three of them for GPUs only.
_UPRIGHT_LOSS = dict(
    use_hbbox_loss=True,
    loss_bbox=dict(type='mmdet.GIoULoss'),
    loss_angle=dict(type='mmdet.L1Loss', loss_weight=0.2),
)
_GAUSSIAN_LOSS = dict(type='mmrotate.GDLoss_v1', loss_type='kld', fun='log1p', tau=1)
ON_A_CPU = {
    'RotatedFCOSHead': _UPRIGHT_LOSS,
    'RotatedRTMDetSepBNHead': _UPRIGHT_LOSS,
    'RotatedATSSHead': dict(loss_bbox=_GAUSSIAN_LOSS),
}

CONFIG = """
_base_ = ['mmrotate::{detector}', '{root}/configs/_base_/sniper.py']
pyramid = dict(chip_size=96, levels=[
    dict(resize=dict(factor=1.0), valid_range=(0, 48)),
    dict(resize=dict(factor=0.5), valid_range=(32, None))])
classes = ('disc', 'ring', 'square', 'cross', *map(str, range(11)))
data = dict(data_root='{data}', img_suffix='jpg', metainfo=dict(classes=classes))
alone = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    dataset=dict(ann_file='annfiles/train', data_prefix=dict(img_path='train/'), **data), **alone)
val_dataloader = dict(
    dataset=dict(ann_file='annfiles/val', data_prefix=dict(img_path='val/'), **data), **alone)
test_dataloader = val_dataloader
sniper = dict(batch_size=4, negative_chips=None)
model = dict(merge_cfg=dict(max_per_img=20, score_thr=0.0))
"""


@pytest.fixture(autouse=True)
def _evaluated_here(monkeypatch):
    """MMRotate's metric starts four processes, which takes longer than all the rest."""
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rotated_scenes')
    sizes = dict(num_train=3, num_val=1, min_side=240, max_side=280)
    make_toy_dataset(folder, ToyDatasetSpec(rotated=True, **sizes))
    return folder


@pytest.fixture
def config_file(scenes, tmp_path):
    def write(family, more=''):
        path = tmp_path / 'config.py'
        text = CONFIG.format(detector=FAMILIES[family], root=ROOT, data=f'{scenes}/')
        path.write_text(text + more)
        return path

    return write


def small(path, work_dir):
    cfg = read_config(path)
    spell_out(cfg, other_scopes(cfg))  # for which the rules of reduced() are looked up
    cfg = sniper_version(reduced(cfg))
    head = cfg.model.get('bbox_head', {})
    for key, value in ON_A_CPU.get(type_name(head.get('head', head)), {}).items():
        head[key] = value
    cfg.work_dir, cfg.log_level = str(work_dir), 'ERROR'
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-5))
    cfg.param_scheduler = []
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    return cfg


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_learns_from_chips_and_is_tested_at_every_level(family, config_file, tmp_path):
    runner = Runner.from_cfg(small(config_file(family), tmp_path / 'run'))
    image = next(iter(runner.build_dataloader(runner.cfg.val_dataloader)))
    runner.model.eval()
    found = runner.model.test_step(image)[0].pred_instances
    assert found.bboxes.shape == (len(found), 5)  # as those of stock detectors
    assert len(found) > 0
    assert set(found.levels.tolist()) <= {0, 1}

    runner.train()
    assert runner.iter >= 2
    losses = runner.message_hub.log_scalars
    values = {name: v.current() for name, v in losses.items() if 'loss' in name}
    assert {k: v for k, v in values.items() if not math.isfinite(v)} == {}
    assert 'val/dota/AP50' in losses


@pytest.mark.parametrize('family', ['R3Det', 'S2ANet', 'Rotated FCOS', 'Oriented R-CNN'])
def test_half_precision_finds_about_the_same_and_compiled_parts_the_same(
    family, config_file, tmp_path
):
    runner = Runner.from_cfg(small(config_file(family), tmp_path / 'run'))
    image = next(iter(runner.build_dataloader(runner.cfg.val_dataloader)))
    model = runner.model.eval()

    def found(*runtime):
        model.runtime = Runtime(*runtime)
        return model.test_step(copy.deepcopy(image))[0].pred_instances

    whole, half, compiled = found(), found('bf16'), found(None, dict(backend='eager'))
    heads = [name for name, _ in model.named_children() if name.startswith('bbox_head')]
    names = {name.partition('[')[0] for name in model.runtime._forwards}
    assert names >= {'backbone', 'neck', *heads}
    assert torch.equal(compiled.bboxes, whole.bboxes)
    assert half.bboxes.dtype == half.scores.dtype == torch.float32
    assert half.scores[:3].tolist() == pytest.approx(whole.scores[:3].tolist(), abs=0.02)
    assert not torch.equal(half.scores, whole.scores)
    gaps = torch.cdist(half.bboxes[:1, :4], whole.bboxes[:, :4])
    assert gaps.min() < 4
    assert [m for m in model.modules() if 'forward' in m.__dict__ or m._forward_hooks] == []


def test_mirrored_views_of_a_rotated_detector_are_merged(config_file, tmp_path):
    """``--tta``: what a detector would find in a mirrored image is put back and merged once."""
    runner = Runner.from_cfg(small(config_file('Rotated FCOS'), tmp_path / 'run'))
    model = runner.model.eval()
    size, ship = (90, 120), torch.tensor([[40.0, 30.0, 30.0, 8.0, 0.4]])

    def predict(inputs, samples, rescale):
        model.extract_feat(inputs)
        for pixels, sample in zip(inputs, samples):
            flipped = bool((pixels[0, :, 0] > 0).any())  # a bright column tells
            boxes = RotatedBoxes(ship.clone())
            if flipped:
                boxes.flip_(size)
            scale = sample.metainfo['img_shape'][1] / size[1]
            kept = boxes if scale > 0.9 else boxes[:0]  # at the fine level
            sample.pred_instances = InstanceData(
                bboxes=kept,
                scores=torch.full((len(kept),), 0.8),
                labels=torch.zeros(len(kept), dtype=torch.long),
            )
        return samples

    model.predict = predict
    image = np.zeros((*size, 3), np.uint8)
    image[:, -1] = 255
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction')
    views = Compose(
        [
            dict(
                type='mmdet.TestTimeAug',
                transforms=[
                    [dict(type='mmdet.RandomFlip', prob=p) for p in (0.0, 1.0)],
                    [dict(type='mmdet.PackDetInputs', meta_keys=keys)],
                ],
            )
        ]
    )
    given = dict(img=image, img_id=0, img_path='x', img_shape=size, ori_shape=size)
    tta = SNIPERTTAModel(module=model)
    (result,) = tta.test_step(pseudo_collate([views(given)]))
    found = result.pred_instances
    assert found.bboxes.shape == (2, 5)
    for box in RotatedBoxes(found.bboxes).convert_to('qbox').tensor:
        expected = RotatedBoxes(ship.clone()).convert_to('qbox').tensor
        gaps = torch.cdist(box.view(4, 2), expected.view(4, 2)).min(dim=1).values
        assert gaps.max() < 0.05
    # The twin has an IoU of 1, so Soft-NMS decays it.
    assert found.scores.tolist() == pytest.approx([0.8, 0.8 * math.exp(-1 / 0.55)], rel=1e-3)


def test_a_rotated_detector_can_be_copied_and_pickled(config_file, tmp_path):
    model = Runner.from_cfg(small(config_file('Rotated FCOS'), tmp_path / 'run')).model
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other.bbox_head) is type(model.bbox_head)


def test_names_of_both_packages_are_spelled_out(config_file):
    cfg = load_config(config_file('Rotated Faster R-CNN'))
    assert cfg.default_scope == 'mmrotate'
    assert cfg.model.type == 'mmdet.PyramidDetector'
    assert cfg.model.roi_head.type == 'mmdet.SNIPERRoIHead'
    assigner = cfg.model.train_cfg.rpn.assigner
    assert assigner.type == 'mmdet.ValidRangeAssigner'
    assert assigner.iou_calculator.type == 'mmrotate.RBbox2HBboxOverlaps2D'
    chips = cfg.train_dataloader.dataset
    assert (chips.type, chips.dataset.type) == ('mmdet.ChipDataset', 'mmrotate.DOTADataset')
    types = [step.type for step in chips.pipeline]
    assert types[1:5] == [
        'mmdet.LoadAnnotations',
        'mmrotate.ConvertBoxType',
        'mmdet.ChipSampler',
        'mmdet.ScaleRangeFilter',
    ]
    assert not any('Resize' in name for name in types)


def test_a_package_that_is_not_there_is_named(config_file):
    path = config_file('Rotated FCOS', "default_scope = 'mmnothing'\n")
    with pytest.raises(ValueError, match=r'looks names up in mmnothing \(default_scope\)'):
        load_config(path)


@pytest.mark.parametrize(
    ('path', 'named'),
    [
        ('rotated_reppoints/rotated-reppoints-qbox_r50_fpn_1x_dota.py', 'ConvexAssigner'),
        ('oriented_reppoints/oriented-reppoints-qbox_r50_fpn_1x_dota.py', 'ConvexAssigner'),
        ('cfa/cfa-qbox_r50_fpn_1x_dota.py', 'ConvexAssigner'),
        ('sasm_reppoints/sasm-reppoints-qbox_r50_fpn_1x_dota.py', 'ConvexAssigner'),
        ('h2rbox/h2rbox-le90_r50_fpn_adamw-1x_dota.py', 'H2RBoxHead'),
        ('h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py', 'H2RBoxV2Head'),
    ],
)
def test_families_that_are_not_known_to_ignore_are_refused(path, named):
    cfg = get_config(f'mmrotate::{path}')
    spell_out(cfg, other_scopes(cfg))
    with pytest.raises(ValueError, match=f'there is no SNIPER version of {named}'):
        sniper_model(cfg.model, dict(chip_size=96, levels=[]))
