"""A config becomes its SNIPER version, as a whole."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import mmdet
import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import Resize
from mmdet.models import RPNHead
from mmdet.models.task_modules import MaxIoUAssigner
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from comparing import without_scope
from mmsniper.convert import load_config, sniper_version
from mmsniper.datasets.wrappers import type_name
from mmsniper.testing import make_toy_dataset
from mmsniper.testing.toy_dataset import ToyDatasetSpec

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
FRAGMENTS = [f'{CONFIGS}/_base_/{name}' for name in ('sniper.py', 'pyramids/coco_paper.py')]
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


@pytest.mark.parametrize(
    'key',
    [
        'optim_wrapper',
        'param_scheduler',
        'train_cfg',
        'val_dataloader',
        'test_dataloader',
        'val_evaluator',
        'test_pipeline',
    ],
)
def test_schedule_evaluation_and_the_test_at_one_scale_stay(tmp_path, key):
    base = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    file = stock_file(tmp_path, base)
    assert load_config(file)[key] == Config.fromfile(file)[key]


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


def test_a_tta_that_stock_tools_have_put_around_the_model_becomes_that_of_the_levels():
    cfg = stock_config()
    cfg.model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=100), module=cfg.model)
    cfg = sniper_version(cfg)
    assert cfg.model.type == 'SNIPERTTAModel'
    assert cfg.model.module.roi_head.type == 'SNIPERRoIHead'
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline


def test_test_time_augmentation_merges_boxes_so_masks_are_not_evaluated():
    cfg = stock_config(test_evaluator=dict(type='CocoMetric', metric=['bbox', 'segm']))
    assert sniper_version(cfg).test_evaluator.metric == ['bbox', 'segm']
    cfg.model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=100), module=cfg.model)
    assert sniper_version(cfg).test_evaluator.metric == ['bbox']


def test_views_keep_all_detections_until_the_merge():
    cfg = sniper_version(stock_config())
    assert cfg.tta_model.view_test_cfg == dict(
        rcnn=dict(max_per_img=1000, score_thr=0.001, nms=None)
    )
    assert cfg.tta_model.tta_cfg.max_per_img == 100


def test_settings_of_the_test_change_ours_and_a_model_of_theirs_is_replaced():
    ours = sniper_version(stock_config(tta_model=dict(tta_cfg=dict(max_per_img=9)))).tta_model
    assert (ours.type, ours.tta_cfg.max_per_img) == ('SNIPERTTAModel', 9)
    assert ours.tta_cfg.nms.type == 'soft_nms'
    named = dict(type='SNIPERTTAModel', tta_cfg=dict(max_per_img=9))
    assert sniper_version(stock_config(tta_model=named)).tta_model.tta_cfg.max_per_img == 9


@pytest.mark.parametrize(('theirs', 'merged'), [(9, 100), (100, 100), (500, 500)])
def test_of_a_stock_tta_model_only_a_higher_number_of_detections_is_kept(theirs, merged):
    """RetinaNet's config has one: --cfg-options tta_model.tta_cfg.max_per_img=500 must do."""
    nms = dict(type='nms', iou_threshold=0.5)
    stock = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=theirs))
    found = sniper_version(stock_config(tta_model=stock)).tta_model
    assert (found.type, found.tta_cfg.nms.type) == ('SNIPERTTAModel', 'soft_nms')
    assert found.tta_cfg.max_per_img == merged


def test_scopes_classes_and_lists_of_heads_are_understood():
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
    found = sniper_version(cfg)
    assert found.model.roi_head == plain.model.roi_head
    assert found.model.train_cfg == plain.model.train_cfg
    assert found.train_dataloader.dataset.pipeline == plain.train_dataloader.dataset.pipeline
    assert found.default_scope == 'mmdet'
    cfg = stock_config()
    cfg.model.roi_head = [dict(type='StandardRoIHead'), dict(type='mmdet.CascadeRoIHead')]
    heads = sniper_version(cfg).model.roi_head
    assert [head.type for head in heads] == ['SNIPERRoIHead', 'SNIPERCascadeRoIHead']


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


def test_images_are_loaded_at_test_time_as_the_test_pipeline_loads_them():
    loading = dict(type='LoadImageFromFile', color_type='unchanged')
    cfg = stock_config()
    cfg.test_dataloader.dataset.pipeline[0] = loading
    assert sniper_version(cfg).tta_pipeline[0] == loading


