"""What a config says of its classes in several places: refused where it differs, never else."""

from pathlib import Path

import mmdet
import pytest
from checks.toy_config import NAMES, coco, config, write
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmsniper.checks import ERROR, NOTE, WARNING, Finding, merged, refuse_errors
from mmsniper.checks.classes import model_heads
from mmsniper.checks.config import (
    as_tuple,
    check_channels,
    check_config,
    config_classes,
    config_heads,
    leaves,
    model_channels,
)
from mmsniper.checks.run import TRAINING, check_pretrained, check_run, refuse_wrong
from mmsniper.checks.scales import check_ranges, check_scales
from mmsniper.convert import load_config, sniper_version

ROOT = Path(__file__).resolve().parents[2]
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'

register_all_modules()


def errors(cfg):
    return [str(finding) for finding in check_config(cfg) if finding.severity == ERROR]


def test_a_config_that_agrees_with_itself_has_no_findings(tmp_path):
    assert check_config(config(tmp_path)) == []


def test_a_program_for_curves_that_is_not_installed_is_named_before_the_training(
    tmp_path, monkeypatch
):
    cfg = config(tmp_path)
    cfg.visualizer = dict(
        vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    )
    monkeypatch.setattr('mmsniper.checks.config.find_spec', lambda name: None)
    [error] = errors(cfg)
    assert error == (
        'visualizer.vis_backends: TensorboardVisBackend needs tensorboard, which is not installed. '
        'pip install tensorboard, or take the backend out'
    )
    monkeypatch.setattr('mmsniper.checks.config.find_spec', lambda name: name)
    assert errors(cfg) == []


@pytest.mark.parametrize('count', [2, 80])
def test_heads_of_another_number_of_classes_are_named(tmp_path, count):
    [error] = errors(config(tmp_path, num_classes=count))
    assert error.startswith('model.roi_head.bbox_head.num_classes: ')
    assert f'is {count} (Shared2FCBBoxHead)' in error
    assert 'has 3 classes' in error
    assert ("'square' would be taught as background" in error) == (count == 2)


def test_every_head_is_looked_at_but_those_of_other_classes():
    model = dict(
        backbone=dict(num_classes=1000),
        rpn_head=dict(type='RPNHead', num_classes=1),
        roi_head=dict(
            bbox_head=[dict(type='A', num_classes=3), dict(type='B', num_classes=4)],
            mask_head=dict(type='C', num_classes=5),
            semantic_head=dict(num_classes=183),
        ),
        bbox_head=dict(type='D', num_classes=6, loss_cls=dict(type='SeesawLoss', num_classes=7)),
    )
    assert [(h.kind, h.num_classes) for h in config_heads(model)] == [
        ('A', 3),
        ('B', 4),
        ('C', 5),
        ('D', 6),
        ('SeesawLoss', 7),
    ]


def test_without_metainfo_the_classes_are_those_of_mmdetections_data_set(tmp_path):
    cfg = config(tmp_path)
    del cfg.train_dataloader.dataset.metainfo
    messages = errors(cfg)
    assert 'has 80 classes' in messages[0]
    assert 'as its metainfo names none' in messages[0]


@pytest.mark.parametrize(
    ('classes', 'said'),
    [
        ('disc', "A tuple of one name has a comma: classes=('disc',)"),
        (('disc', 'disc', 'ring'), "names 'disc' more than once"),
        ((1, 2, 3), 'must be a tuple of names'),
        ((), 'must be a tuple of names'),
    ],
)
def test_names_that_are_none_are_told_with_what_to_write(tmp_path, classes, said):
    messages = errors(config(tmp_path, classes=classes))
    assert len(messages) == 3  # train, val, test
    assert all(said in message for message in messages)


def test_a_file_of_names_is_a_way_to_give_them(tmp_path):
    (tmp_path / 'names.txt').write_text('disc\nring\nsquare\n')
    assert check_config(config(tmp_path, classes=str(tmp_path / 'names.txt'))) == []
    assert (
        'has 3 classes' in errors(config(tmp_path, str(tmp_path / 'names.txt'), num_classes=4))[0]
    )


