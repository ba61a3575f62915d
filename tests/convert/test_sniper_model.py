"""Heads and assigners of a stock detector are exchanged for those that know valid ranges."""

import re
from copy import deepcopy
from pathlib import Path

import mmdet
import pytest
from mmdet.models.roi_heads import SCNetRoIHead, StandardRoIHead
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict

from mmsniper.convert import sniper_version
from mmsniper.convert.inference import see_all_levels
from mmsniper.convert.model import (
    ASSIGNERS,
    DENSE_HEADS,
    IGNORING_HEADS,
    MMROTATES_ASSIGNERS,
    MMROTATES_HEADS,
    ROI_HEADS,
    check_kind,
    has_rpn,
    range_aware,
    sample_by_area,
    sniper_model,
)
from mmsniper.models import SNIPERRoIMixin

PYRAMID = dict(chip_size=256, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'


def one_stage(head, **train_cfg):
    return ConfigDict(
        type='SomeDetector',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        bbox_head=dict(type=head),
        train_cfg=train_cfg,
    )


def two_stage(rpn='RPNHead', roi='StandardRoIHead', **preprocessor):
    return ConfigDict(
        type='FasterRCNN',
        data_preprocessor=dict(type='DetDataPreprocessor', **preprocessor),
        rpn_head=dict(type=rpn),
        roi_head=dict(type=roi),
        train_cfg=dict(
            rpn=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7)),
            rcnn=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5)),
        ),
    )


@pytest.mark.parametrize(
    ('stock', 'ours'),
    [
        ('StandardRoIHead', dict(type='SNIPERRoIHead')),
        ('mmdet.CascadeRoIHead', dict(type='SNIPERRoIHead', head='mmdet.CascadeRoIHead')),
        (SCNetRoIHead, dict(type='SNIPERRoIHead', head=SCNetRoIHead)),
        ('SNIPERRoIHead', dict(type='SNIPERRoIHead')),
    ],
)
def test_two_stage_detectors_get_the_rpn_rule_and_the_rcnn_rule(stock, ours):
    detector = two_stage(roi=stock)
    sniper_model(detector, PYRAMID)
    assert detector.roi_head == dict(ours, pyramid=PYRAMID)
    assert detector.rpn_head == dict(type='RPNHead')
    assert detector.train_cfg.rpn.assigner == dict(type='ValidRangeAssigner', pos_iou_thr=0.7)
    # The RoI head judges proposals by their size, whatever assigns them.
    assert detector.train_cfg.rcnn.assigner.type == 'MaxIoUAssigner'


@MODELS.register_module()
class MyRoIHead(StandardRoIHead):
    pass


@MODELS.register_module()
class MySNIPERRoIHead(SNIPERRoIMixin, StandardRoIHead):
    pass


def test_roi_heads_of_ones_own_are_taken_by_their_names():
    notes, detector = [], two_stage(roi='MyRoIHead')
    sniper_model(detector, PYRAMID, notes=notes)
    assert detector.roi_head == dict(type='SNIPERRoIHead', head='MyRoIHead', pyramid=PYRAMID)
    assert 'SNIPERRoIHead (MyRoIHead)' in notes[0]
    detector = two_stage(roi='MySNIPERRoIHead')
    sniper_model(detector, PYRAMID)
    assert detector.roi_head == dict(type='MySNIPERRoIHead', pyramid=PYRAMID)


def test_a_head_converted_twice_is_the_head_converted_once():
    detector = two_stage(roi='HybridTaskCascadeRoIHead')
    sniper_model(detector, PYRAMID)
    once = deepcopy(detector.roi_head)
    sniper_model(detector, PYRAMID)
    assert detector.roi_head == once


def test_queries_are_neither_mined_with_nor_proposals():
    detector = two_stage(rpn='EmbeddingRPNHead', roi='SparseRoIHead')
    assert not has_rpn(detector)
    sniper_model(detector, PYRAMID)
    assert detector.roi_head == dict(type='SNIPERSparseRoIHead')
    assert detector.rpn_head == dict(type='EmbeddingRPNHead')


