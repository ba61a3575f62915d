"""A config becomes its SNIPER version, as a whole."""

import json
import os
import pickle
import re
import subprocess
import sys
from copy import deepcopy
from fnmatch import fnmatch
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.datasets import AspectRatioBatchSampler, CocoDataset
from mmdet.datasets.transforms import Resize
from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.models import RPNHead
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import HOOKS, RUNNERS
from mmengine.runner import FlexibleRunner, IterBasedTrainLoop, Runner

from comparing import without_scope
from mmsniper.apis import SNIPERInferencer
from mmsniper.convert import load_config, sniper_version
from mmsniper.convert.config import read_config
from mmsniper.datasets.wrappers import type_name
from mmsniper.engine import SNIPERRunner
from mmsniper.testing import make_toy_dataset
from mmsniper.testing.toy_dataset import ToyDatasetSpec

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
FRAGMENTS = [f'{CONFIGS}/_base_/{name}' for name in ('sniper.py', 'pyramids/coco_paper.py')]
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
STOCK_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
PYRAMID = dict(
    chip_size=128,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 64)),
        dict(resize=dict(factor=0.5), valid_range=(48, None)),
    ],
)


def stock_config(**changes):
    """A two-stage config as of MMDetection, as far as the mixin looks at it."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(256, 256), keep_ratio=True),
        dict(type='PackDetInputs'),
    ]
    data = dict(type='CocoDataset', ann_file='a.json', pipeline=pipeline)
    cfg = dict(
        model=dict(
            type='FasterRCNN',
            data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
            rpn_head=dict(type='RPNHead'),
            roi_head=dict(type='StandardRoIHead'),
            train_cfg=dict(rpn=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7))),
            test_cfg=dict(rcnn=dict(score_thr=0.05, max_per_img=100)),
        ),
        train_dataloader=dict(
            batch_size=2,
            dataset=data,
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type='AspectRatioBatchSampler'),
        ),
        test_dataloader=dict(batch_size=1, dataset=deepcopy(data)),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12),
        auto_scale_lr=dict(enable=False, base_batch_size=16),
        runner_type='mmsniper.engine.SNIPERRunner',
        sniper=dict(negative_chips=dict(warmup_epochs=2)),
        pyramid=PYRAMID,
    )
    cfg.update(changes)
    return Config(cfg)


def stock_file(tmp_path, base, text=''):
    file = tmp_path / 'mine.py'
    file.write_text(f'_base_ = {[f"mmdet::{base}", *FRAGMENTS]}\n{text}')
    return file


# The whole ---------------------------------------------------------------------------------------


def test_a_config_without_a_mixin_is_left_alone():
    cfg = Config(dict(model=dict(type='FasterRCNN')))
    assert sniper_version(cfg) is cfg


def test_the_given_config_is_not_changed():
    cfg = stock_config()
    before = deepcopy(cfg.to_dict())
    sniper_version(cfg)
    assert cfg.to_dict() == before


def test_the_result_is_a_plain_config_that_can_be_dumped_and_read(tmp_path):
    cfg = sniper_version(stock_config())
    assert 'sniper' not in cfg
    cfg.dump(tmp_path / 'dumped.py')
    assert load_config(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()


def test_the_fragment_makes_of_the_stock_detector_what_the_r101_config_spells_out():
    made = load_config(CONFIGS / '_base_' / 'faster_rcnn_r101_paper_coco.py')
    spelled = load_config(CONFIGS / 'sniper' / 'faster_rcnn_r101_sniper.py')
    variables = {'coco_train', 'meta_keys', 'train_pipeline'}  # of the file that spells it out
    for key in sorted((set(made) | set(spelled)) - variables):
        assert without_scope(made.get(key)) == without_scope(spelled.get(key)), key


def test_schedule_and_evaluation_stay(tmp_path):
    file = stock_file(tmp_path, 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    made, stock = load_config(file), Config.fromfile(file)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_evaluator', 'test_evaluator'):
        assert made[key] == stock[key], key
    assert made.val_evaluator.metric == made.test_evaluator.metric == ['bbox', 'segm']


def test_options_of_the_command_line_come_first(tmp_path):
    file = stock_file(tmp_path, 'retinanet/retinanet_r50_fpn_1x_coco.py')
    cfg = load_config(file, {'sniper.batch_size': 3, 'train_dataloader.num_workers': 0})
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.train_dataloader.num_workers == 0


@pytest.mark.parametrize(
    ('variable', 'rank', 'said'),
    [('RANK', '0', True), ('RANK', '1', False), ('SLURM_PROCID', '3', False)],
)
def test_what_was_made_of_the_config_is_said_once(monkeypatch, variable, rank, said):
    seen = []
    monkeypatch.setattr('mmsniper.convert.config.print_log', lambda text, **_: seen.append(text))
    monkeypatch.setenv(variable, rank)
    sniper_version(stock_config())
    assert ['ValidRangeAssigner, SNIPERRoIHead' in text for text in seen] == [True] * said


# Parts of the runtime ----------------------------------------------------------------------------


def test_a_batch_has_the_pixels_it_had_and_the_learning_rate_is_for_it():
    """2 images of 256 x 256 px are 8 chips of 128 x 128."""
    cfg = sniper_version(stock_config())
    assert cfg.train_dataloader.batch_size == 8
    assert cfg.auto_scale_lr.base_batch_size == 64


def test_a_batch_size_of_ones_own_counts_chips_and_so_does_that_of_the_learning_rate():
    cfg = sniper_version(stock_config(sniper=dict(batch_size=20)))
    assert cfg.train_dataloader.batch_size == 20
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_samples_by_area_are_those_of_a_chips_part_of_the_image_that_was_trained_on(monkeypatch):
    """A chip of 128 x 128 px is a quarter of an image of 256 x 256."""
    notes = []
    monkeypatch.setattr('mmsniper.convert.config.print_log', lambda text, **_: notes.append(text))

    def roi_samples(**sniper):
        cfg = stock_config(sniper=sniper)
        cfg.model.train_cfg.rcnn = dict(sampler=dict(type='RandomSampler', num=512))
        return sniper_version(cfg).model.train_cfg.rcnn.sampler.num

    assert roi_samples() == 512
    assert 'samples' not in notes.pop()
    assert roi_samples(samples_by_area=True) == 128
    assert 'a chip has 0.25 of the pixels of an image' in notes.pop()


def test_samples_by_area_need_an_image_whose_pixels_are_known():
    cfg = stock_config(sniper=dict(samples_by_area=True))
    cfg.train_dataloader.dataset.pipeline.pop(2)
    with pytest.raises(ValueError, match='does not tell how many pixels.*Resize'):
        sniper_version(cfg)


def test_negative_chips_are_mined_and_images_without_objects_kept_for_them():
    cfg = sniper_version(
        stock_config(
            train_dataloader=dict(
                batch_size=1,
                dataset=dict(
                    type='CocoDataset',
                    filter_cfg=dict(filter_empty_gt=True),
                    pipeline=[dict(type='LoadAnnotations')],
                ),
            )
        )
    )
    assert cfg.custom_hooks[-1] == dict(type='NegativeChipHook', warmup_epochs=2)
    assert cfg.train_dataloader.dataset.dataset.filter_cfg.filter_empty_gt is False


@pytest.mark.parametrize(
    'loop', [dict(type='IterBasedTrainLoop', max_iters=10), dict(by_epoch=False, max_iters=10)]
)
def test_a_loop_without_epochs_mines_nothing(loop):
    cfg = sniper_version(stock_config(train_cfg=loop))
    assert 'NegativeChipHook' not in [hook.type for hook in cfg.custom_hooks]


def test_hooks_of_theirs_stay_but_those_that_end_the_mixing_of_images():
    hooks = [
        dict(type='EMAHook'),
        dict(type='PipelineSwitchHook', switch_epoch=1),
        dict(type='YOLOXModeSwitchHook'),
        dict(type='PixelCounterHook'),
    ]
    cfg = sniper_version(stock_config(custom_hooks=hooks))
    assert [hook.type for hook in cfg.custom_hooks] == [
        'EMAHook',
        'PixelCounterHook',
        'TrainingTimeHook',
        'ConsistencyHook',
        'ResumeHook',
        'NegativeChipHook',
    ]


@pytest.mark.parametrize('imports', ['theirs', ['theirs']])
def test_imports_of_theirs_stay(imports):
    cfg = sniper_version(stock_config(custom_imports=dict(imports=imports)))
    assert cfg.custom_imports.imports == ['theirs', 'mmsniper']


def test_a_seed_of_theirs_stays():
    assert sniper_version(stock_config()).randomness == dict(seed=0)
    assert sniper_version(stock_config(randomness=dict(seed=7))).randomness == dict(seed=7)


# Testing -----------------------------------------------------------------------------------------


def steps_of(pipeline):
    """The transforms' names, one after the other, of a TestTimeAug with one view as well."""
    names = [type_name(step) for step in pipeline]
    if names[-1] == 'TestTimeAug':
        assert all(len(choices) == 1 for choices in pipeline[-1].transforms)
        names[-1:] = [type_name(step) for (step,) in pipeline[-1].transforms]
    return names