@pytest.mark.parametrize(
    ('metainfo', 'said'),
    [
        (dict(CLASSES=NAMES), 'has CLASSES, which MMDetection does not read'),
        (dict(class_names=NAMES), 'has class_names, which MMDetection does not read'),
        (NAMES, 'must be a dict, got'),
        (dict(classes=dict.fromkeys(NAMES)), 'must be a tuple of names, got'),
    ],
)
@pytest.mark.parametrize('kind', ['CocoDataset', 'XMLDataset', 'VOCDataset'])
def test_classes_that_are_not_read_are_one_error(tmp_path, metainfo, said, kind):
    cfg = config(tmp_path)
    for key in ('train_dataloader', 'val_dataloader'):
        cfg[key].dataset.type, cfg[key].dataset.metainfo = kind, metainfo
    for name in ('train.json', 'val.json'):
        write(coco(), tmp_path / name)
    with pytest.raises(ValueError, match=r'^train_dataloader.*, val_dataloader') as caught:
        refuse_wrong(cfg, TRAINING)
    assert said in str(caught.value)


def test_a_value_that_can_be_read_once_only_is_named(tmp_path):
    cfg = config(tmp_path)
    for values in ((name for name in NAMES), dict.fromkeys(NAMES).keys()):
        cfg._cfg_dict.train_dataloader.dataset.metainfo.classes = values
        with pytest.raises(ValueError, match=r'dataset\.metainfo\.classes in the config is a'):
            sniper_version(cfg)
    child = tmp_path / 'child.py'
    (tmp_path / 'base.py').write_text('a = 1')
    child.write_text("_base_ = 'base.py'\nclasses = (n for n in 'ab')")
    with pytest.raises(ValueError, match=r"child\.py: .* is a 'generator' object.*tuple"):
        load_config(child)


@pytest.mark.parametrize(
    ('val', 'said'),
    [
        (NAMES[::-1], 'in another order'),
        (('disc', 'ring', 'cube'), "names 'cube' the class that"),
        (NAMES[:2], 'has 2 classes'),
    ],
)
def test_data_sets_of_other_classes_than_the_training_are_refused(tmp_path, val, said):
    cfg = config(tmp_path)
    cfg.val_dataloader.dataset.metainfo.classes = val
    [error] = errors(cfg)
    assert said in error
    assert "metainfo=dict(classes=('disc', 'ring', 'square'))" in error


def test_places_below_wrappers_have_their_keys():
    inner = dict(type='CocoDataset')
    dataset = dict(
        type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner, inner])
    )
    assert [where for where, _ in leaves(dataset, 'd')] == [
        'd.dataset.datasets[0]',
        'd.dataset.datasets[1]',
    ]
    one = dict(type='ConcatDataset', datasets=[inner])
    assert [where for where, _ in leaves(one, 'd')] == ['d.datasets[0]']


# One of each family, and what a number of classes is written of elsewhere. All of MMDetection's
# 796 configs and ours were checked without a finding (November 2026).
@pytest.mark.parametrize(
    'path',
    [
        'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py',
        'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py',
        'htc/htc_r50_fpn_1x_coco.py',
        'lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
        'openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages.py',
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
        'pascal_voc/retinanet_r50_fpn_1x_voc0712.py',
        'rpn/rpn_r50_fpn_1x_coco.py',
        'rtmdet/rtmdet_s_8xb32-300e_coco.py',
        'seesaw_loss/cascade-mask-rcnn_r101_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
        'strongsort/strongsort_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py',
    ],
)
def test_stock_configs_raise_no_false_alarm(path):
    assert check_config(Config.fromfile(STOCK / path)) == []


