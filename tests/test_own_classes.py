"""Classes of the user's, derived from ours and named in a config, are what trains and tests.

One of each kind that docs/howto/own_ideas.md names.
"""

import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmcv.ops import nms
from mmdet.models.dense_heads import DETRHead, LADHead, RetinaHead, YOLOXHead
from mmdet.models.dense_heads.fcos_head import FCOSHead
from mmdet.models.detectors import GroundingDINO
from mmdet.models.roi_heads import SparseRoIHead, StandardRoIHead
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, TASK_UTILS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData

from harness import comparison
from harness.reduced import reduced
from mmsniper.apis.epoch_chips import plan_epoch, viewing_dataset
from mmsniper.apis.modes import mode_config
from mmsniper.apis.report_data import config_rows
from mmsniper.checks.everything import check_everything
from mmsniper.convert import load_config
from mmsniper.convert.model import DENSE_HEADS, sniper_model
from mmsniper.convert.training_chips import negative_chip_hook, positive_sampler
from mmsniper.datasets import ChipAwareSampler, ScaleRangeFilter
from mmsniper.engine import NegativeChipHook, SNIPERRunner
from mmsniper.models import (
    AutoFocus,
    PyramidDetector,
    PyramidFocusHead,
    SNIPERDETRHead,
    SNIPERFCOSHead,
    SNIPERPointsMixin,
    SNIPERRoIMixin,
)

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 24)),
        dict(resize=dict(factor=0.5), valid_range=(16, None)),
    ],
)
FRAGMENT = """
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '{configs}/_base_/sniper.py']
pyramid = {pyramid}
model = dict(
    backbone=dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None,
                  norm_cfg=dict(type='BN', requires_grad=True)),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=2)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20)),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)))
here = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{root}/', ann_file='ann.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('a', 'b'))))
train_dataloader = val_dataloader = test_dataloader = here
val_evaluator = test_evaluator = dict(ann_file='{root}/ann.json')
sniper = dict(batch_size=2, negative_chips=None)
"""
TWO_STEPS = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=10)
param_scheduler = []
default_hooks = dict(checkpoint=dict(by_epoch=False))
"""


@DATA_SAMPLERS.register_module()
class EveryNthChip(ChipAwareSampler):
    """With an option of its own."""

    def __init__(self, *args, step=2, **kwargs):
        self.step = step
        super().__init__(*args, **kwargs)

    def positives(self):
        chips = super().positives()
        return chips.take(np.arange(self.epoch % self.step, len(chips), self.step))


@TRANSFORMS.register_module()
class FirstObjectOnly(ScaleRangeFilter):
    """Of the valid objects of a chip one counts."""

    def transform(self, results):
        results = super().transform(results)
        valid = np.flatnonzero(~np.asarray(results['gt_ignore_flags'], bool))
        results['gt_ignore_flags'][valid[1:]] = True
        return results


@HOOKS.register_module()
class MyNegativeChips(NegativeChipHook):
    pass


@MODELS.register_module()
class OwnRoIHead(SNIPERRoIMixin, StandardRoIHead):
    def bbox_loss(self, *args, **kwargs):
        self.seen = True
        return super().bbox_loss(*args, **kwargs)


@MODELS.register_module()
class MyRetinaHead(RetinaHead):
    pass


@MODELS.register_module()
class MyFCOSHead(SNIPERFCOSHead):
    pass


@MODELS.register_module()
class TheirFCOSHead(FCOSHead):
    pass


@MODELS.register_module()
class TheirYOLOXHead(YOLOXHead):
    pass


class TheirSparseRoIHead(SparseRoIHead):
    pass


@MODELS.register_module()
class TheirLADHead(LADHead):
    pass


@MODELS.register_module()
class SNIPERTheirFCOSHead(SNIPERPointsMixin, TheirFCOSHead):
    pass


@TASK_UTILS.register_module()
class MyAssigner(MaxIoUAssigner):
    pass


class KeepAll:
    """Its merge is an NMS of all classes together, with a threshold of its own."""

    merge_defaults = dict(iou_thr=0.9)

    def merge(self, found):
        joined = InstanceData.cat(found)
        _, keep = nms(joined.bboxes, joined.scores, self.merge_cfg.iou_thr)
        return joined[keep][: self.merge_cfg.max_per_img]


@MODELS.register_module()
class MyPyramid(KeepAll, PyramidDetector):
    pass


@MODELS.register_module()
class MyAutoFocus(KeepAll, AutoFocus):
    pass


@MODELS.register_module()
class EntropyFocusHead(PyramidFocusHead):
    """Looks again where the branch is unsure: entropy in bits in place of the probability."""

    def predict(self, feats, input_shape, level):
        p = super().predict(feats, input_shape, level).clamp(1e-6, 1 - 1e-6)
        return -(p * p.log2() + (1 - p) * (1 - p).log2())


@pytest.fixture(autouse=True)
def _mmdet_scope():
    register_all_modules(init_default_scope=True)


@pytest.fixture
def write(small_images, tmp_path, pytestconfig):
    """Write a config of a small Faster R-CNN with the fragment, and more."""

    def write_(more=''):
        values = dict(configs=pytestconfig.rootpath / 'configs', root=small_images)
        file = tmp_path / 'mine.py'
        file.write_text(FRAGMENT.format(pyramid=PYRAMID, **values) + more)
        return file

    return write_


@pytest.fixture
def run(write, tmp_path):
    """Train two steps and test; the Runner."""

    def run_(more):
        cfg = load_config(write(TWO_STEPS + more))
        cfg.update(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name)
        runner = SNIPERRunner.from_cfg(cfg)
        runner.train()
        assert runner.iter == 2
        runner.test()
        return runner

    return run_


# Which chips -------------------------------------------------------------------------------------

SAMPLER = "sniper['sampler'] = dict(type='EveryNthChip', step=3)\n"


def sampler_of(cfg, **more):
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return DATA_SAMPLERS.build(dict(cfg.train_dataloader.sampler, dataset=dataset, seed=0, **more))


@pytest.mark.parametrize('lanes', [0, 2])
def test_the_chips_of_a_sampler_are_those_that_it_says(write, lanes):
    cfg = load_config(write(SAMPLER))
    own = sampler_of(cfg, lanes=lanes)
    cfg.train_dataloader.sampler.update(type='ChipAwareSampler', step=None)
    del cfg.train_dataloader.sampler['step']
    stock = sampler_of(cfg, lanes=lanes)
    for epoch in (0, 1):
        own.set_epoch(epoch)
        stock.set_epoch(epoch)
        chips = own.positives()
        assert len(chips) == len(range(epoch % 3, len(stock), 3)) < len(stock)
        assert len(own) == len(chips)
        drawn = sorted((int(index), *index.chip) for index in own)
        said = zip(chips.image, chips.level, chips.box, chips.kind)
        assert drawn == sorted((int(i), int(n), tuple(b.tolist()), int(k)) for i, n, b, k in said)


def test_tools_have_the_sampler_of_the_config(write):
    file = write(SAMPLER)
    cfg = load_config(file)
    assert positive_sampler(cfg)['type'] == 'EveryNthChip'
    dataset = DATASETS.build(viewing_dataset(cfg.train_dataloader.dataset, PYRAMID, False)[0])
    assert len(plan_epoch(cfg, dataset).plan) == len(sampler_of(cfg))
    assert not [finding for finding in check_everything(str(file)) if 'sampler' in str(finding)]
    wrong = check_everything(str(file), {'sniper.sampler.step': 0})
    assert any('cannot plan chips' in str(finding) for finding in wrong)


def test_what_ignores_the_sampler_says_so(write, load_tool, capsys):
    stats = load_tool('analysis_tools/chip_stats')
    stats.main([str(write())])
    assert 'may choose others' not in capsys.readouterr().out
    stats.main([str(write(SAMPLER))])
    assert 'EveryNthChip may choose others' in capsys.readouterr().out


def test_a_hook_for_negative_chips_takes_the_place_of_ours(write):
    cfg = load_config(write("custom_hooks = [dict(type='MyNegativeChips', warmup_epochs=3)]\n"))
    assert negative_chip_hook(cfg).warmup_epochs == 3
    cfg = load_config(
        write(
            "custom_hooks = [dict(type='MyNegativeChips')]\n"
            'sniper.update(negative_chips=dict(warmup_epochs=1))\n'
        )
    )
    assert [hook.type for hook in cfg.custom_hooks if 'Negative' in hook.type] == [
        'MyNegativeChips'
    ]


# Which objects count -----------------------------------------------------------------------------

PIPELINE = """
train_dataloader = dict(here, dataset=dict(here['dataset'], pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='ChipSampler'), dict(type='FirstObjectOnly'), dict(type='PackDetInputs')]))
"""


def test_a_filter_of_ones_own_stays_and_has_the_pyramid(write):
    cfg = load_config(write(PIPELINE))
    steps = cfg.train_dataloader.dataset.pipeline
    assert [step.type for step in steps[2:4]] == ['ChipSampler', 'FirstObjectOnly']
    assert steps[3].pyramid == PYRAMID
    dataset, _ = viewing_dataset(cfg.train_dataloader.dataset, PYRAMID, False)
    assert [step['type'] for step in dataset['pipeline']][-1] == 'FirstObjectOnly'
    dataset, sampler = DATASETS.build(cfg.train_dataloader.dataset), sampler_of(cfg)
    counts = [len(dataset[index]['data_samples'].gt_instances) for index in sampler]
    assert set(counts) == {1}


# Heads -------------------------------------------------------------------------------------------


def one_stage(head, **train_cfg):
    return ConfigDict(
        type='SomeDetector',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        bbox_head=dict(type=head),
        train_cfg=train_cfg,
    )


def test_a_head_derived_from_one_that_ignores_is_taken_to_ignore_and_the_log_says_so():
    detector, notes = one_stage('MyRetinaHead', assigner=dict(type='MaxIoUAssigner')), []
    sniper_model(detector, PYRAMID, notes=notes)
    assert detector.bbox_head.type == 'MyRetinaHead'
    assert detector.train_cfg.assigner.type == 'ValidRangeAssigner'
    assert any('MyRetinaHead is taken to ignore' in n and 'as RetinaHead does' in n for n in notes)


@pytest.mark.parametrize('head', ['MyFCOSHead', 'SNIPERTheirFCOSHead'])
def test_a_head_derived_from_ours_is_left_alone(head):
    detector, notes = one_stage(head, assigner=dict(type='Mine')), []
    sniper_model(detector, PYRAMID, notes=notes)
    assert detector.bbox_head == dict(type=head)
    assert detector.train_cfg.assigner == dict(type='Mine')
    assert f'ranges are known to {head}' in notes


@pytest.mark.parametrize(
    ('head', 'derives', 'first'),
    [
        ('TheirFCOSHead', 'FCOSHead', 'SNIPERFCOSHead'),
        ('TheirYOLOXHead', 'YOLOXHead', 'SNIPERYOLOXHead'),
    ],
)
def test_other_heads_are_refused_and_the_message_says_how_to_make_a_version(head, derives, first):
    message = rf'{head}, which derives from {derives}\..*class SNIPER{head}\({first}, {head}\)'
    with pytest.raises(ValueError, match=message):
        sniper_model(one_stage(head), PYRAMID)
    # And that works.
    version = type(f'SNIPER{head}', (MODELS.get(first), MODELS.get(head)), {})
    detector = one_stage(version)
    sniper_model(detector, PYRAMID)
    assert detector.bbox_head.type is version


def test_a_head_of_queries_is_refused_and_the_message_says_how_to_make_a_version():
    detector = get_config('mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py').model
    detector.roi_head.type = TheirSparseRoIHead
    first, head = 'SNIPERSparseRoIHead', 'TheirSparseRoIHead'
    with pytest.raises(ValueError, match=rf'Make one, class SNIPER{head}\({first}, {head}\)'):
        sniper_model(deepcopy(detector), PYRAMID)
    # And that works.
    version = type(f'SNIPER{head}', (MODELS.get(first), TheirSparseRoIHead), {})
    detector.roi_head.type = version
    sniper_model(detector, PYRAMID)
    detector = reduced(ConfigDict(model=detector)).model
    assert isinstance(MODELS.build(detector).roi_head, version)


def test_a_detector_by_text_is_refused_and_the_message_says_how_to_make_a_version():
    """Its head gets the words of invalid objects from it."""
    detector = get_config('mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py')
    detector = detector.model
    detector.type = type('TheirDINO', (GroundingDINO,), {})
    with pytest.raises(
        ValueError, match=r'class SNIPERTheirDINO\(SNIPERGroundingDINO, TheirDINO\)'
    ):
        sniper_model(deepcopy(detector), PYRAMID)
    # And that works.
    detector.type = type('Version', (MODELS.get('SNIPERGroundingDINO'), detector.type), {})
    sniper_model(detector, PYRAMID)
    assert detector.type.__name__ == 'Version'


def test_a_version_of_a_detr_head_has_arguments_and_the_loss_of_that_head():
    class TheirDETRHead(DETRHead):
        def __init__(self, *args, sharpness, **kwargs):
            loss = dict(type='FocalLoss', gamma=sharpness)
            super().__init__(*args, **{**kwargs, 'loss_cls': loss})

    kind = type('SNIPERTheirDETRHead', (SNIPERDETRHead, TheirDETRHead), {})
    head = MODELS.build(dict(type=kind, num_classes=2, sharpness=3.0, train_cfg=None))
    assert head.loss_cls.gamma == 3.0


def test_a_head_derived_from_one_that_is_not_supported_is_refused():
    """LADHead derives from PAAHead and so from ATSSHead."""
    assert 'LADHead' not in DENSE_HEADS
    with pytest.raises(ValueError, match='no SNIPER version of TheirLADHead; there is one of'):
        sniper_model(one_stage('TheirLADHead'), PYRAMID)


def test_the_heads_of_the_docs_are_taken(monkeypatch, pytestconfig):
    page = (pytestconfig.rootpath / 'docs' / 'detectors.md').read_text()
    section = page.partition("## A head of one's own")[2]
    names = re.findall(r'^@MODELS.register_module\(\)\nclass (\w+)', section, re.M)
    others = {k: v for k, v in MODELS.module_dict.items() if k not in names}
    monkeypatch.setattr(MODELS, '_module_dict', others)
    for block in re.findall(r'^```python\n(.*?)^```', section, re.M | re.S):
        exec(compile(block, 'docs/detectors.md', 'exec'), {})
    roi_head, *dense_heads = names
    assert (roi_head, dense_heads) == ('MySNIPERRoIHead', ['MyFCOSHead', 'MyDETRHead'])
    for name in dense_heads:
        detector = one_stage(name, assigner=dict(type='HungarianAssigner'))
        sniper_model(detector, PYRAMID)
        assert detector.bbox_head == dict(type=name)
    assert detector.train_cfg.assigner.type == 'IgnoreInvalidAssigner'
    detector.update(roi_head=dict(type=roi_head), rpn_head=dict(type='RPNHead'))
    sniper_model(detector, PYRAMID)
    assert detector.roi_head.type == roi_head


def test_a_roi_head_and_an_assigner_train(run):
    model = run(
        """