def packed_keys(pipeline):
    last = pipeline[-1]
    last = last.transforms[-1][0] if type_name(last) == 'TestTimeAug' else last
    assert type_name(last) == 'PackDetInputs'
    return last.meta_keys


@pytest.mark.parametrize(
    'base',
    [
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'retinanet/retinanet_r50_fpn_1x_coco.py',  # has a tta_model
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',  # pads, and has a TestTimeAug with three scales
    ],
)
def test_validation_and_test_get_the_images_as_they_are(tmp_path, base):
    cfg = load_config(stock_file(tmp_path, base))
    steps = ['LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs']
    for pipeline in (
        cfg.val_dataloader.dataset.pipeline,
        cfg.test_dataloader.dataset.pipeline,
        cfg.test_pipeline,
    ):
        assert steps_of(pipeline) == steps
        assert 'scale_factor' not in packed_keys(pipeline)
    assert steps_of(cfg.tta_pipeline) == [steps[0], 'RandomFlip', *steps[1:]]
    assert 'scale_factor' not in packed_keys(cfg.tta_pipeline)
    assert {'flip', 'flip_direction'} <= set(packed_keys(cfg.tta_pipeline))


def test_what_the_evaluation_of_open_images_reads_is_packed(tmp_path):
    cfg = load_config(stock_file(tmp_path, 'openimages/retinanet_r50_fpn_32xb2-1x_openimages.py'))
    for pipeline in (cfg.test_dataloader.dataset.pipeline, cfg.tta_pipeline):
        assert {'instances', 'image_level_labels'} <= set(packed_keys(pipeline))
    assert cfg.tta_model == dict(type='SNIPERTTAModel')


def test_what_an_evaluation_of_ones_own_reads_is_packed():
    cfg = stock_config()
    cfg.test_dataloader.dataset.pipeline[-1].meta_keys = ('img_id', 'scale_factor', 'camera')
    cfg = sniper_version(cfg)
    for pipeline in (cfg.test_dataloader.dataset.pipeline, cfg.tta_pipeline):
        keys = packed_keys(pipeline)
        assert keys.count('camera') == keys.count('img_id') == 1
        assert 'scale_factor' not in keys