# AutoFocus ---------------------------------------------------------------------------------------


def autofocus_config(neck=True, **options):
    cfg = stock_config()
    if neck:
        cfg.model.neck = dict(type='FPN', out_channels=64)
    cfg.test_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'])
    cfg.sniper.autofocus = options
    return cfg


def test_with_autofocus_the_sniper_version_of_the_detector_is_tested_coarse_to_fine():
    plain, cfg = sniper_version(stock_config()), sniper_version(autofocus_config(edge=4))
    assert cfg.model.type == 'AutoFocus'
    assert cfg.model.detector.roi_head == plain.model.roi_head
    assert cfg.model.pyramid == PYRAMID
    assert cfg.model.focus_head == dict(type='PyramidFocusHead', in_channels=64, pyramid=PYRAMID)
    assert cfg.model.tta_cfg == plain.tta_model.tta_cfg
    assert cfg.model.view_test_cfg == plain.tta_model.view_test_cfg
    assert cfg.model.edge == 4
    pipeline = cfg.test_dataloader.dataset.pipeline
    assert [one.type for one in pipeline] == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'PackDetInputs',
    ]
    assert 'scale_factor' not in pipeline[-1].meta_keys
    assert cfg.test_evaluator.metric == ['bbox']
    assert cfg.train_dataloader == plain.train_dataloader


def test_without_a_test_there_is_nothing_to_see_coarse_to_fine():
    cfg = autofocus_config()
    cfg.test_dataloader = cfg.test_evaluator = None
    assert sniper_version(cfg).model.type == 'AutoFocus'


def test_validation_stays_at_one_scale_also_where_its_loader_is_that_of_the_test():
    cfg = autofocus_config()
    cfg.val_dataloader = cfg.test_dataloader
    found = sniper_version(cfg)
    assert 'Resize' in [type_name(step) for step in found.val_dataloader.dataset.pipeline]
    assert 'Resize' not in [type_name(step) for step in found.test_dataloader.dataset.pipeline]


def test_settings_of_an_autofocus_can_be_given_to_the_model():
    """As --cfg-options model.thresholds=0.1 does, also with a config that is dumped."""
    cfg = autofocus_config(thresholds=0.5, edge=4)
    cfg.model.update(thresholds=0.1, tta_cfg=dict(max_per_img=7))
    model = sniper_version(cfg).model
    assert (model.thresholds, model.edge) == (0.1, 4)
    assert (model.tta_cfg.max_per_img, model.tta_cfg.nms.type) == (7, 'soft_nms')
    assert 'thresholds' not in model.detector


def test_the_full_pyramid_of_an_autofocus_is_around_all_of_it():
    """As the tools' --tta makes it: weights keep their names."""
    cfg = autofocus_config()
    cfg.model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=100), module=cfg.model)
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
    assert sniper_version(autofocus_config(focus_head=None)).model.focus_head is None


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
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sniper_version(stock_config(sniper=options))


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


# With MMDetection's own tools --------------------------------------------------------------------


def test_the_runner_is_built_from_the_sniper_version(monkeypatch):
    seen = []
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: seen.append(cfg)))
    RUNNERS.build(stock_config())
    assert seen[0].train_dataloader.sampler.type == 'ChipAwareSampler'


@pytest.fixture(scope='module')
def toy_config(tmp_path_factory):
    """A stock-style config with our mixin, on five toy scenes."""
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
        f"work_dir = '{folder}/run'\n"
    )
    return file


@pytest.mark.parametrize('tools', [STOCK_TOOLS, ROOT / 'tools'], ids=['mmdet', 'ours'])
def test_a_mixed_config_trains_and_tests_with_mmdetections_tools_and_ours(
    toy_config, tools, tmp_path
):
    if not (tools / 'train.py').exists():
        pytest.skip('this MMDetection was installed without its tools')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}

    def run(*command):
        done = subprocess.run(
            [sys.executable, *map(str, command), '--work-dir', str(tmp_path)],
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    output = run(tools / 'train.py', toy_config)
    assert 'SNIPER version of FasterRCNN' in output
    assert (tmp_path / 'negative_chips.npz').exists()
    dumped = load_config(tmp_path / 'mine.py')
    assert dumped.train_dataloader.dataset.type == 'ChipDataset'
    assert 'bbox_mAP' in run(tools / 'test.py', toy_config, tmp_path / 'epoch_2.pth', '--tta')