MASK2FORMER = 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'


def test_mask2former_for_instances_gets_a_head_and_keeps_its_assigner():
    cfg = Config.fromfile(STOCK / MASK2FORMER, import_custom_modules=False)
    assigner = deepcopy(cfg.model.train_cfg.assigner)
    cfg.pyramid, cfg.sniper = PYRAMID, dict()
    cfg = sniper_version(cfg)
    assert cfg.model.type == 'PyramidDetector'
    assert cfg.model.detector == 'Mask2Former'
    assert cfg.model.panoptic_head.type == 'SNIPERMask2FormerHead'
    assert cfg.model.train_cfg.assigner == assigner


def test_of_rtmdet_ins_the_masks_of_a_batch_get_one_shape():
    detector = one_stage('RTMDetInsSepBNHead', assigner=dict(type='DynamicSoftLabelAssigner'))
    sniper_model(detector, PYRAMID)
    assert detector.bbox_head.type == 'SNIPERRTMDetInsSepBNHead'
    assert detector.train_cfg.assigner.type == 'IgnoreInvalidAssigner'
    assert detector.data_preprocessor.pad_mask
    assert detector.data_preprocessor.batch_augments[0].pad_mask


def test_semantic_maps_get_the_shape_of_a_chip():
    detector = two_stage(pad_mask=True, pad_seg=True, seg_pad_value=9)
    sniper_model(detector, PYRAMID)
    (pad,) = detector.data_preprocessor.batch_augments
    assert pad == dict(
        type='BatchFixedSizePad', size=(256, 256), pad_mask=True, pad_seg=True, seg_pad_value=9
    )


@pytest.mark.parametrize('assigner', sorted(ASSIGNERS))
def test_assigners_are_wrapped(assigner):
    stock = dict(type=assigner, topk=9)
    detector = one_stage('ATSSHead', assigner=stock)
    sniper_model(detector, PYRAMID)
    assert detector.bbox_head.type == 'ATSSHead'
    assert detector.train_cfg.assigner == dict(type='IgnoreInvalidAssigner', assigner=stock)


def test_an_rpn_proposes_what_is_in_range_if_asked_to():
    detector = two_stage()
    sniper_model(detector, PYRAMID, range_first=True)
    assert detector.rpn_head == dict(type='SNIPERRPNHead', pyramid=PYRAMID)


@pytest.mark.parametrize(
    ('detector', 'has'),
    [(two_stage(rpn='FCOSHead'), 'a SNIPERFCOSHead'), (one_stage('RetinaHead'), 'no rpn_head')],
)
def test_range_first_is_for_an_rpn(detector, has):
    with pytest.raises(ValueError, match=f'range_first is for an RPNHead.* has {has}'):
        sniper_model(detector, PYRAMID, range_first=True)


def test_all_assigners_of_a_head_are_wrapped():
    """As in TOOD, which has one for the first epochs."""
    detector = one_stage(
        'TOODHead',
        initial_assigner=dict(type='ATSSAssigner', topk=9),
        assigner=dict(type='TaskAlignedAssigner', topk=13),
        alpha=1,
    )
    sniper_model(detector, PYRAMID)
    train = detector.train_cfg
    assert train.initial_assigner.type == train.assigner.type == 'IgnoreInvalidAssigner'
    assert train.alpha == 1


def test_assigners_of_several_stages_are_found():
    """As in RepPoints."""
    detector = one_stage(
        'RepPointsHead',
        init=dict(assigner=dict(type='PointAssigner')),
        refine=dict(assigner=dict(type='MaxIoUAssigner'), debug=False),
    )
    sniper_model(detector, PYRAMID)
    assert detector.train_cfg.init.assigner.type == 'IgnoreInvalidAssigner'
    assert detector.train_cfg.refine.assigner.type == 'ValidRangeAssigner'


