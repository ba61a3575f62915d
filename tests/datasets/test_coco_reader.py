"""Training reads COCO files through CocoFile: the same boxes, or the same error, as chip_stats."""

import copy
import json
import logging
import pickle

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS

from mmsniper.chips import AnnotationTable, CocoFile
from mmsniper.datasets import coco_reader, read_annotations
from mmsniper.datasets.coco_reader import build_checked, read_checked
from mmsniper.datasets.wrappers import read_datasets

CLASSES = ('disc', 'ring')
RULES = dict(filter_empty_gt=True, min_size=32)


def coco():
    """Three images of 400x300 px with six boxes, and one that is 30 px wide."""
    boxes = [[10, 10, 50, 60], [30, 40, 20.5, 20], [200, 100, 150, 100]]
    return dict(
        images=[
            *(dict(id=i, file_name=f'{i}.jpg', width=400, height=300) for i in (3, 1, 2)),
            dict(id=4, file_name='4.jpg', width=30, height=300),
        ],
        annotations=[
            dict(
                id=k,
                image_id=1 + k % 2,
                category_id=7 + k % 2,
                bbox=list(boxes[k // 2]),
                area=100,
                iscrowd=int(k == 5),
                segmentation=[[10, 10, 60, 10, 60, 70]],
            )
            for k in range(6)
        ],
        categories=[dict(id=7, name='disc'), dict(id=8, name='ring'), dict(id=9, name='cross')],
    )


@pytest.fixture
def data(tmp_path):
    """Write a file; the config of its data set."""

    def make(content, name='train.json', **kwargs):
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name).write_bytes(text)
        config = dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file=name,
            data_prefix=dict(img=''),
            metainfo=dict(classes=CLASSES),
            filter_cfg=RULES,
        )
        return {**config, **kwargs}

    return make


@pytest.fixture
def said(monkeypatch):
    """What is logged, as (level, message)."""
    lines = []
    monkeypatch.setattr(
        coco_reader,
        'print_log',
        lambda text, level=logging.INFO, **kwargs: lines.append((level, text)),
    )
    return lines


def one(**changes):
    """A change of annotation 2."""
    return lambda c: c['annotations'][2].update(changes)


def all_(change):
    return lambda c: [change(annotation) for annotation in c['annotations']]


def without(key, name):
    return lambda c: [entry.pop(name) for entry in c[key]]


FAULTY = {
    'none': lambda c: None,
    'no area': without('annotations', 'area'),
    'no iscrowd': without('annotations', 'iscrowd'),
    'no segmentation': without('annotations', 'segmentation'),
    'area null': one(area=None),
    'area 0': one(area=0),
    'all areas 0': all_(lambda a: a.update(area=0)),
    'area as text': one(area='9'),
    'bbox null': one(bbox=None),
    'bbox empty': one(bbox=[]),
    'bbox of zeros': one(bbox=[0, 0, 0, 0]),
    'bbox as text': all_(lambda a: a.update(bbox=list(map(str, a['bbox'])))),
    'bbox with NaN': one(bbox=[float('nan'), 1, 2, 3]),
    'bbox thin': one(bbox=[9, 9, 0.5, 20]),
    'bbox negative': one(bbox=[90, 90, -20, -30]),
    'bbox outside': one(bbox=[500, 10, 20, 20]),
    'bbox half outside': one(bbox=[390.25, -10, 20, 20]),
    'bbox hardly inside': one(bbox=[399.5, 10, 20, 20]),
    'corners': all_(
        lambda a: a.update(bbox=[250 + a['id'], 190 + a['id'], 300 + a['id'], 260 + a['id']])
    ),
    'parts of the image': all_(lambda a: a.update(bbox=[0.1, 0.2, 0.3, 0.4])),
    'ignore': one(ignore=True),
    'iscrowd true': all_(lambda a: a.update(iscrowd=True)),
    'iscrowd as text': one(iscrowd='0'),
    'category that is not trained': one(category_id=9),
    'category unknown': one(category_id=55),
    'category as text': one(category_id='7'),
    'image unknown': one(image_id=55),
    'image as text': one(image_id='1'),
    'ids doubled': all_(lambda a: a.update(id=1)),
    'image doubled': lambda c: c['images'].append(dict(c['images'][0])),
    'no ids': without('annotations', 'id'),
    'width as text': lambda c: c['images'][1].update(width='400'),
    'width null': lambda c: c['images'][1].update(width=None),
    'width float': lambda c: [i.update(width=400.0) for i in c['images'][:3]],
    'no width': without('images', 'width'),
    'no height': without('images', 'height'),
    'no file name': without('images', 'file_name'),
    'no images': lambda c: c.update(images=[], annotations=[]),
    'no annotations': lambda c: c.update(annotations=[]),
    'no key annotations': lambda c: c.pop('annotations'),
    'no categories': lambda c: c.pop('categories'),
    'categories without names': without('categories', 'name'),
    'other names': lambda c: [k.update(name=k['name'].upper()) for k in c['categories']],
    'an annotation that is a list': lambda c: c['annotations'].append([1]),
}


