"""What the fragment sees to is not forgotten in a pipeline and a model by hand."""

from copy import deepcopy
from pathlib import Path

import mmdet
import pytest
from checks.toy_config import coco, config, write
from mmdet.datasets.transforms import RandomAffine
from mmdet.models.dense_heads import AnchorHead, DETRHead
from mmdet.models.detectors import GroundingDINO
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmrotate_ready import NO_MMROTATE, lacks_mmrotate

from mmsniper.checks import ERROR, NOTE, WARNING
from mmsniper.checks.by_hand import check_by_hand
from mmsniper.checks.run import TESTING, TRAINING, check_run
from mmsniper.convert import load_config
from mmsniper.convert.model import unaware_pieces
from mmsniper.models import SNIPERSetPredictionMixin

ROOT = Path(__file__).resolve().parents[2]
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
PYRAMID = dict(chip_size=256, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
LOADING = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
CUT = dict(type='ChipSampler', pyramid=PYRAMID)
FILTER = dict(type='ScaleRangeFilter', pyramid=PYRAMID)
PIPELINE = [*LOADING, CUT, FILTER, dict(type='PackDetInputs')]
WHERE = 'train_dataloader.dataset.pipeline'


def by_hand(model=None, pipeline=PIPELINE, wrappers=()):
    """A config with our transforms in the pipeline of a stock data set."""
    dataset = dict(type='CocoDataset', pipeline=pipeline)
    for wrapper in wrappers:
        dataset = wrapper(dataset)
    return Config(deepcopy(dict(model=model or {}, train_dataloader=dict(dataset=dataset))))


def stock_model(name):
    return Config.fromfile(STOCK / f'{name}.py', import_custom_modules=False).model


def told(cfg):
    return [(f.severity, f.where, f.what, f.fix) for f in check_by_hand(cfg)]


def one_stage(head, assigner='MaxIoUAssigner', **options):
    return dict(
        type='RetinaNet',
        bbox_head=dict(type=head),
        train_cfg=dict(assigner=dict(type=assigner, **options)),
    )


# The model ---------------------------------------------------------------------------------------


def test_a_stock_assigner_and_a_stock_roi_head_are_named_with_what_takes_their_place():
    assigner, head = told(by_hand(stock_model('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco')))
    objects = f'objects of the wrong size, which ScaleRangeFilter marks ({WHERE}),'
    fragment = 'or inherit configs/_base_/sniper.py, which does so'
    assert assigner == (
        WARNING,
        'model.train_cfg.rpn.assigner',
        f'is a MaxIoUAssigner: {objects} are background to it',
        f"Write dict(type='ValidRangeAssigner', ...), {fragment}",
    )
    assert head == (
        WARNING,
        'model.roi_head',
        f'is a CascadeRoIHead: {objects} are background to it',
        f"Write dict(type='SNIPERRoIHead', head='CascadeRoIHead', pyramid=pyramid, ...), "
        f'{fragment}',
    )


@pytest.mark.parametrize(
    ('name', 'pieces'),
    [
        ('retinanet/retinanet_r50_fpn_1x_coco', ["ValidRangeAssigner', ..."]),
        (
            'atss/atss_r50_fpn_1x_coco',
            ["IgnoreInvalidAssigner', assigner=dict(type='ATSSAssigner', ...)"],
        ),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', ["SNIPERFCOSHead', ..."]),
        ('yolox/yolox_s_8xb8-300e_coco', ["SNIPERYOLOXHead', ..."]),
        (
            'dino/dino-4scale_r50_8xb2-12e_coco',
            [
                "SNIPERDINOHead', ...",
                "IgnoreInvalidAssigner', assigner=dict(type='HungarianAssigner', ...)",
            ],
        ),
        ('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco', ["SNIPERSparseRoIHead', ..."]),
    ],
)
def test_pieces_of_each_family_are_found_until_they_are_exchanged(name, pieces):
    cfg = by_hand(stock_model(name))
    found = [fix for severity, _, _, fix in told(cfg) if severity == WARNING]
    assert [fix.split(', or inherit')[0] for fix in found] == [
        f"Write dict(type='{piece})" for piece in pieces
    ]
    for piece in unaware_pieces(cfg.model):
        *path, key = piece.path.split('.')
        parent = cfg.model
        for part in path:
            parent = parent[part]
        parent[key] = piece.version
    assert told(cfg) == []


def test_the_detector_inside_a_pyramid_detector_is_looked_at():
    model = stock_model('retinanet/retinanet_r50_fpn_1x_coco')
    model.update(type='PyramidDetector', detector='RetinaNet')
    assert [where for _, where, *_ in told(by_hand(model))] == ['model.train_cfg.assigner']


def test_without_the_filter_nothing_is_of_the_wrong_size():
    cfg = by_hand(one_stage('RetinaHead'), [*LOADING, dict(type='PackDetInputs')])
    assert told(cfg) == []


def test_a_stock_head_without_a_version_is_a_warning_that_says_why():
    [note] = told(by_hand(one_stage('YOLOV3Head', 'IgnoreInvalidAssigner')))
    assert note[:2] == (NOTE, 'model.bbox_head')  # for which a wrapped assigner may be enough
    warning, assigner = told(by_hand(one_stage('YOLOV3Head')))
    assert warning[:2] == (WARNING, 'model.bbox_head')
    assert warning[3].startswith('There is no SNIPER version of YOLOV3Head; there is one of')
    assert assigner[:2] == (WARNING, 'model.train_cfg.assigner')
    [warning] = told(by_hand(stock_model('solov2/solov2_r50_fpn_1x_coco')))
    assert warning[:2] == (WARNING, 'model')
    assert 'makes masks without a roi_head' in warning[3]


@MODELS.register_module()
class TheirHead(AnchorHead):
    pass


@MODELS.register_module()
class TheirRoIHead(StandardRoIHead):
    pass


@MODELS.register_module()
class TheirSNIPERHead(SNIPERSetPredictionMixin, DETRHead):
    pass


@MODELS.register_module()
class TheirGroundingDINO(GroundingDINO):
    pass


def test_of_a_detector_that_derives_from_one_with_a_version_it_is_said_how_to_make_its():
    model = one_stage('SNIPERGroundingDINOHead', 'IgnoreInvalidAssigner')
    for kind in ('GroundingDINO', 'TheirGroundingDINO'):
        [found] = told(by_hand(dict(model, type=kind)))
        assert found[1] == 'model'
    assert 'SNIPERTheirGroundingDINO(SNIPERGroundingDINO, TheirGroundingDINO)' in str(found)


def test_of_heads_of_others_one_line_says_that_it_is_not_known():
    [note] = told(by_hand(one_stage('TheirHead', 'ValidRangeAssigner')))
    assert note[:2] == (NOTE, 'model.bbox_head')
    assert note[2].startswith('is a TheirHead: mmsniper cannot tell whether objects of the wrong')
    model = dict(
        type='FasterRCNN', rpn_head=dict(type='RPNHead'), roi_head=dict(type='TheirRoIHead')
    )
    assert [note[:2] for note in told(by_hand(model))] == [(NOTE, 'model.roi_head')]


def test_heads_that_derive_from_ours_and_stock_rules_for_ignored_objects_are_no_warning():
    assert told(by_hand(one_stage('TheirSNIPERHead', 'IgnoreInvalidAssigner'))) == []
    [note] = told(by_hand(one_stage('RetinaHead', ignore_iof_thr=0.5)))
    assert note[:2] == (NOTE, 'model.train_cfg.assigner')


CONVERTED = sorted(
    file
    for folder in ('sniper', 'autofocus', 'snip', 'ablations')
    for file in (ROOT / 'configs' / folder).glob('*.py')
)


@pytest.mark.parametrize('file', CONVERTED, ids=lambda file: file.stem)
def test_what_was_converted_or_spelled_out_has_no_findings(file):
    if lacks_mmrotate(file):
        pytest.skip(NO_MMROTATE)
    assert told(load_config(file)) == []


# The pipeline ------------------------------------------------------------------------------------


@TRANSFORMS.register_module()
class TheirAffine(RandomAffine):
    pass


@pytest.mark.parametrize(
    ('steps', 'named'),
    [
        ([dict(type='Resize', scale=(640, 640))], 'Resize'),
        ([dict(type='mmdet.RandomAffine'), dict(type='Mosaic')], 'RandomAffine, Mosaic'),
        ([dict(type=RandomAffine)], 'RandomAffine'),
        ([dict(type='TheirAffine')], 'TheirAffine'),
        ([dict(type='RandomChoice', transforms=[[dict(type='Resize')], []])], 'Resize'),
        ([dict(type='Albu', transforms=[dict(type='RandomScale')])], 'RandomScale'),
    ],
)
def test_what_changes_the_scale_of_chips_is_an_error_with_a_stock_data_set(steps, named):
    [(severity, where, what, _)] = told(by_hand(pipeline=[*PIPELINE[:-1], *steps, PIPELINE[-1]]))
    assert (severity, where) == (ERROR, WHERE)
    assert what.startswith(f'{named} after ChipSampler would change the scale of chips')


def test_what_keeps_the_scale_or_comes_before_the_cut_is_no_error():
    keep = [
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomAffine', scaling_ratio_range=(1, 1)),
        dict(type='Albu', transforms=[dict(type='ShiftScaleRotate', scale_limit=0.0)]),
        dict(type='NobodysTransform'),
    ]
    before = [*LOADING, dict(type='Resize', scale=(640, 640))]
    assert told(by_hand(pipeline=[*before, CUT, FILTER, *keep])) == []


def test_a_wrapper_that_mixes_chips_is_found_where_they_are_cut():
    def mixed(dataset):
        return dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[dict(type='Mosaic')])

    def repeated(dataset):
        stock = dict(type='CocoDataset', pipeline=[dict(type='Resize', scale=(640, 640))])
        return dict(type='ConcatDataset', datasets=[stock, dataset])

    [(severity, where, what, _)] = told(by_hand(wrappers=[repeated, mixed]))
    assert (severity, where) == (ERROR, 'train_dataloader.dataset.dataset.datasets[1].pipeline')
    assert what.startswith('Mosaic after ChipSampler')


def test_chips_without_the_filter_are_a_warning():
    [(severity, where, what, fix)] = told(by_hand(pipeline=[*LOADING, CUT]))
    assert (severity, where) == (WARNING, WHERE)
    assert what.startswith('has no ScaleRangeFilter')
    assert fix == "Put dict(type='ScaleRangeFilter', pyramid=pyramid) after ChipSampler"


# All of it ---------------------------------------------------------------------------------------


def test_it_is_among_the_checks_of_a_training_and_not_of_a_test(tmp_path):
    write(coco(), tmp_path / 'train.json')
    write(coco(), tmp_path / 'val.json')
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.pipeline = PIPELINE
    cfg.model.roi_head.type, cfg.model.rpn_head.type = 'StandardRoIHead', 'SNIPERRPNHead'
    named = [finding.where for finding in check_run(cfg, TRAINING)]
    assert named.count('model.roi_head') == 1
    assert 'model.roi_head' not in [finding.where for finding in check_run(cfg, TESTING)]
