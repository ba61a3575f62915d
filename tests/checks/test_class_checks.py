"""Names, ids and order of classes in annotation files, metrics and checkpoints."""

import json
import re
import zipfile

import pytest
import torch
from checks.toy_config import NAMES, coco, config, write
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from torch import nn

from mmsniper.checks import ERROR, WARNING
from mmsniper.checks.checkpoint_file import check_checkpoint_file
from mmsniper.checks.classes import (
    check_checkpoint_classes,
    check_objects,
    check_use,
    check_weights,
    label_names,
    saved_classes,
)
from mmsniper.checks.config import leaves
from mmsniper.checks.run import TESTING, TRAINING, check_run, refuse_wrong

register_all_modules()


@pytest.fixture
def run(tmp_path):
    """Findings of a run on two annotation files, before and after its data are built."""

    def check(train=None, val=None, loaders=TRAINING, change=None, **keys):
        write(coco() if train is None else train, tmp_path / 'train.json')
        write(coco() if val is None else val, tmp_path / 'val.json')
        cfg = config(tmp_path, **keys)
        if change is not None:
            change(cfg)
        found = check_run(cfg, loaders)
        try:
            built = {key: DATASETS.build(cfg[key].dataset) for key in loaders}
        except (KeyError, ValueError, TypeError, OSError):  # what MMDetection ends in
            assert any(f.severity == ERROR for f in found)
            return found
        assert check_run(cfg, loaders, built) == found
        return found

    return check


def one_error(found):
    """The one error there is, of one file or of that of training and that of validation."""
    [error] = {
        (f.what.replace('val.json', 'train.json'), f.fix) for f in found if f.severity == ERROR
    }
    return ': '.join(error)


def test_files_that_agree_have_no_findings(run):
    assert run() == []
    assert run(loaders=TESTING) == []


def test_no_class_in_the_file(run):
    message = one_error(run(classes=('Disc', 'Ring', 'Square')))
    assert 'none of the classes' in message
    assert "metainfo=dict(classes=('disc', 'ring', 'square'))" in message


@pytest.mark.parametrize(
    ('classes', 'wrong', 'meant'),
    [
        (('Disc', 'ring', 'square'), 'Disc', 'disc'),
        (('disc', 'ring', 'square '), 'square ', 'square'),  # the last: nothing shifts
        (('disc', 'rign', 'square'), 'rign', 'ring'),
    ],
)
def test_a_misspelt_class_is_named_with_the_one_that_was_meant(run, classes, wrong, meant):
    message = one_error(run(classes=classes))
    assert f'{wrong!r} is not in' in message
    assert f'Write {meant!r} for {wrong!r}' in message


def test_a_class_without_a_category_shifts_labels_unless_it_is_the_last(run):
    """Data sets that share metainfo may lack its last classes, which shift no other."""
    found = run(train=coco(NAMES[:2]))
    assert [f.severity for f in found] == [WARNING]
    assert "'square' is not in" in found[0].what
    message = one_error(run(train=coco(NAMES[1:])))
    assert "'ring' would be label 0, that of 'disc'" in message


@pytest.mark.parametrize('names', [NAMES[:2], NAMES[1:]])
def test_a_validation_file_has_all_classes(run, names):
    """Otherwise CocoMetric has no category id for a label, or another one."""
    message = one_error(run(val=coco(names)))
    assert 'Add what is missing' in message


def test_two_categories_of_one_name_are_told_by_their_ids(run):
    content = coco()
    content['categories'].append(dict(id=9, name='disc'))
    message = one_error(run(train=content))
    assert "'disc' is the name of the categories 1 and 9" in message
    assert 'category_id=1' in message


def test_metainfo_in_another_order_than_the_files(run):
    message = one_error(run(classes=NAMES[::-1]))
    assert "label 0 is 'disc', and would be called 'square'" in message
    assert "metainfo=dict(classes=('disc', 'ring', 'square'))" in message
    # Results are right in a test of such a detector, and names in pictures are not.
    found = run(classes=NAMES[::-1], loaders=TESTING)
    assert {f.severity for f in found} == {WARNING}