def test_a_resize_of_ones_own_in_a_test_is_refused(monkeypatch):
    class MyResize(Resize):
        pass

    monkeypatch.setitem(TRANSFORMS._module_dict, 'MyResize', MyResize)
    cfg = stock_config()
    cfg.test_dataloader.dataset.pipeline[2].type = 'MyResize'
    with pytest.raises(ValueError, match='of test_dataloader has MyResize, .* take it out'):
        sniper_version(cfg)


def test_the_detector_sees_all_levels_and_keeps_its_settings():
    cfg = stock_config()
    found = sniper_version(cfg).model
    assert (found.type, found.detector, found.pyramid) == ('PyramidDetector', 'FasterRCNN', PYRAMID)
    assert found.test_cfg == cfg.model.test_cfg
    cfg.model.update(merge_cfg=dict(max_per_img=7), val_levels=[1])
    found = sniper_version(cfg).model
    assert (found.merge_cfg, found.val_levels) == (dict(max_per_img=7), [1])


def test_one_loader_for_validation_and_test_is_changed_once():
    """In Python both may be one object, and so may their pipelines."""
    cfg = stock_config()
    cfg.val_dataloader = cfg.test_dataloader
    before = deepcopy(cfg.to_dict())
    found = sniper_version(cfg)
    assert found.val_dataloader == found.test_dataloader
    assert steps_of(found.val_dataloader.dataset.pipeline) == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'PackDetInputs',
    ]
    assert cfg.to_dict() == before


def test_every_data_set_of_a_test_gets_the_images_as_they_are():
    cfg = stock_config()
    part = cfg.test_dataloader.dataset
    several = dict(type='ConcatDataset', datasets=[part, dict(type='RepeatDataset', dataset=part)])
    cfg.test_dataloader.dataset = several
    first, second = sniper_version(cfg).test_dataloader.dataset.datasets
    assert 'Resize' not in steps_of(first.pipeline)
    assert first.pipeline == second.dataset.pipeline


def test_without_a_test_there_is_nothing_to_change():
    cfg = sniper_version(stock_config(test_dataloader=None))
    assert cfg.model.type == 'PyramidDetector'
    assert 'tta_pipeline' not in cfg


STOCK_TTA = dict(
    type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=500)
)


@pytest.mark.parametrize('own', [False, True], ids=['default', 'of the config'])
def test_a_tta_that_stock_tools_have_put_around_the_model_becomes_ours(own):
    """As MMDetection's tools/test.py --tta leaves a config, with its default or the config's."""
    cfg, flips = stock_config(), [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip')]
    expected = sniper_version(cfg)
    loading, load_boxes, resize, pack = cfg.test_dataloader.dataset.pipeline
    if own:
        before, views = [loading], [[resize, resize], flips, [load_boxes], [pack]]
    else:
        before, views = [loading, load_boxes, resize], [flips, [pack]]
    cfg.tta_model = STOCK_TTA
    cfg.tta_pipeline = [*before, dict(type='TestTimeAug', transforms=views)]
    cfg.model = dict(**STOCK_TTA, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg = sniper_version(cfg)
    assert cfg.model == dict(type='SNIPERTTAModel', module=expected.model)
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline == expected.tta_pipeline
    assert cfg.test_pipeline == expected.test_pipeline


def test_a_tta_of_ones_own_stays():
    views = [[dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)], [dict(type='PackDetInputs')]]
    mine = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=views)]
    model = dict(type='SNIPERTTAModel')
    assert sniper_version(stock_config(tta_model=model, tta_pipeline=mine)).tta_pipeline == mine
    replaced = sniper_version(stock_config(tta_model=STOCK_TTA, tta_pipeline=mine))
    assert replaced.tta_model == model
    assert replaced.tta_pipeline != mine


@pytest.mark.parametrize('name', ['tta_cfg', 'view_test_cfg'])
@pytest.mark.parametrize('kind', [{}, dict(type='SNIPERTTAModel')], ids=['option', 'own'])
def test_how_levels_are_merged_is_not_said_twice(name, kind):
    """As --cfg-options tta_model.tta_cfg.max_per_img=500 would."""
    with pytest.raises(ValueError, match=rf"tta_model has \['{name}'\].*merge_cfg"):
        sniper_version(stock_config(tta_model={**kind, name: dict(max_per_img=500)}))


def test_scopes_and_classes_are_understood():
    """As in MMDetection's Python configs, and in configs that name their scope."""
    plain = sniper_version(stock_config())
    cfg = stock_config()
    cfg.default_scope = None
    cfg.model.rpn_head.type = RPNHead
    cfg.model.roi_head.type = 'mmdet.StandardRoIHead'
    cfg.model.train_cfg.rpn.assigner.type = MaxIoUAssigner
    cfg.train_dataloader.dataset.type = CocoDataset
    cfg.train_dataloader.dataset.pipeline[0].type = 'mmdet.LoadImageFromFile'
    cfg.train_dataloader.dataset.pipeline[2].type = Resize
    cfg.train_dataloader.sampler.type = DefaultSampler
    cfg.train_dataloader.batch_sampler.type = AspectRatioBatchSampler
    found = sniper_version(cfg)
    assert found.model.roi_head == plain.model.roi_head
    assert found.model.train_cfg == plain.model.train_cfg
    assert found.train_dataloader.dataset.pipeline == plain.train_dataloader.dataset.pipeline
    assert found.train_dataloader.sampler == plain.train_dataloader.sampler
    assert found.default_scope == 'mmdet'


