"""VOC's XML files: names that no class has, and faults, are told before MMDetection reads them."""

import re

import pytest
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmsniper.checks import ERROR, WARNING
from mmsniper.checks.classes import check_use
from mmsniper.checks.voc_files import check_voc_data

register_all_modules()
OBJECT = (
    '<object><name>{}</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>'
    '<xmax>20</xmax><ymax>30</ymax></bndbox></object>'
)


@pytest.fixture
def check(tmp_path):
    """Findings of data with two images, a disc and a ring, after changes of their text."""

    def run(
        old='',
        new='',
        classes=('disc', 'ring'),
        loader='train_dataloader',
        ids='0\n1\n',
        names=('disc', 'ring'),
        kind='XMLDataset',
    ):
        (tmp_path / 'Annotations').mkdir()
        for i, name in enumerate(names):
            size = '<size><width>64</width><height>48</height></size>'
            text = f'<annotation>{size}{OBJECT.format(name)}</annotation>'
            if old:
                text = text.replace(old, new)
            (tmp_path / f'Annotations/{i}.xml').write_text(text)
        (tmp_path / 'list.txt').write_text(ids)
        dataset = dict(
            type=kind,
            data_root=str(tmp_path),
            ann_file='list.txt',
            data_prefix=dict(sub_data_root='VOC2007/' if kind == 'VOCDataset' else ''),
            metainfo=dict(classes=classes),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )
        cfg = Config({loader: dict(dataset=dict(type='ChipDataset', dataset=dataset, pipeline=[]))})
        return list(check_voc_data(cfg, loader))

    return run


def test_what_is_right_and_a_class_without_objects_pass(check):
    assert check(classes=('disc', 'ring', 'cross')) == []


def test_a_class_that_is_not_named_may_be_left_out(check):
    assert check(classes=('ring',)) == []


@pytest.mark.parametrize('classes', [('Disc', 'ring'), ('dics', 'ring')])
def test_a_misspelt_class_is_refused_in_training(check, classes):
    [finding] = check(classes=classes)
    assert finding.severity == ERROR
    assert "1 are called 'disc': they would be background" in finding.what
    assert finding.fix == f"Write 'disc' for {classes[0]!r}"


@pytest.mark.parametrize(('kind', 'number'), [('XMLDataset', 1), ('VOCDataset', 0)])
def test_a_known_class_without_objects_is_not_taken_for_another_one(check, tmp_path, kind, number):
    (tmp_path / 'VOC2007').symlink_to(tmp_path)
    found = check(names=('car', 'dog'), classes=('cat', 'dog'), kind=kind)
    assert len(found) == number


def test_in_a_test_only_case_and_blanks_are_sure(check):
    [finding] = check(classes=('dicks', 'ring'), loader='test_dataloader')
    assert finding.severity == WARNING


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(classes=('a', 'b')), "none of the classes is in .* which have 'disc', 'ring'"),
        (dict(old='</annotation>'), 'is not an XML file'),
        (dict(old='bndbox', new='polygon'), r"object 1 \(disc\) has no 'bndbox'"),
        (dict(old='>0</dif', new='>Unspecified</dif'), "is 'Unspecified': write 0 or 1"),
        (dict(old='>64<', new='>0<'), 'of 0x48 px'),
        (dict(old='>20<', new='>nan<'), "'xmax' of 'bndbox' is 'nan'"),
        (dict(old='>48<', new='>20<'), '2 are narrower than 32 px'),
        (dict(ids='0.jpg\n1.jpg\n'), 'without suffix'),
        (dict(ids='0 1\n1 -1\n'), 'remove the second column'),
        (dict(ids='0\n\n1\n'), 'Remove the empty line'),
        (dict(old='>48<', new='>48.0<'), "are '64' and '48.0', expected whole numbers"),
        (dict(ids=''), 'lists no images'),
        (dict(ids='7\n'), "lists '7', but .* cannot be read"),
    ],
)
def test_faults_name_file_entry_and_fix(check, change, said):
    [finding] = check(**change)
    assert finding.severity == ERROR
    assert re.search(said, str(finding)), str(finding)


def test_a_name_that_some_files_write_otherwise_is_refused(check):
    [finding] = check(names=('ring', 'disc', 'Ring '), ids='0\n1\n2\n')
    assert finding.severity == ERROR
    assert finding.fix == "Write 'ring' for 'Ring ' in the XML files"


def test_faults_of_objects_that_are_not_used_do_not_matter(check):
    broken = dict(old='disc</name><difficult>0', new='disc</name><difficult>2')
    assert check(**broken, classes=('ring',)) == []


def test_blanks_around_numbers_are_read_as_mmdetection_reads_them(check):
    assert check('>0</difficult>', '>\n 0 </difficult>') == []


def test_boxes_outside_of_their_image_are_counted(check):
    [finding] = check('<xmin>1<', '<xmin>70<')
    assert finding.severity == WARNING
    assert '2 boxes' in finding.what


def test_what_is_used_of_the_files_is_one_line(check, tmp_path):
    assert check(names=('ring', 'zebra'), classes=('ring',)) == []
    dataset = DATASETS.build(
        dict(
            type='XMLDataset',
            data_root=str(tmp_path),
            ann_file='list.txt',
            data_prefix=dict(sub_data_root=''),
            metainfo=dict(classes=('ring',)),
            filter_cfg=dict(filter_empty_gt=True),
        )
    )
    [finding] = check_use(dataset, 'train')
    assert finding.what.endswith(
        "list.txt: 2 objects: 1 used, 1 of a name that is not in metainfo ('zebra'); 2 images: "
        '1 left out'
    )


def test_boxes_with_exchanged_corners_are_counted(check):
    [finding] = check('>20<', '>0<')
    assert (finding.severity, finding.what[:7]) == (WARNING, '2 boxes')