@pytest.mark.parametrize('fault', FAULTY)
def test_training_reads_what_coco_file_reads_or_says_the_same(data, chips_of, fault):
    content = coco()
    FAULTY[fault](content)
    config = data(content)
    path = f'{config["data_root"]}/train.json'

    def told(read):
        try:
            return read()
        except ValueError as error:
            return str(error)

    def by_file():
        use = CocoFile.read(path).use(CLASSES, RULES)
        use.check_training()
        return AnnotationTable.from_use(use)

    file = told(by_file)
    training = told(lambda: read_annotations(DATASETS.build(chips_of(config))))
    if isinstance(file, str) or isinstance(training, str):
        assert training == file
        assert 'train.json' in file
    else:
        for name in ('width', 'height', 'offset', 'boxes', 'ignore'):
            np.testing.assert_array_equal(getattr(file, name), getattr(training, name), name)


def test_mmdetection_reads_a_good_file_alike(data, chips_of):
    config = data(coco())
    stock, ours = DATASETS.build(config), DATASETS.build(chips_of(config))
    assert len(stock) == len(ours) == 2
    for i in range(2):
        assert stock.get_data_info(i) == ours.get_data_info(i)
    assert (stock.cat_ids, stock.cat2label) == (ours.dataset.cat_ids, ours.dataset.cat2label)
    # One entry for every annotation, of use to no one but the reader.
    assert not hasattr(ours.dataset, 'cat_img_map')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_byte_order_mark(data, chips_of, encoding):
    config = data(json.dumps(coco()).encode(encoding))
    assert len(DATASETS.build(chips_of(config))) == 2


def test_what_is_not_json(data, chips_of):
    with pytest.raises(ValueError, match=r'train\.json is not a JSON file'):
        DATASETS.build(chips_of(data(b'000001\n')))


def test_the_line_and_its_level(data, chips_of, said):
    content = coco()
    DATASETS.build(chips_of(data(content)))
    ((level, line),) = said
    assert level == logging.INFO
    assert line.endswith(
        'train.json: 6 annotations: 6 used (1 of them crowds); 4 images: 1 left out, narrower than '
        '32 px, 1 left out, without an annotation of a class in metainfo'
    )
    said.clear()
    content['annotations'][0]['area'] = 0
    content['annotations'][1]['bbox'] = [390, 100, 90, 20]
    DATASETS.build(chips_of(data(content)))
    (level, warning), (other, line) = said
    assert level == other == logging.WARNING
    assert '1 of 6 boxes leave their image by far' in warning
    assert '1 of area 0' in line
    assert "write width x height as 'area' where it is 0" in line


def test_only_the_main_process_says_it(data, chips_of, said, monkeypatch):
    monkeypatch.setattr(coco_reader, 'is_main_process', lambda: False)
    DATASETS.build(chips_of(data(coco())))
    assert said == []


def test_images_that_the_data_set_takes_by_other_rules_are_told(data, chips_of, said):
    DATASETS.build(chips_of(data(coco(), indices=1)))
    assert said[-1][1].endswith('of these images CocoDataset takes 1, by indices')

    @DATASETS.register_module(force=True)
    class PickyDataset(CocoDataset):
        def filter_data(self):
            return super().filter_data()[1:]

    DATASETS.build(chips_of(data(coco(), type='PickyDataset')))
    assert said[-1][1].endswith('of these images PickyDataset takes 1, by rules of its own')