PYTHON_CONFIG = """
from mmengine.dataset import DefaultSampler
from mmengine.runner import EpochBasedTrainLoop
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.detectors import RetinaNet
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.registry import TRANSFORMS

model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor),
    bbox_head=dict(type=RetinaHead, num_classes=2, in_channels=8),
    train_cfg=dict(assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4)),
)
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=Resize, scale=(640, 640)),
    dict(type=PackDetInputs),
]
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=CocoDataset, ann_file='a.json', pipeline=pipeline),
)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=2)
default_scope = None
runner_type = 'mmsniper.engine.SNIPERRunner'
sniper = dict(negative_chips=dict(warmup_epochs=2))
pyramid = dict(
    chip_size=512, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))]
)
"""


def test_a_python_config_becomes_its_sniper_version(tmp_path):
    """Of MMDetection's new style, whose types are classes that are imported late."""
    (tmp_path / 'mine.py').write_text(PYTHON_CONFIG)
    cfg = load_config(tmp_path / 'mine.py')
    assert cfg.train_dataloader.sampler.type == 'ChipAwareSampler'
    assert cfg.train_dataloader.dataset.dataset.type is CocoDataset
    assert [type_name(step) for step in cfg.train_dataloader.dataset.pipeline] == [
        'LoadLargeImageFromFile',
        'LoadAnnotations',
        'ChipSampler',
        'ScaleRangeFilter',
        'PackDetInputs',
    ]
    assert cfg.model.train_cfg.assigner.type == 'ValidRangeAssigner'


def test_jpegs_are_reduced_where_they_are_trained_and_tested_if_the_config_says_so():
    loaders = [dict(type='mmdet.LoadImageWindows', optional=True, reduced_jpegs=True)] * 2
    found = sniper_version(stock_config(sniper=dict(reduced_jpegs=True)))
    trained, tested = (
        found[name].dataset.pipeline for name in ('train_dataloader', 'test_dataloader')
    )
    assert [trained[0], tested[0]] == loaders
    assert tested[-1].type == 'PackImageWindows'
    assert found.tta_pipeline[0] == loaders[0]
    assert 'reduced_jpegs' not in sniper_version(stock_config()).pretty_text


def test_an_rpn_is_tested_on_jpegs_as_they_are():
    cfg = stock_config(sniper=dict(reduced_jpegs=True))
    cfg.model.type = 'RPN'
    cfg.model.pop('roi_head')
    found = sniper_version(cfg)
    assert found.train_dataloader.dataset.pipeline[0].reduced_jpegs
    assert found.test_dataloader.dataset.pipeline[0] == dict(type='LoadImageFromFile')


def test_images_are_loaded_at_test_time_as_the_test_pipeline_loads_them():
    loading = dict(type='LoadImageFromFile', color_type='unchanged')
    cfg = stock_config()
    cfg.test_dataloader.dataset.pipeline[0] = loading
    found = sniper_version(cfg)
    assert found.test_dataloader.dataset.pipeline[0] == found.tta_pipeline[0] == loading


# AutoFocus ---------------------------------------------------------------------------------------


def autofocus_config(neck=True, **options):
    cfg = stock_config()
    if neck:
        cfg.model.neck = dict(type='FPN', out_channels=64)
    cfg.sniper.autofocus = options
    return cfg


def test_an_autofocus_is_the_pyramid_detector_with_a_branch():
    cfg = autofocus_config(edge=4)
    cfg.test_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'])
    found = sniper_version(cfg)
    cfg.sniper.pop('autofocus')
    plain = sniper_version(cfg)
    branch = dict(type='PyramidFocusHead', in_channels=64, pyramid=PYRAMID)
    assert found.model == {**plain.model, 'type': 'AutoFocus', 'edge': 4, 'focus_head': branch}
    for key in ('train_dataloader', 'test_dataloader', 'test_evaluator', 'tta_model'):
        assert found[key] == plain[key], key


def test_settings_of_an_autofocus_can_be_given_to_the_model():
    """As --cfg-options model.thresholds=0.1 does, also with a config that is dumped."""
    cfg = autofocus_config(thresholds=0.5, edge=4)
    cfg.model.update(thresholds=0.1, merge_cfg=dict(max_per_img=7))
    model = sniper_version(cfg).model
    assert (model.thresholds, model.edge, model.merge_cfg) == (0.1, 4, dict(max_per_img=7))


def test_a_tta_of_an_autofocus_is_around_all_of_it():
    """As the tools' --tta makes it: weights keep their names."""
    cfg = autofocus_config()
    cfg.model = dict(**STOCK_TTA, module=cfg.model)
    cfg = sniper_version(cfg)
    assert (cfg.model.type, cfg.model.module.type) == ('SNIPERTTAModel', 'AutoFocus')
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline


def test_the_branch_can_be_told_its_channels_be_the_papers_or_left_out():
    head = dict(in_channels=8, feat_channels=16)
    made = sniper_version(autofocus_config(neck=False, focus_head=head)).model.focus_head
    assert made == dict(type='PyramidFocusHead', pyramid=PYRAMID, **head)
    papers = dict(type='FocusHead', small=(5, 64))
    made = sniper_version(autofocus_config(focus_head=papers)).model.focus_head
    assert made == dict(papers, in_channels=64)
    left_out = sniper_version(autofocus_config(focus_head=None)).model
    by_option = autofocus_config()
    by_option.model.focus_head = None
    for model in (left_out, sniper_version(by_option).model):
        assert model.type == 'AutoFocus'
        assert model.get('focus_head') is None