model['roi_head']['type'] = 'OwnRoIHead'
model['train_cfg']['rpn'] = dict(assigner=dict(
    type='IgnoreInvalidAssigner', _delete_=True, assigner=dict(
        type='MyAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)))
"""
    ).model
    assert isinstance(model.roi_head, OwnRoIHead)
    assert model.roi_head.seen
    assert isinstance(model.rpn_head.assigner.assigner, MyAssigner)


# Testing -----------------------------------------------------------------------------------------

OWN_PYRAMID = "model.update(type='MyPyramid', detector='FasterRCNN')\n"
OWN_AUTOFOCUS = """
model.update(type='MyAutoFocus', detector='FasterRCNN', merge_cfg=dict(iou_thr=0.4))
sniper['autofocus'] = dict(focus_head=dict(type='EntropyFocusHead'), thresholds=0.3)
"""


def test_another_merge_trains_is_tested_and_is_said_in_the_log(run, caplog):
    model = run(OWN_PYRAMID).model
    assert isinstance(model, MyPyramid)
    assert model.merge_cfg.iou_thr == 0.9
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])
    found = InstanceData(bboxes=boxes, scores=torch.tensor([0.5, 0.9]), labels=torch.tensor([0, 1]))
    assert len(model.merge([found])) == 2
    model.merge_cfg.iou_thr = 0.7
    assert model.merge([found]).scores.tolist() == [pytest.approx(0.9)]
    assert 'merged by KeepAll.merge' in model._described([0])


def test_another_way_to_look_again_trains_and_is_tested(run):
    model = run(OWN_AUTOFOCUS).model
    assert isinstance(model, MyAutoFocus)
    assert model.merge_cfg.iou_thr == 0.4
    assert isinstance(model.focus_head, EntropyFocusHead)
    assert model.focus_head.pyramid == model.pyramid
    assert model.thresholds == (0.3,)


def test_modes_keep_the_class(write):
    cfg = load_config(write(OWN_AUTOFOCUS))
    for mode in (None, 'autofocus'):
        model, _ = mode_config(cfg, mode)
        assert (model.type, model.thresholds) == ('MyAutoFocus', 0.3)
    for mode in ('pyramid', 'single'):  # it looks everywhere
        model, _ = mode_config(cfg, mode)
        assert (model.type, model.thresholds) == ('MyAutoFocus', 0)
        assert 'focus_head' not in model
    cfg = load_config(write(OWN_PYRAMID))
    for mode in (None, 'pyramid', 'single'):
        assert mode_config(cfg, mode)[0].type == 'MyPyramid'
    with pytest.raises(ValueError, match='needs an AutoFocus, and MyPyramid is none'):
        mode_config(cfg, 'autofocus')


def test_reports_say_how_a_class_tests(write):
    for more, said, shown in (
        (OWN_AUTOFOCUS, 'coarse to fine, finer', 'coarse to fine'),
        (OWN_PYRAMID, 'at every level', 'all levels'),
    ):
        cfg = load_config(write(more))
        assert dict(config_rows(cfg))['tested'].startswith(said)
        assert comparison.tests_of(cfg) == dict(test=shown)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ("model['type'] = 'MyPyramid'\n", "no detector: .*type='MyPyramid', detector="),
        (OWN_PYRAMID + "sniper['autofocus'] = dict()\n", 'sniper.autofocus is for an AutoFocus'),
    ],
)
def test_what_cannot_be_tested_so_is_refused(write, more, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(more))