def test_the_classes_of_a_mask2former_for_instances_are_its_things():
    cfg = Config.fromfile(STOCK / 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')
    assert check_config(cfg) == []
    cfg.model.panoptic_head.num_things_classes = 3
    (found,) = check_config(cfg)
    assert found.where == 'model.panoptic_head.num_things_classes'
    assert 'is 3 (Mask2FormerHead)' in found.what


@pytest.mark.parametrize('path', ['faster_rcnn_r18_sniper_toy.py', 'dino_r50_sniper.py'])
def test_our_configs_raise_no_false_alarm(path):
    assert check_config(load_config(ROOT / 'configs' / 'sniper' / path)) == []


def test_of_findings_the_errors_end_a_run_and_warnings_are_logged_once(caplog):
    found = [
        Finding(NOTE, 'a', 'noted'),
        Finding(WARNING, 'a', 'perhaps', 'Look'),
        Finding(ERROR, 'a', 'wrong', 'Mend it'),
        Finding(ERROR, 'b', 'wrong', 'Mend it'),
        Finding(ERROR, 'c', 'bad'),
    ]
    assert [(f.severity, f.where) for f in merged(found)] == [
        (ERROR, 'a, b'),
        (ERROR, 'c'),
        (WARNING, 'a'),
        (NOTE, 'a'),
    ]
    for _ in range(2):
        with pytest.raises(ValueError, match='2 errors') as caught:
            refuse_errors(found)
    assert str(caught.value) == '2 errors:\n- a, b: wrong. Mend it\n- c: bad'
    refuse_errors(found[:2])
    with pytest.raises(ValueError, match='severity must be one of'):
        Finding('fatal', 'a', 'b')


def test_warnings_from_before_the_log_file_are_in_it_once(tmp_path, capfd):
    warning = Finding(WARNING, 'early', 'before the Runner')
    MMLogger.get_instance('no-file')
    refuse_errors([warning])
    MMLogger.get_instance('with-file', log_file=str(tmp_path / 'run.log'))
    for _ in range(2):
        refuse_errors([warning, Finding(WARNING, 'late', 'after it')])
    logged = (tmp_path / 'run.log').read_text()
    assert logged.count('early: before the Runner') == logged.count('late: after it') == 1
    said = ''.join(capfd.readouterr())
    assert said.count('early: before the Runner') <= 1


def test_names_are_written_as_in_a_config():
    assert as_tuple(['disc']) == "('disc',)"
    assert as_tuple('ab') == "('a', 'b')"
    assert as_tuple(map(str, range(30))) == str(tuple(map(str, range(30))))
    shortened = [*map(str, range(10)), '...', '30']
    assert as_tuple(map(str, range(31))) == str(tuple(shortened)).replace("'...'", '...')


def test_the_one_head_of_a_built_rpn_has_no_classes():
    head = dict(type='RPNHead', num_classes=1, in_channels=8, feat_channels=8)
    backbone = dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,))
    parts = dict(backbone=backbone, neck=None, rpn_head=head)
    parts.update(train_cfg=dict(rpn=None), test_cfg=dict(rpn=None))
    model = MODELS.build(dict(type='RPN', **parts))
    assert model.bbox_head.num_classes == 1
    assert list(model_heads(model)) == []


class Images(list):
    """A data set of images of given sizes."""

    def get_data_info(self, index):
        return dict(width=self[index][0], height=self[index][1])


def test_scales_that_differ_between_training_and_test_are_warned_of():
    level = dict(resize=dict(factor=3.0), test_resize=dict(factor=1.0), valid_range=(0, 80))
    cfg = Config(dict(pyramid=dict(chip_size=512, levels=[level])))
    (finding,) = check_scales(cfg, Images([(1920, 1080)] * 3))
    assert (finding.severity, finding.where) == (WARNING, 'pyramid')
    assert finding.what.startswith('trains level 0 at 3 times the scale of its test')
    assert finding.fix.startswith('give both the same rules')
    assert not list(check_scales(Config({}), Images([(1920, 1080)])))
    assert not list(check_scales(cfg, Images()))
    cfg.pyramid.levels[0].test_resize.factor = 3.0
    assert not list(check_scales(cfg, Images([(1920, 1080)])))


@pytest.mark.parametrize('number', [1, 2, 999, 1000, 1001, 5000])
def test_scales_are_compared_on_up_to_1000_images_from_the_first_to_the_last(number):
    asked = []

    class Asked(Images):
        def get_data_info(self, index):
            asked.append(index)
            return super().get_data_info(index)

    level = dict(resize=dict(factor=3.0), valid_range=(0, 80))
    cfg = Config(dict(pyramid=dict(chip_size=512, levels=[level])))
    assert not list(check_scales(cfg, Asked([(1920, 1080)] * number)))
    assert len(set(asked)) == len(asked) == min(number, 1000)
    assert (asked[0], asked[-1]) == (0, number - 1)


class Squares(Images):
    """Images of 640x480 px with an object each, given by its side."""

    def get_data_info(self, index):
        box = dict(bbox=[0, 0, self[index], self[index]], ignore_flag=0)
        return dict(width=640, height=480, img_path='a', instances=[box])


def test_boxes_in_no_level_s_range_are_a_warning_and_a_gap_without_boxes_is_a_note():
    levels = [
        dict(resize=dict(factor=2.0), valid_range=(0, 30)),
        dict(resize=dict(factor=1.0), valid_range=(45, None)),
    ]
    cfg = Config(dict(pyramid=dict(chip_size=512, levels=levels)))
    (finding,) = check_ranges(cfg, Squares([10, 40, 42, 90]))
    assert (finding.severity, finding.where) == (WARNING, 'pyramid')
    assert finding.what.startswith("2 of 4 boxes have a size in no level's valid_range, 30 to 45")
    assert finding.fix.startswith('let the valid_range of neighbouring levels overlap')
    (finding,) = check_ranges(cfg, Squares([10, 90]))
    assert (finding.severity, finding.fix) == (NOTE, '')
    assert not list(check_ranges(Config({}), Squares([40])))