def test_channels_that_cannot_be_told_are_asked_for():
    with pytest.raises(ValueError, match=r'neck \(it has none\).*in_channels=\.\.\.'):
        sniper_version(autofocus_config(neck=False))


def test_an_rpn_has_no_autofocus():
    cfg = autofocus_config()
    cfg.model.type = 'RPN'
    cfg.model.pop('roi_head')
    with pytest.raises(ValueError, match='an RPN only proposes'):
        sniper_version(cfg)


# What cannot be done is said ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(chips=3), r"no option \['chips'\].*batch_size"),
        (dict(batch_size=0), 'whole number of chips, got 0'),
        (None, 'must be a dict of options, got None'),
        (dict(sampler=dict(pyramid=PYRAMID)), 'sampler has a pyramid of its own'),
        (dict(batch_size=True), 'whole number of chips, got True'),
        (dict(autofocus=True), r'sniper\.autofocus must be a dict of options.*got True'),
        (dict(negative_chips=False), r'sniper\.negative_chips must be a dict.*got False'),
        (dict(sampler='minimum'), r"sniper\.sampler must be a dict.*got 'minimum'"),
        (dict(whole_images=1), r'whole_images must be True or False, got 1'),
        (dict(sampler=dict(strid=16)), r"sampler has no option \['strid'\].*'stride'"),
        (dict(sampler=dict(type='DefaultSampler')), 'DefaultSampler, which takes no pyramid'),
        (dict(autofocus=dict(treshold=0.1)), r"no option \['treshold'\].*'thresholds'"),
        (dict(autofocus=dict(pyramid=PYRAMID)), r"autofocus has no option \['pyramid'\]"),
        (dict(whole_images=True, sampler=dict(stride=8)), 'sampler is for chips'),
        (dict(whole_images=True, cache_mb=5), 'cache_mb is for chips'),
        (dict(range_first=1), 'range_first must be True or False, got 1'),
        (dict(samples_by_area=0.5), 'samples_by_area must be True or False, got 0.5'),
        (dict(whole_images=True, samples_by_area=True), 'samples_by_area is for chips'),
        (dict(reduced_jpegs=2), 'reduced_jpegs must be True or False, got 2'),
        (dict(whole_images=True, reduced_jpegs=True), 'reduced_jpegs is for chips'),
        (dict(cache_mb=-1), 'cache_mb must be a number of at least 0, got -1'),
        (dict(cache_mb=True), 'cache_mb must be a number of at least 0, got True'),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sniper_version(stock_config(sniper=options))


@pytest.mark.parametrize(
    ('base', 'said'),
    [
        ('configs/_base_/sniper.py', "Write 'mmsniper::_base_/sniper.py', which is found from any"),
        ('configs/_base_/snipper.py', 'there is no configs in it'),
        ('MINE.py', 'mine.py: upper and lower case differ. Correct it in _base_'),
        ('mmdet::no/such.py', 'there is no no in it'),
    ],
)
def test_of_a_base_that_does_not_exist_it_is_said_what_to_write(tmp_path, base, said):
    (tmp_path / 'mine.py').write_text('')
    (tmp_path / 'child.py').write_text(f'_base_ = {base!r}')
    with pytest.raises(FileNotFoundError) as error:
        load_config(tmp_path / 'child.py')
    assert str(error.value).startswith(f'{tmp_path}/child.py: its _base_, or that of a base, names')
    assert said in str(error.value)


def test_a_config_that_does_not_exist_is_looked_for(tmp_path):
    (tmp_path / 'mine.py').write_text('')
    with pytest.raises(FileNotFoundError, match=r'there is no config .*/my\.py\. The folder'):
        load_config(tmp_path / 'my.py')


def test_a_config_needs_a_pyramid_and_a_model():
    cfg = stock_config()
    cfg.pop('pyramid')
    with pytest.raises(ValueError, match=r'suggest_pyramid\.py writes'):
        sniper_version(cfg)
    with pytest.raises(ValueError, match='the config has no model'):
        sniper_version(stock_config(model=None))


def test_a_wrong_pyramid_is_refused_before_anything_is_built():
    with pytest.raises(ValueError, match='chip_size'):
        sniper_version(stock_config(pyramid=dict(PYRAMID, chip_size=-1)))


def test_a_sniper_config_needs_no_mixin():
    once = sniper_version(stock_config())
    once.sniper = dict()
    with pytest.raises(ValueError, match='ChipDataset already'):
        sniper_version(once)


# Settings that cannot all hold -------------------------------------------------------------------


class OwnSwitch(PipelineSwitchHook):
    """A hook that derives from the one that ends the mixing of images."""


HOOKS.register_module(name='OwnSwitch', module=OwnSwitch, force=True)


@pytest.mark.parametrize(
    'kind', ['PipelineSwitchHook', 'mmdet.PipelineSwitchHook', PipelineSwitchHook]
)
@pytest.mark.parametrize('derived', [False, True])
def test_a_hook_that_ends_the_mixing_is_known_by_any_name(kind, derived):
    kind = 'OwnSwitch' if derived and isinstance(kind, str) else OwnSwitch if derived else kind
    switch = dict(type=kind, switch_epoch=1, switch_pipeline=[dict(type='PackDetInputs')])
    cfg = sniper_version(stock_config(custom_hooks=[switch, dict(type='EMAHook')]))
    assert type_name(cfg.custom_hooks[0]) == 'EMAHook'
    assert 'Switch' not in str(cfg.custom_hooks)


def test_a_hook_that_ends_the_mixing_is_no_default_hook_either():
    switch = dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=[dict(type='Pack')])
    named = dict(switch=switch, checkpoint=dict(type='CheckpointHook'), logger=None)
    cfg = sniper_version(stock_config(default_hooks=named))
    assert set(cfg.default_hooks) == {'checkpoint', 'logger'}