def test_assigners_in_a_list_of_stages_are_found():
    """As in Cascade RPN, whose head is then refused by its name."""
    stages = [
        dict(assigner=dict(type='RegionAssigner')),
        dict(assigner=dict(type='MaxIoUAssigner')),
    ]
    detector = two_stage(rpn='CascadeRPNHead')
    detector.train_cfg.rpn = stages
    with pytest.raises(ValueError, match='no SNIPER version of CascadeRPNHead'):
        sniper_model(detector, PYRAMID)
    detector.rpn_head.type = 'RPNHead'
    detector.train_cfg.rpn = stages[1:] * 2
    sniper_model(detector, PYRAMID)
    found = [stage.assigner.type for stage in detector.train_cfg.rpn]
    assert found == ['ValidRangeAssigner'] * 2


def test_fcos_in_place_of_an_rpn_is_exchanged():
    detector = two_stage(rpn='FCOSHead')
    del detector.train_cfg['rpn']
    sniper_model(detector, PYRAMID)
    assert detector.rpn_head.type == 'SNIPERFCOSHead'


@pytest.mark.parametrize(('stock', 'ours'), DENSE_HEADS.items())
def test_heads_that_have_a_version_get_it(stock, ours):
    detector = one_stage(stock)
    sniper_model(detector, PYRAMID)
    assert detector.bbox_head.type == ours


def test_an_assigner_that_knows_ranges_stays():
    for kind in ('ValidRangeAssigner', 'IgnoreInvalidAssigner'):
        assert range_aware(ConfigDict(type=kind)) == dict(type=kind)


# In MMDetection's projects, of no package.
CO_DETRS_HEADS = {'CoATSSHead', 'CoDINOHead', 'CoStandardRoIHead'}


@pytest.mark.parametrize(
    'names',
    [
        ROI_HEADS.keys() - CO_DETRS_HEADS,
        ROI_HEADS.values(),
        DENSE_HEADS.keys() - CO_DETRS_HEADS,
        DENSE_HEADS.values(),
        IGNORING_HEADS - MMROTATES_HEADS,
    ],
)
def test_all_named_heads_exist(names):
    assert all(MODELS.get(name) for name in names)


def test_all_named_assigners_exist():
    assert all(TASK_UTILS.get(name) for name in ASSIGNERS - MMROTATES_ASSIGNERS)


def test_batches_have_the_shape_of_a_chip_and_masks_follow():
    detector = two_stage(pad_mask=True, pad_size_divisor=1, batch_augments=[dict(type='Other')])
    sniper_model(detector, PYRAMID)
    found = detector.data_preprocessor
    assert found.batch_augments == [dict(type='BatchFixedSizePad', size=(256, 256), pad_mask=True)]
    assert found.pad_size_divisor == 32


def test_batches_of_whole_images_are_padded_for_necks_and_keep_their_scales():
    """As of SNIP with RTMDet, whose neck adds up maps, and with YOLOX, which resizes batches."""
    resize = dict(type='BatchSyncRandomResize', random_size_range=(480, 800))
    for changes in ({}, dict(batch_augments=None), dict(batch_augments=[resize])):
        given = dict(type='DetDataPreprocessor', mean=[0.0], **changes)
        detector = ConfigDict(
            type='RetinaNet', bbox_head=dict(type='RetinaHead'), data_preprocessor=given
        )
        notes = []
        sniper_model(detector, PYRAMID, whole_images=True, notes=notes)
        assert detector.data_preprocessor == dict(
            type='DetDataPreprocessor', mean=[0.0], pad_size_divisor=32
        )
        said = 'batches without BatchSyncRandomResize: their scales are those of the pyramid'
        assert (said in notes) == bool(changes.get('batch_augments'))


def test_a_larger_divisor_stays():
    detector = two_stage(pad_size_divisor=64)
    sniper_model(detector, PYRAMID)
    assert detector.data_preprocessor.pad_size_divisor == 64


# What has no version is refused by name ----------------------------------------------------------