@pytest.mark.parametrize('loaders', [TRAINING, TESTING])
def test_files_in_two_orders(run, loaders):
    turned = coco()
    turned['categories'] = turned['categories'][::-1]
    message = one_error(run(val=turned, loaders=loaders))
    assert "label 0 is 'square', and would be called 'disc'" in message
    assert "it is 'disc'" in message
    assert 'Write the list of categories of' in message


def test_objects365_sorts_its_categories(run):
    def objects365(cfg):
        for key in ('train_dataloader', 'val_dataloader'):
            cfg[key].dataset.type = 'Objects365V1Dataset'
        cfg.val_evaluator.sort_categories = True

    turned = coco()
    turned['categories'] = turned['categories'][::-1]
    assert [f for f in run(train=turned, change=objects365) if 'train' in f.where] == []
    for key, category in enumerate(turned['categories']):
        category['id'] = key + 1
    message = one_error(run(train=turned, change=objects365))
    assert "label 0 is 'square', and would be called 'disc'" in message


def test_a_validation_without_images_and_one_without_annotations(run):
    assert 'lists no images' in one_error(run(val=dict(coco(), images=[], annotations=[])))
    found = run(val=dict(coco(), annotations=[]))
    assert [f.severity for f in found] == [WARNING]
    assert 'AP will be -1' in found[0].what


def test_a_test_without_annotations_can_write_results(run):
    def results_only(cfg):
        cfg.test_evaluator.update(format_only=True, outfile_prefix='results')

    content = coco()
    del content['annotations']
    assert run(val=content, loaders=TESTING, change=results_only) == []


@pytest.mark.parametrize('key', ['area', 'iscrowd'])
def test_what_the_evaluation_looks_up_is_there(run, key):
    content = coco()
    del content['annotations'][1][key]
    found = run(val=content)
    message = one_error([f for f in found if 'pycocotools' in f.what])
    assert f'1 of 6 annotations, first annotation 2 of image 1 (0.png), have no {key!r}' in message


def test_names_that_look_the_same_are_told_by_their_letters(run):
    composed, taken_apart = '\xfcber', 'u\u0308ber'
    message = one_error(
        run(
            train=coco((taken_apart, 'a', 'b')),
            val=coco((taken_apart, 'a', 'b')),
            classes=(composed, 'a', 'b'),
        )
    )
    assert r"Write 'u\u0308ber' for '\xfcber'" in message


def test_boxes_of_the_validation_that_look_wrong_are_told_at_the_start(run):
    content = coco()
    for annotation in content['annotations']:
        annotation['bbox'][2] *= -1
    [warning] = run(val=content)
    assert warning.severity == WARNING
    assert 'have a negative width or height' in warning.what


@pytest.mark.parametrize('classes', [{'disc', 'ring', 'square'}, (1, 2, 3), (NAMES,)])
def test_classes_that_are_no_names_are_one_error(tmp_path, classes):
    write(coco(), tmp_path / 'train.json')
    write(coco(), tmp_path / 'val.json')
    found = check_run(config(tmp_path, classes=classes), TRAINING)
    assert 'must be a tuple of names' in one_error(found)


def test_pycocotools_cannot_read_other_encodings(run, tmp_path):
    def utf16(cfg):
        path = tmp_path / 'utf16.json'
        path.write_bytes((tmp_path / 'val.json').read_text().encode('utf-16'))
        cfg.val_evaluator.ann_file = str(path)

    assert 'Save it as UTF-8 without a byte order mark' in one_error(run(change=utf16))


def test_an_annotation_of_id_0_is_not_counted(run):
    content = coco()
    for annotation in content['annotations']:
        annotation['id'] -= 1
    assert run(train=content) == []
    [warning] = run(val=content)
    assert warning.severity == WARNING
    assert 'of id 0, which pycocotools never counts as found' in warning.what


def test_masks_are_needed_where_they_are_measured(run):
    def masks(cfg):
        cfg.val_evaluator.metric = ['bbox', 'segm']

    assert "have no 'segmentation'" in one_error(run(change=masks))