def test_pictures_are_drawn_by_the_hook_that_knows_of_chips_unless_the_config_has_its_own():
    for name, drawn in (('DetVisualizationHook', 'PictureHook'), ('OwnHook', 'OwnHook')):
        hook = dict(type=name, draw=True)
        cfg = sniper_version(stock_config(default_hooks=dict(visualization=hook)))
        assert cfg.default_hooks.visualization == dict(type=drawn, draw=True)
    for hooks in (dict(), dict(visualization=None)):
        assert sniper_version(stock_config(default_hooks=hooks)).default_hooks == hooks


def test_a_hook_of_the_config_that_mines_takes_the_place_of_the_fragments(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmsniper.convert.config.print_log', lambda text, **kwargs: said.append(text)
    )
    hook = dict(type='mmsniper.NegativeChipHook', warmup_epochs=4)
    cfg = sniper_version(stock_config(custom_hooks=[hook]))
    assert cfg.custom_hooks[0] == hook
    assert str(cfg.custom_hooks).count('NegativeChipHook') == 1
    assert "by the NegativeChipHook of the config: {'type': 'mmsniper.NegativeChipHook'" in said[0]
    cfg = sniper_version(stock_config(custom_hooks=[hook], sniper=dict(negative_chips=None)))
    assert cfg.custom_hooks[0] == hook


def test_loops_are_known_by_their_class():
    loop = dict(type=IterBasedTrainLoop, max_iters=10)
    assert 'NegativeChipHook' not in str(sniper_version(stock_config(train_cfg=loop)).custom_hooks)


def test_a_switch_to_whole_images_is_refused_where_chips_are_spelled_out():
    cfg = sniper_version(stock_config())
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize'), dict(type='PackDetInputs')]
    hook = dict(type='mmdet.PipelineSwitchHook', switch_epoch=1, switch_pipeline=steps)
    cfg.custom_hooks.append(hook)
    with pytest.raises(ValueError, match=r'PipelineSwitchHook .* without ChipSampler \(LoadIm'):
        sniper_version(cfg)
    hook['switch_pipeline'].insert(1, dict(type='mmsniper.ChipSampler', pyramid=PYRAMID))
    sniper_version(cfg)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(runner_type='FlexibleRunner'), "runner_type is FlexibleRunner.*SNIPERRunner' holds"),
        (dict(runner_type='Runner'), r'runner_type is Runner.*class Runner\(SNIPERRunner\)'),
        (dict(runner_type=FlexibleRunner), 'runner_type is FlexibleRunner'),
        (dict(runner_type='NoSuchRunner'), 'runner_type is NoSuchRunner'),
        (dict(strategy=dict(type='DeepSpeedStrategy')), r'strategy \(DeepSpeedStrategy\)'),
    ],
)
def test_another_runner_is_refused_with_the_way_out(change, message):
    with pytest.raises(ValueError, match=message):
        sniper_version(stock_config(**change))


def test_a_runner_that_derives_from_ours_is_one():
    class Mine(SNIPERRunner):
        pass

    for kind in (Mine, SNIPERRunner, 'mmsniper.engine.SNIPERRunner'):
        assert 'sniper' not in sniper_version(stock_config(runner_type=kind))
    RUNNERS.register_module(name='MineForATest', module=Mine)
    try:
        sniper_version(stock_config(runner_type='MineForATest'))
    finally:
        RUNNERS.module_dict.pop('MineForATest')
    without = stock_config()
    without.pop('runner_type')
    assert 'sniper' not in sniper_version(without)


@pytest.mark.parametrize('kind', ['Runner', 'FlexibleRunner', 'MyRunner'])
def test_with_another_runner_mmdetections_tools_stop(kind):
    """Which know nothing of ``sniper`` and would train the stock detector."""

    class MyRunner(Runner):
        pass

    cfg = stock_config(runner_type=MyRunner if kind == 'MyRunner' else kind)
    with pytest.raises(ValueError, match=f'of which {kind} knows nothing.*SNIPERRunner'):
        RUNNERS.build(cfg)
    cfg.pop('runner_type')
    with pytest.raises(ValueError, match='of which Runner knows nothing'):
        Runner.from_cfg(cfg)


def test_a_runner_takes_configs_without_sniper_as_before():
    with pytest.raises(KeyError, match='work_dir|model'):
        Runner.from_cfg(dict())


def test_one_pool_of_negative_chips_is_mined_or_given():
    pool = dict(negatives='pool.npz')
    with pytest.raises(ValueError, match=r'pool .*pool\.npz.*negative_chips=None'):
        sniper_version(stock_config(sniper=dict(sampler=pool, negative_chips=dict())))
    cfg = sniper_version(stock_config(sniper=dict(sampler=pool)))
    assert cfg.train_dataloader.sampler.negatives == 'pool.npz'
    with pytest.raises(ValueError, match='NegativeChipHook mines another one'):
        sniper_version(Config(dict(cfg, custom_hooks=[dict(type='mmsniper.NegativeChipHook')])))


def test_images_without_objects_are_kept_for_a_pool_that_is_given():
    cfg = stock_config(sniper=dict(sampler=dict(negatives='pool.npz')))
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
    found = sniper_version(cfg).train_dataloader.dataset.dataset
    assert found.filter_cfg == dict(filter_empty_gt=False, min_size=32)