@pytest.mark.parametrize(
    ('detector', 'message'),
    [
        (one_stage('YOLOV3Head'), 'no SNIPER version of YOLOV3Head.*RetinaHead'),
        (two_stage(roi='MultiInstanceRoIHead'), 'of MultiInstanceRoIHead: it gives two .*Mixin'),
        (two_stage(roi='NoSuchHead'), 'of NoSuchHead: it is not registered; custom_imports'),
        (
            one_stage('RetinaHead', assigner=dict(type='Mine')),
            "of Mine; .*dict.type='IgnoreInvalid",
        ),
        (ConfigDict(type='Mine', my_head=dict()), 'Mine has no bbox_head'),
        (
            ConfigDict(
                two_stage(rpn='CascadeRPNHead'), train_cfg=dict(rpn=[dict(assigner=dict())])
            ),
            'no SNIPER version of CascadeRPNHead',
        ),
        (ConfigDict(one_stage('RetinaHead'), data_preprocessor=None), 'has no data_preprocessor'),
    ],
)
def test_what_has_no_version_is_refused(detector, message):
    with pytest.raises(ValueError, match=message):
        sniper_model(detector, PYRAMID)


CO_DETR = dict(
    type='CoDETR',
    query_head=dict(type='CoDINOHead'),
    rpn_head=dict(type='RPNHead'),
    roi_head=[dict(type='CoStandardRoIHead')],
    bbox_head=[dict(type='CoATSSHead')],
    train_cfg=[
        dict(assigner=dict(type='HungarianAssigner')),
        dict(
            rpn=dict(assigner=dict(type='MaxIoUAssigner')),
            rpn_proposal=dict(nms_pre=4000, max_per_img=1000),
            rcnn=dict(assigner=dict(type='MaxIoUAssigner'), sampler=dict(num=512)),
        ),
        dict(assigner=dict(type='ATSSAssigner', topk=9)),
    ],
    test_cfg=[
        dict(max_per_img=300),
        dict(rpn=dict(max_per_img=1000), rcnn=dict(max_per_img=200, score_thr=0.05)),
        dict(max_per_img=100),
    ],
    data_preprocessor=dict(type='DetDataPreprocessor'),
)
SEVERAL = dict(type='Mine', rpn_head=dict(type='RPNHead'), roi_head=[dict(), dict()])


@pytest.mark.parametrize(
    ('detector', 'message'),
    [
        (SEVERAL, 'Mine, whose roi_head is a list of 2'),
        (dict(type='Mine', bbox_head=[dict()]), 'Mine, whose bbox_head is a list of 1'),
        (dict(type='Mine', bbox_head=dict(), train_cfg=[dict()]), 'Mine, whose train_cfg is a l'),
        (dict(type='Mine', detector=dict(type='RetinaNet')), 'Mine, which has a detector: it w'),
    ],
)
def test_models_of_other_kinds_are_refused_by_name_with_the_reason(detector, message):
    with pytest.raises(ValueError, match=f'no SNIPER version of {message}.*Not supported'):
        check_kind(ConfigDict(detector))


@pytest.fixture
def co_detr():
    """Of MMDetection's projects, whose classes need not be known to exchange them."""
    return ConfigDict(deepcopy(CO_DETR))


def test_all_heads_of_co_detr_are_exchanged(co_detr):
    sniper_model(co_detr, PYRAMID, range_first=True)
    assert co_detr.query_head.type == 'SNIPERCoDINOHead'
    assert co_detr.rpn_head.type == 'SNIPERRPNHead'
    assert co_detr.roi_head == [dict(type='SNIPERCoRoIHead', pyramid=PYRAMID)]
    assert co_detr.bbox_head == [dict(type='SNIPERCoATSSHead')]
    queries, rcnn, atss = co_detr.train_cfg
    assert queries.assigner.type == atss.assigner.type == 'IgnoreInvalidAssigner'
    assert rcnn.rpn.assigner.type == 'ValidRangeAssigner'
    assert rcnn.rcnn.assigner.type == 'MaxIoUAssigner'
    assert has_rpn(co_detr)
    once = deepcopy(co_detr)
    sniper_model(co_detr, PYRAMID)
    assert co_detr == once