def test_the_metric_reads_the_file_of_its_data_set(run, tmp_path):
    def other(name):
        def change(cfg):
            cfg.val_evaluator.ann_file = str(tmp_path / name)

        return change

    more = coco(images=3)
    write(more, tmp_path / 'more.json')
    assert 'AP counts 1 images that are not tested' in one_error(run(change=other('more.json')))
    write(coco(images=1), tmp_path / 'fewer.json')
    assert 'does not know 1 images' in one_error(run(change=other('fewer.json')))
    renamed = coco()
    renamed['images'][0]['file_name'] = 'x.png'
    write(renamed, tmp_path / 'renamed.json')
    assert 'image 1 is x.png in the one' in one_error(run(change=other('renamed.json')))
    turned = coco()
    turned['categories'] = turned['categories'][::-1]
    write(turned, tmp_path / 'turned.json')
    assert 'or in another order' in one_error(run(change=other('turned.json')))
    write(coco(), tmp_path / 'same.json')
    assert run(change=other('same.json')) == []
    assert 'none.json cannot be read' in one_error(run(change=other('none.json')))


def test_of_several_metrics_the_wrong_one_is_named(run, tmp_path):
    write(coco(images=1), tmp_path / 'fewer.json')

    def several(cfg):
        good = dict(cfg.val_evaluator)
        cfg.val_evaluator = [good, dict(good, ann_file=str(tmp_path / 'fewer.json'))]

    [error] = run(change=several)
    assert error.where == 'val_evaluator[1].ann_file'

    def below(cfg):
        several(cfg)
        cfg.val_evaluator = dict(type='Evaluator', metrics=cfg.val_evaluator)

    [error] = run(change=below)
    assert error.where == 'val_evaluator.metrics[1].ann_file'


def test_a_metric_over_more_images_than_are_tested_is_told(run):
    def few(cfg):
        cfg.val_dataloader.dataset.indices = 1

    found = run(change=few)
    assert [f.severity for f in found] == [WARNING]
    assert 'takes some images' in found[0].what


def test_a_file_that_is_none_is_one_error(run, tmp_path):
    def gone(cfg):
        cfg.train_dataloader.dataset.ann_file = 'gone.json'

    assert 'gone.json cannot be read' in one_error(run(change=gone))
    content = coco()
    content['images'][1]['id'] = 1
    assert 'occurs twice' in one_error(run(train=content))


def test_other_formats_number_labels_by_metainfo(tmp_path):
    dataset = DATASETS.build(
        dict(type='VOCDataset', lazy_init=True, metainfo=dict(classes=('b', 'a')), data_root='x')
    )
    assert label_names(dataset) == ('b', 'a')


def test_names_of_labels_are_those_of_the_file(tmp_path):
    write(coco(), tmp_path / 'train.json')
    cfg = config(tmp_path, classes=NAMES[::-1])
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    wrapped = DATASETS.build(dict(type='RepeatDataset', dataset=dataset, times=2))
    assert label_names(wrapped) == NAMES
    [(where, leaf)] = leaves(wrapped, 'd')
    assert (where, leaf) == ('d.dataset', dataset)


def test_labels_out_of_range_and_classes_without_objects(tmp_path):
    class Data:
        def __init__(self, labels):
            self.metainfo = dict(classes=NAMES)
            self.labels = labels

        def __len__(self):
            return 1

        def get_data_info(self, i):
            return dict(instances=[dict(bbox_label=label) for label in self.labels])

    assert list(check_objects(Data([0, 1, 2]), 'd')) == []
    assert list(check_objects(Data([]), 'd')) == []
    [error, warning] = check_objects(Data([0, 1, 3]), 'd')
    assert (error.severity, warning.severity) == (ERROR, WARNING)
    assert 'label 3, and 3 classes' in error.what
    assert 'which are 0 to 2' in error.what
    assert "no object of 'square'" in warning.what
    assert warning.fix == 'Is that meant? It cannot be measured'
    [warning] = check_objects(Data([0]), 'train_dataloader.dataset.dataset')
    assert warning.fix == 'Is that meant? They cannot be learned'
    [error] = check_objects(Data([0, 1, 2, -1]), 'd')
    assert 'has objects of label -1' in error.what