def test_annotations_are_not_read_for_ranges_without_gaps():
    level = dict(resize=dict(factor=2.0), valid_range=(0, None))
    cfg = Config(dict(pyramid=dict(chip_size=512, levels=[level])))
    assert not list(check_ranges(cfg, None))


def test_snip_is_warned_of_scales_and_ranges_at_its_start_and_sniper_by_its_sampler():
    level = dict(resize=dict(factor=3.0), test_resize=dict(factor=1.0), valid_range=(0, 80))
    cfg = Config(dict(pyramid=dict(chip_size=512, levels=[level]), train_dataloader=dict()))
    data = dict(train_dataloader=Squares([40, 90]))
    data['train_dataloader'].metainfo = {}
    scales, ranges = check_run(cfg, ('train_dataloader',), data)
    assert scales.where == ranges.where == 'pyramid'
    assert 'the scale of its test' in scales.what
    assert "1 of 2 boxes have a size in no level's valid_range, 80 px and more" in ranges.what
    cfg.train_dataloader.sampler = dict(type='ChipAwareSampler')
    assert not check_run(cfg, ('train_dataloader',), data)


def test_files_of_first_weights_must_be_there(tmp_path):
    def config(file):
        init = dict(type='Pretrained', checkpoint=str(file))
        return Config(dict(model=dict(type='RPN', backbone=dict(type='ResNet', init_cfg=init))))

    (finding,) = check_pretrained(config(tmp_path / 'weights.pth'))
    assert finding.severity == 'error'
    assert 'which model.backbone.init_cfg names' in finding.what
    (tmp_path / 'weights.pth').touch()
    for file in (tmp_path / 'weights.pth', 'torchvision://resnet50'):
        assert not list(check_pretrained(config(file)))


def channels(channels, mean, kind='DetDataPreprocessor', **keys):
    """A config's model as far as its channels go."""
    backbone = (
        dict(type='ResNet') if channels is None else dict(type='ResNet', in_channels=channels)
    )
    preprocessor = dict(type=kind, mean=mean, std=mean, **keys)
    return dict(model=dict(type='FasterRCNN', backbone=backbone, data_preprocessor=preprocessor))


@pytest.mark.parametrize(
    ('model', 'takes', 'said'),
    [
        (channels(None, [1.0] * 3, bgr_to_rgb=True), 3, ''),
        (channels(None, [1.0], bgr_to_rgb=True), 3, ''),
        (channels(1, [1.0]), 1, ''),
        (channels(4, [1.0]), 4, ''),
        (channels(4, [1.0] * 4, 'BandDataPreprocessor'), 4, ''),
        (channels(1, [1.0], bgr_to_rgb=True), 1, 'data_preprocessor.bgr_to_rgb: turns'),
        (channels(4, [1.0], rgb_to_bgr=True), 4, 'Set rgb_to_bgr=False'),
        (channels(1, [1.0] * 3), 3, 'mean: has 3 values, and model.backbone.in_channels is 1'),
        (channels(3, [1.0] * 4, 'BandDataPreprocessor'), 4, 'has 4 values'),
        (channels(4, [1.0] * 4), 4, "Set type='BandDataPreprocessor'"),
        (channels(2, [1.0] * 2), 2, "Set type='BandDataPreprocessor'"),
    ],
)
def test_preprocessor_and_backbone_are_of_the_same_channels(model, takes, said):
    assert model_channels(model)[0] == takes
    found = [str(finding) for finding in check_channels(model)]
    assert len(found) == bool(said)
    assert said in ''.join(found)


def test_a_file_of_names_is_there_and_has_no_empty_line(tmp_path):
    path = tmp_path / 'names.txt'

    def said(path):
        findings = []
        data = dict(type='CocoDataset', metainfo=dict(classes=str(path)))
        list(
            config_classes(
                Config(dict(train_dataloader=dict(dataset=data))), 'train_dataloader', findings
            )
        )
        return [finding.what for finding in findings]

    for gone in (path, 'lists/names', 'lists\\names', 'a.names'):
        [message] = said(gone)
        assert 'which is not there' in message
    path.write_text('a\nb\n\n')
    [message] = said(path)
    assert 'has an empty line, 3' in message
    path.write_text('a\nb\n')
    assert said(path) == []