def test_samples_of_co_detr_go_by_area(co_detr):
    notes = []
    sample_by_area(co_detr, 0.25, notes)
    assert co_detr.train_cfg[1].rpn_proposal == dict(nms_pre=1000, max_per_img=250)
    assert co_detr.train_cfg[1].rcnn.sampler.num == 128
    assert 'proposals 250 instead of 1000' in notes[0]


@pytest.mark.parametrize(
    ('module', 'said'),
    [
        (None, 'max_per_img=300 '),
        ('one-stage', 'max_per_img=100 '),
        ('two-stage', r'max_per_img=200 .*model.test_cfg.1.rcnn.score_thr=0.05 does not count'),
    ],
)
def test_how_boxes_of_co_detr_are_merged_goes_by_the_head_that_gives_them(co_detr, module, said):
    if module:
        co_detr.eval_module = module
    notes = []
    see_all_levels(co_detr, PYRAMID, notes=notes)
    assert (co_detr.type, co_detr.detector) == ('PyramidDetector', 'CoDETR')
    assert re.search(said, notes[0])


def test_the_detector_of_a_pyramid_detector_is_its_type():
    check_kind(ConfigDict(type='PyramidDetector', detector='RetinaNet', bbox_head=dict()))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval', 'vid'),
        ('fast_rcnn/fast-rcnn_r50_fpn_1x_coco', 'its proposals are made beforehand'),
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic', 'segments whole images'),
        ('misc/d2_faster-rcnn_r50-caffe_fpn_ms-90k_coco', 'it wraps a detector'),
        ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco', 'segments whole images'),
        ('qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval', 'videos'),
        ('reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20', 'images or crops as a whole'),
        ('soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco', 'semi-superv'),
        ('solov2/solov2_r50_fpn_1x_coco', 'makes masks without a roi_head'),
    ],
)
def test_stock_configs_of_other_kinds_are_refused_for_what_they_are(config, message):
    """Not for what their data or their training lack as well."""
    cfg = Config.fromfile(STOCK / f'{config}.py', import_custom_modules=False)
    cfg.pyramid, cfg.sniper = PYRAMID, dict()
    with pytest.raises(ValueError, match=f'no SNIPER version of {cfg.model.type}, .*{message}'):
        sniper_version(cfg)


# All stock configs of a family -------------------------------------------------------------------


@pytest.mark.parametrize(
    'family',
    [
        'faster_rcnn',
        'mask_rcnn',
        'cascade_rcnn',
        'retinanet',
        'fcos',
        'atss',
        'deformable_detr',
        'detectors',
        'dino',
        'htc',
        'ms_rcnn',
        'scnet',
        'sparse_rcnn',
        'queryinst',
        'rtmdet',
        'dcn',
        'ddq',
        'reppoints',
        'tood',
        'gfl',
        'yolof',
        'yolox',
        'vfnet',
        'paa',
        'foveabox',
        'ld',
        'detr',
    ],
)
def test_every_stock_config_of_a_family_has_a_sniper_version(family):
    tried = 0
    for file in sorted((STOCK / family).glob('*.py')):
        cfg = Config.fromfile(file, import_custom_modules=False)
        model = cfg.get('model', {})
        if not model or 'RTMDetIns' in str(model):  # instance segmentation
            continue
        cfg.pyramid = PYRAMID
        cfg.sniper = dict()
        found = sniper_version(cfg)
        assert 'ChipSampler' in str(found.train_dataloader.dataset), file.name
        tried += 1
    assert tried >= 2