@pytest.mark.parametrize(
    ('saved', 'training', 'severity', 'said'),
    [
        (NAMES, False, None, ''),
        (None, False, None, ''),
        (NAMES[::-1], False, ERROR, "label 0 is 'square', here it would be 'disc'"),
        (NAMES[::-1], True, ERROR, 'in another order'),
        (('a', 'b', 'c'), True, WARNING, 'which is fine for a new data set'),
        (('a', 'b', 'c'), False, WARNING, 'Is it the right file?'),
        (('a', 'b'), True, None, ''),  # the head is a new one
    ],
)
def test_classes_of_a_checkpoint(saved, training, severity, said):
    content = dict(meta=dict(dataset_meta=dict(classes=saved)))
    found = list(check_checkpoint_classes(content, 'c.pth', NAMES, 'here', training))
    assert [f.severity for f in found] == [severity] * (severity is not None)
    assert all(said in str(f) for f in found)


def test_weights_that_do_not_fit_are_named_with_both_shapes():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = model.state_dict()
    assert list(check_weights(model, {f'module.{key}': w for key, w in state.items()}, 'c')) == []
    state['1.weight'] = torch.zeros(5, 3)
    del state['0.bias']
    other, missing = check_weights(model, state, 'c.pth')
    assert '1.weight has the shape (5, 3), and (1, 3)' in str(other)
    assert 'lacks 0.bias' in str(missing)
    assert {other.severity, missing.severity} == {ERROR}
    assert 'weights are' not in f'{other}{missing}'
    state['0.weight'] = torch.zeros(5, 3)
    del state['1.bias']
    other, missing = check_weights(model, state, 'c.pth')
    assert '(2 weights are in another shape)' in str(other)
    assert '(2 weights are missing)' in str(missing)


class Head(nn.Module):
    """A head with a layer for classes (and background), and one for their boxes."""

    def __init__(self, num_classes, outputs, background=0):
        super().__init__()
        self.num_classes = num_classes
        self.cls = nn.Linear(2, outputs * (num_classes + background))
        self.reg = nn.Linear(2, 4 * num_classes)


@pytest.mark.parametrize(('outputs', 'background'), [(1, 1), (1, 0), (9, 0)])
@pytest.mark.parametrize(('saved', 'expected'), [(3, 2), (3, 1), (1, 80), (20, 80)])
def test_weights_of_another_number_of_classes_are_told_by_their_shapes(
    outputs, background, saved, expected
):
    model, other = (
        nn.ModuleDict(dict(bbox_head=Head(count, outputs, background)))
        for count in (expected, saved)
    )
    [finding] = check_weights(model, other.state_dict(), 'c.pth')
    assert finding.what.startswith(f"it is of {saved} classes, the config's model of {expected}: ")
    assert f'set num_classes to {saved} in every head' in finding.fix
    names = tuple(f'name{i}' for i in range(saved))
    content = dict(state_dict=other.state_dict(), meta=dict(dataset_meta=dict(classes=names)))
    [finding] = check_weights(model, content, 'c.pth')
    assert f"{saved} classes ('name0'" in finding.what


def test_weights_that_differ_in_more_than_classes_are_of_another_model():
    model, other = (
        nn.ModuleDict(dict(bbox_head=Head(count, 1), neck=nn.Linear(count, 1))) for count in (2, 3)
    )
    [finding] = check_weights(model, other.state_dict(), 'c.pth')
    assert 'it is of another model: ' in finding.what


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_files_that_pycocotools_cannot_read_are_told_before_the_first_validation(
    tmp_path, encoding
):
    for name in ('train.json', 'val.json'):
        write(coco(), tmp_path / name)
        (tmp_path / name).write_text(json.dumps(coco()), encoding)
    found = check_run(config(tmp_path), TRAINING)
    assert [(f.severity, f.where) for f in found] == [(ERROR, str(tmp_path / 'val.json'))]
    assert 'a byte order mark' in found[0].what


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (torch.nn.Linear(2, 2), 'holds a (tuple or )?Python object .*instead'),
        ([1], 'holds a list instead'),
        ((1, 2), 'holds a .* instead of a dict'),
        (torch.zeros(2), 'holds one tensor'),
        (torch.nn.Linear(2, 2).state_dict(), ''),
        (dict(a=torch.zeros(2)), ''),
    ],
)
@pytest.mark.parametrize('protocol', [2, 4])
def test_checkpoints_are_dicts(tmp_path, content, said, zipped, protocol):
    file = tmp_path / 'a.pth'
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = list(check_checkpoint_file(str(file)))
    assert len(found) == bool(said)
    assert not said or re.search(said, str(found[0]))