@pytest.fixture
def said(monkeypatch):
    """A function that converts the stock config with changes, and gives what the log says."""

    def convert(**changes):
        notes = []
        monkeypatch.setattr(
            'mmsniper.convert.config.print_log', lambda text, **_: notes.append(text)
        )
        sniper_version(stock_config(**changes))
        return ''.join(notes)

    return convert


def test_what_a_setting_takes_away_is_said(said):
    sniper = dict(whole_images=True, negative_chips=dict())
    assert 'no negative chips: it is trained on whole images' in said(sniper=sniper)
    model = stock_config().model
    model.data_preprocessor.batch_augments = [dict(type='mmdet.BatchSyncRandomResize')]
    assert 'batches without BatchSyncRandomResize' in said(model=model)
    assert 'batches without' not in said()


def test_what_the_learning_rate_is_scaled_by_is_said_where_it_will_be_scaled(said):
    """A batch is 2 images of 256 x 256 px, and a chip has 128 x 128."""
    scale = dict(enable=True, base_batch_size=16)
    text = said(auto_scale_lr=scale)
    assert 'batches of 8 chips of 128x128 px: the pixels of 2 images (choose with sniper.b' in text
    assert 'for batches of 64 chips over all GPUs (the pixels of 16 images)' in text
    text = said(sniper=dict(batch_size=8), auto_scale_lr=scale)
    assert 'for batches of 16 chips over all GPUs (auto_scale_lr.base_batch_size, which c' in text
    assert 'for 16 images, set it to 64: their pixels' in text
    assert 'the learning rate' not in said(sniper=dict(batch_size=8))


def leaves_of(node, path=''):
    """All values of a config by their dotted keys, of lists as a whole."""
    if not isinstance(node, dict):
        return {path: node}
    inner = (leaves_of(v, f'{path}.{k}' if path else k) for k, v in node.items())
    return {key: value for part in inner for key, value in part.items()}


@pytest.mark.parametrize(
    'base',
    [
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'atss/atss_r50_fpn_1x_coco.py',
        'yolox/yolox_s_8xb8-300e_coco.py',
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
    ],
)
def test_the_docs_name_each_key_of_a_stock_config_that_changes(base, tmp_path):
    page = (ROOT / 'docs' / 'detectors.md').read_text()
    table = re.search(r'^\| key \|.*?(?=\n\n)', page, re.M | re.S)[0]
    rows = [line.split('|')[1] for line in table.splitlines()]
    named = [key for row in rows for key in re.findall('`(.+?)`', row)]
    stock = leaves_of(
        without_scope(Config.fromfile(STOCK / base, import_custom_modules=False).to_dict())
    )
    made = leaves_of(without_scope(load_config(stock_file(tmp_path, base)).to_dict()))
    new = set(
        leaves_of(without_scope(Config.fromfile(stock_file(tmp_path, base)).to_dict()))
    ) - set(stock)
    changed = {key for key in {*stock, *made} - new if stock.get(key, ...) != made.get(key, ...)}
    assert changed
    untold = [key for key in changed if not any(fnmatch(f'{key}.', f'{n}.*') for n in named)]
    assert untold == []


def test_what_becomes_of_score_thr_is_said(said):
    merging = 'tests merge all levels by score_thr=0.001, nms=soft_nms, max_per_img=100 (choose wit'
    text = said()
    assert merging in text
    assert 'model.test_cfg.rcnn.score_thr=0.05 does not count' in text
    model = dict(stock_config().model, merge_cfg=dict(score_thr=0.2, max_per_img=-1, nms=None))
    text = said(model=model)
    assert 'by score_thr=0.2, nms=None, max_per_img=None (' in text
    model = dict(stock_config().model, test_cfg=dict(rcnn=dict(max_per_img=100)))
    assert 'does not count' not in said(model=model)
    model = stock_config().model
    model.roi_head.type = 'GridRoIHead'
    assert 'does not count' not in said(model=model)


# With MMDetection's own tools --------------------------------------------------------------------


def test_the_runner_is_built_from_the_sniper_version(monkeypatch):
    seen = []
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: seen.append(cfg)))
    RUNNERS.build(stock_config())
    assert seen[0].train_dataloader.sampler.type == 'ChipAwareSampler'


@pytest.fixture(scope='module')
def toy_config(tmp_path_factory):
    """A stock-style config with our fragment and imports of its own, on five toy scenes."""
    folder = tmp_path_factory.mktemp('toy')
    spec = ToyDatasetSpec(num_train=3, num_val=2, min_side=400, max_side=500)
    make_toy_dataset(folder / 'data', spec, processes=1)
    base = ROOT / 'configs' / 'baselines' / 'faster_rcnn_r18_single_scale_toy.py'
    file = folder / 'mine.py'
    file.write_text(
        f"_base_ = ['{base}', '{FRAGMENTS[0]}',\n"
        f"          '{ROOT}/configs/_base_/pyramids/toy.py']\n"
        f"data = dict(data_root='{folder}/data/')\n"
        'train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)\n'
        'val_dataloader = test_dataloader = dict(\n'
        '    num_workers=0, persistent_workers=False, dataset=data)\n'
        f"val_evaluator = dict(ann_file='{folder}/data/annotations/val.json')\n"
        'test_evaluator = val_evaluator\n'
        'train_cfg = dict(max_epochs=2, val_interval=2)\n'
        'sniper = dict(negative_chips=dict(warmup_epochs=1))\n'
        "custom_imports = dict(imports=['json'])\n"
    )
    return file