def test_a_detector_by_text_has_its_words_in_every_test():
    cfg = Config.fromfile(STOCK / 'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py')
    cfg.pyramid, cfg.sniper = PYRAMID, dict()
    cfg.model.test_cfg.chunked_size = 40
    found = sniper_version(cfg)
    assert found.model.type == 'PyramidDetector'
    assert found.model.detector == 'SNIPERGroundingDINO'
    assert found.model.bbox_head.type == 'SNIPERGroundingDINOHead'
    assert found.model.batch_pixels == 1
    for loader in (found.val_dataloader, found.test_dataloader):
        keys = loader.dataset.pipeline[-1].meta_keys
        assert {'text', 'custom_entities'} < set(keys)
        assert 'scale_factor' not in keys


def test_captions_are_refused_and_names_of_classes_are_not():
    def version(name):
        cfg = Config.fromfile(STOCK / f'mm_grounding_dino/{name}.py')
        cfg.pyramid, cfg.sniper = PYRAMID, dict()
        return sniper_version(cfg)

    concat = version('grounding_dino_swin-t_pretrain_obj365').train_dataloader.dataset
    steps = concat.datasets[0].pipeline
    assert [step.type for step in steps[2:4]] == ['ChipSampler', 'ScaleRangeFilter']
    assert 'RandomSamplingNegPos' in [step.type for step in steps]
    with pytest.raises(ValueError, match='ODVGDataset without a label_map_file.*about a whole im'):
        version('refcoco/grounding_dino_swin-t_finetune_8xb4_5e_refcoco')


# Samples by area ---------------------------------------------------------------------------------


def sampling(rpn=256, rois=512, proposals=1000):
    """A two-stage detector with an image's numbers of samples and proposals."""
    detector = two_stage()
    detector.train_cfg.rpn.sampler = dict(type='RandomSampler', num=rpn)
    detector.train_cfg.rcnn.sampler = dict(type='RandomSampler', num=rois)
    detector.train_cfg.rpn_proposal = dict(nms_pre=2 * proposals, max_per_img=proposals)
    return detector


def numbers(detector):
    train = detector.train_cfg
    return (
        train.rpn.sampler.num,
        train.rpn_proposal.nms_pre,
        train.rpn_proposal.max_per_img,
        train.rcnn.sampler.num,
    )


@pytest.mark.parametrize(
    ('given', 'share', 'expected'),
    [
        ((256, 512, 1000), 0.25, (256, 500, 250, 128)),
        ((256, 512, 1000), 0.0781, (256, 156, 78, 40)),
        ((256, 512, 1000), 0.01, (256, 50, 50, 32)),  # 50 and 32 at least
        ((16, 24, 40), 0.5, (16, 50, 40, 24)),  # and not more than there were
        ((256, 512, 1000), 2.0, (256, 4000, 2000, 1024)),
    ],
)
def test_a_chip_gets_its_areas_share_of_samples_and_proposals(given, share, expected):
    detector, notes = sampling(*given), []
    sample_by_area(detector, share, notes)
    assert numbers(detector) == expected
    [note] = notes
    assert f'has {share:.3g} of the pixels of an image' in note
    assert f'RoI samples {expected[3]} instead of {given[1]}' in note
    assert 'RPN samples' not in note  # they cost no time


def test_every_stage_of_a_cascade_samples_by_area_and_all_stays_all():
    detector = sampling(rpn=-1)
    stage = dict(sampler=dict(type='RandomSampler', num=512))
    detector.train_cfg.rcnn = [ConfigDict(stage), ConfigDict(stage)]
    notes = []
    sample_by_area(detector, 0.25, notes)
    assert [part.sampler.num for part in detector.train_cfg.rcnn] == [128, 128]
    assert detector.train_cfg.rpn.sampler.num == -1
    assert notes[0].count('RoI samples 128 instead of 512') == 1
    assert 'RPN samples' not in notes[0]


def test_without_samples_there_is_nothing_to_share():
    detector, notes = one_stage('RetinaHead', assigner=dict(type='MaxIoUAssigner')), []
    sample_by_area(detector, 0.25, notes)
    assert notes == ['no samples by area: SomeDetector samples no proposals']