def test_weights_are_tensors_of_numbers():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = model.state_dict()
    for wrong, said in (
        ({**state, '0.bias': torch.tensor([0, torch.nan, 0])}, '0.bias has values that are NaN'),
        ({**state, '1.running_var': torch.full((3,), torch.inf)}, '1.running_var has values that'),
        ({**state, '0.bias': state['0.bias'].numpy()}, '0.bias is a ndarray, not a tensor'),
        (dict(state_dict=[1]), 'its state_dict is a list'),
        ([1], 'its state_dict is a list'),
        (dict(model=state), "no weight of the model; its keys are 'model'"),
    ):
        [finding] = check_weights(model, wrong, 'c.pth')
        assert said in str(finding)


def test_what_a_checkpoint_says_of_classes_need_not_be_names():
    for meta in (
        *(None, [1], dict(dataset_meta=[1])),
        *(dict(dataset_meta=dict(classes=classes)) for classes in (3, (3, 4), ('a', 3), 'ab')),
    ):
        assert saved_classes(dict(meta=meta)) is None
    old = dict(meta=dict(dataset_meta=dict(CLASSES=('a', 'b'))))
    assert saved_classes(old) == ('a', 'b')


def test_files_that_are_no_checkpoints_are_named(tmp_path):
    whole = tmp_path / 'whole.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(9))), whole)
    old = tmp_path / 'old.pth'
    torch.save(dict(a=torch.zeros(9)), old, _use_new_zipfile_serialization=False)
    for file in (whole, old, tmp_path / 'gone.pth', 'https://a.b/c.pth'):
        assert list(check_checkpoint_file(str(file))) == []
    content = whole.read_bytes()
    for wrong, said in (
        (b'', 'is empty'),
        (content[: len(content) // 2], 'is cut short'),
        (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
        (b'<html>not found</html>', "is text, not a checkpoint, and begins with '<html>"),
    ):
        (tmp_path / 'wrong.pth').write_bytes(wrong)
        [finding] = check_checkpoint_file(str(tmp_path / 'wrong.pth'))
        assert finding.severity == ERROR
        assert said in str(finding)


def test_archives_and_bytes_of_other_kinds(tmp_path):
    for name in ('a/readme.txt', 'a/b/data.pkl', 'data.pkl'):
        with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
            archive.writestr(name, 'nothing')
        [finding] = check_checkpoint_file(str(tmp_path / 'a.zip'))
        assert 'is a ZIP archive, but not of torch.save' in finding.what
    (tmp_path / 'a.bin').write_bytes(b'\x89\0\1')  # torch says what it is
    assert list(check_checkpoint_file(str(tmp_path / 'a.bin'))) == []


def test_a_checkpoint_that_is_none_ends_a_run_before_it_begins(tmp_path):
    for name in ('train.json', 'val.json'):
        write(coco(), tmp_path / name)
    (tmp_path / 'empty.pth').touch()
    cfg = config(tmp_path)
    refuse_wrong(cfg, TRAINING)
    cfg.load_from = str(tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match=r'empty\.pth: is empty'):
        refuse_wrong(cfg, TRAINING)


@pytest.mark.parametrize(('test_mode', 'images'), [(False, '1 left out, narrower'), (True, 'all')])
def test_what_is_used_of_a_file_is_one_line(tmp_path, test_mode, images):
    content = coco()
    content['images'][0]['height'] = 31
    write(content, tmp_path / 'train.json')
    leaf = config(tmp_path, classes=NAMES[:2]).train_dataloader.dataset
    leaf.update(filter_cfg=dict(min_size=32), test_mode=test_mode)
    [finding] = check_use(DATASETS.build(leaf), 'train')
    used = '2 used' if not test_mode else '4 used'
    assert f'6 annotations: {used}, 2 of a category that is not in metainfo' in finding.what
    assert f'; 2 images: {images}' in finding.what


def test_results_that_could_not_be_written_are_told_before_the_test(run, tmp_path):
    (tmp_path / 'file').touch()

    def write_results(cfg):
        cfg.val_evaluator.outfile_prefix = str(tmp_path / 'file' / 'results')

    [finding] = run(change=write_results)
    assert finding.where == 'val_evaluator.outfile_prefix'
    assert 'file is a file, not a folder' in finding.what