@pytest.mark.parametrize('build', ['config', 'lazy', 'lazy data', 'built lazily', 'built'])
def test_below_wrappers_however_they_are_built(data, chips_of, said, build):
    """Each file is checked once, whoever builds and whoever reads; built ones are left alone."""
    content = coco()
    for annotation in content['annotations']:
        if build != 'built':
            del annotation['area']
    leaf = data(content, lazy_init=build in ('lazy data', 'built lazily'))
    other = data(content, name='b.json')
    if build.startswith('built'):
        leaf = DATASETS.build(leaf)
    wrappers = dict(
        type='ConcatDataset',
        datasets=[leaf, dict(type='RepeatDataset', times=2, dataset=other)],
        lazy_init=build == 'lazy data',
    )
    dataset = DATASETS.build(chips_of(wrappers, lazy_init=build == 'lazy'))
    dataset.full_init()
    assert len(dataset) == 6
    assert len(read_annotations(dataset).boxes) == 18
    assert len(said) == (1 if build == 'built' else 2)
    again = pickle.loads(pickle.dumps(dataset))  # as for a worker
    assert again.get_data_info(0) == dataset.get_data_info(0)
    for part in read_datasets(dataset):
        assert 'COCOAPI' not in vars(part)
    assert CocoDataset.COCOAPI is COCO


def test_class_balanced_and_the_config_is_left_as_it_is(data, chips_of):
    content = coco()
    del content['annotations'][0]['area']
    config = chips_of(dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=data(content)))
    before = copy.deepcopy(config)
    assert len(DATASETS.build(config)) >= 2
    assert config == before


def test_a_data_set_with_an_api_of_its_own_reads_by_it(data, said):
    class Own(COCO):
        pass

    dataset = DATASETS.build(data(coco(), lazy_init=True))
    dataset.COCOAPI = Own
    read_checked(dataset)
    assert len(dataset) == 2
    assert said == []


def test_an_error_leaves_the_class_as_it_was(data):
    dataset = DATASETS.build(data(dict(coco(), categories=[]), lazy_init=True))
    with pytest.raises(ValueError, match='category_id'):
        read_checked(dataset)
    assert 'COCOAPI' not in vars(dataset)


def test_a_test_set_without_annotations_is_read_whole(data):
    content = coco()
    del content['annotations']
    dataset = build_checked(data(content, test_mode=True))
    assert len(dataset) == 4


def test_a_data_prefix_without_images(data):
    with pytest.raises(ValueError, match="data_prefix of CocoDataset has no 'img'"):
        build_checked(data(coco(), data_prefix=dict(img_path='a')))


class TestMasks:
    def pipeline(self, **kwargs):
        return [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, **kwargs),
            dict(type='PackDetInputs'),
        ]

    def build(self, config, **kwargs):
        return DATASETS.build(
            dict(type='ChipDataset', dataset=config, pipeline=self.pipeline(**kwargs))
        )

    @pytest.mark.parametrize('mask', [[], None, [[1, 2, 3, 4]], dict(size=[1, 1], counts='a')])
    def test_a_mask_that_cannot_be_loaded_is_named(self, data, mask):
        content = coco()
        content['annotations'][4]['segmentation'] = mask
        self.build(data(content))
        with pytest.raises(ValueError, match="annotation 4 of image 1 .*: 'segmentation' is"):
            self.build(data(content), with_mask=True)

    def test_annotations_that_are_not_used_need_none(self, data):
        content = coco()
        content['annotations'][4].update(segmentation=[], category_id=9)
        assert len(self.build(data(content), with_mask=True)) == 2

    def test_rle_where_masks_stay_polygons(self, data):
        content = coco()
        content['annotations'][4]['segmentation'] = dict(size=[300, 400], counts=[9, 119991])
        self.build(data(content), with_mask=True)
        with pytest.raises(ValueError, match='annotation 4 of image 1 .* is RLE'):
            self.build(data(content), with_mask=True, poly2mask=False)


def test_a_chip_dataset_below_a_wrapper_is_built_by_it_and_checks_its_file(data):
    """mmengine's wrappers take no object but a ``BaseDataset``."""
    pipeline = [dict(type='LoadImageFromFile')]

    def repeated(content):
        chips = dict(type='ChipDataset', dataset=data(content), pipeline=pipeline)
        return dict(type='RepeatDataset', times=2, dataset=chips)

    assert len(build_checked(repeated(coco()))) == 2 * len(build_checked(data(coco())))
    with pytest.raises(ValueError, match='category_id'):
        build_checked(repeated(dict(coco(), categories=[])))