def run(*command):
    """Run a tool; returns what it says."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


# This MMDetection may have been installed without its tools.
TOOLS = dict(ours=ROOT / 'tools', **dict(theirs=STOCK_TOOLS) if STOCK_TOOLS.exists() else {})


@pytest.fixture(scope='module')
def trained(toy_config):
    """Work folders of trainings by our tools and by theirs, and what these said."""
    said = {}
    for kind, tools in TOOLS.items():
        folder = toy_config.parent / kind
        said[folder] = run(tools / 'train.py', toy_config, '--work-dir', folder)
    return said


@pytest.fixture(scope='module')
def checkpoint(trained):
    return next(iter(trained)) / 'epoch_2.pth'


def test_a_fragment_config_trains_with_mmdetections_tools_and_ours(trained):
    for folder, said in trained.items():
        assert 'SNIPER version of FasterRCNN' in said
        assert (folder / 'negative_chips.npz').exists()
        dumped = load_config(folder / 'mine.py')
        assert dumped.train_dataloader.dataset.type == 'ChipDataset'
        assert dumped.custom_imports.imports == ['json', 'mmsniper']


def test_mmdetections_tools_and_ours_detect_the_same_with_tta_and_without(
    toy_config, checkpoint, tmp_path
):
    found = {}
    for kind, tools in TOOLS.items():
        for options in ([], ['--tta']):
            file = tmp_path / f'{kind}{"".join(options)}.pkl'
            files = ['--work-dir', tmp_path / 'test', '--out', file]
            said = run(tools / 'test.py', toy_config, checkpoint, *options, *files)
            assert 'test: every image is seen at the levels 0' in said
            metrics = re.findall(r'coco/(bbox_mAP\w*: \S+)', said)
            assert len(metrics) == 6
            found[file.stem] = metrics, pickle.loads(file.read_bytes())
    metrics, ours = found['ours']
    assert len(torch.cat([sample['pred_instances']['levels'] for sample in ours]).unique()) > 1
    for name, (their_metrics, theirs) in found.items():
        assert their_metrics == metrics, name
        for mine, other in zip(ours, theirs, strict=True):
            for key in ('bboxes', 'scores', 'labels'):
                assert torch.equal(mine['pred_instances'][key], other['pred_instances'][key]), name


# With what builds the model of a config without a Runner -----------------------------------------

STOCK_WARNING = 'this is the stock detector, which sees images at one scale'
INFERENCE = """
import json
import sys
from mmdet.apis import DetInferencer, inference_detector, init_detector
config, checkpoint, image = sys.argv[1:]
model = init_detector(config, checkpoint, device='cpu')
print('init_detector was here', file=sys.stderr)
result = inference_detector(model, image)
inferencer = DetInferencer(config, checkpoint, device='cpu', show_progress=False)
[other] = inferencer(image, no_save_vis=True)['predictions']
found = dict(
    type=type(model).__name__,
    scale=result.metainfo.get('scale_factor'),
    boxes=result.pred_instances.bboxes.tolist(),
    others=other['bboxes'],
)
print('found:', json.dumps(found))
"""


@pytest.fixture(scope='module')
def infer(checkpoint, toy_config):
    """What MMDetection's functions make of a config, in a Python that has imported nothing yet."""
    image = next((toy_config.parent / 'data' / 'val').iterdir())

    def run_(config):
        said = run('-c', INFERENCE, config, checkpoint, image)
        assert not re.search('unexpected key|missing keys', said)
        found = json.loads(said.rpartition('found: ')[2].splitlines()[0])
        parts = said.split('init_detector was here')
        return dict(found, warned=[STOCK_WARNING in part for part in parts])

    run_.image = image
    return run_


def test_by_the_config_in_the_work_folder_mmdetections_inference_sees_all_levels(
    infer, toy_config, checkpoint
):
    found = infer(checkpoint.parent / 'mine.py')
    ours = SNIPERInferencer(toy_config, checkpoint, device='cpu', show_progress=False)
    [sample] = ours(infer.image, return_datasamples=True, no_save_vis=True)['predictions']
    assert len(sample.pred_instances.levels.unique()) > 1
    assert found['type'] == 'PyramidDetectorFasterRCNN'
    assert found['warned'] == [False, False]
    boxes = sample.pred_instances.bboxes
    for theirs in (found['boxes'], found['others']):
        torch.testing.assert_close(torch.tensor(theirs), boxes, atol=1e-3, rtol=0)


def test_of_a_fragment_file_mmdetections_inference_makes_the_stock_detector(infer, toy_config):
    """One scale; it loads the whole checkpoint, which holds what torch 2.6 refuses by itself."""
    found = infer(toy_config)
    assert found['type'] == 'FasterRCNN'
    assert found['warned'] == [True, True]  # by init_detector, by DetInferencer
    assert found['scale'] is not None
    torch.testing.assert_close(torch.tensor(found['boxes']), torch.tensor(found['others']))


def test_settings_of_what_the_config_has_switched_off_are_answered_with_the_fix(tmp_path):
    """mmengine's own words are about a child config and its base."""
    off, on = tmp_path / 'off.py', tmp_path / 'on.py'
    off.write_text('sniper = dict(negative_chips=None)\n')
    on.write_text("_base_ = './off.py'\nsniper = dict(negative_chips=dict(warmup_epochs=3))\n")
    option = {'sniper.negative_chips.warmup_epochs': 3}
    with pytest.raises(
        ValueError, match=r'sniper.negative_chips is no dict.*_delete_=True'
    ) as told:
        read_config(off, option)
    fix = str(told.value).partition('--cfg-options ')[2].split()
    options = {name: eval(value) for name, _, value in (part.partition('=') for part in fix)}
    assert read_config(off, options).sniper.negative_chips == dict(warmup_epochs=3)
    with pytest.raises(ValueError, match=r'on.py: .*negative_chips=dict\(_delete_=True, ...\)'):
        read_config(on)
