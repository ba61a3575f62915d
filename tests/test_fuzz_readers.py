"""Readers of files and configs, given any content: our own errors come out of them, no others."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules

import mmsniper.datasets  # noqa: F401 (registers)
from mmsniper.chips import (
    AnnotationTable,
    ChipPlan,
    CocoFile,
    NegativeChipPool,
    ScalePyramid,
    plan_negative_chips,
)
from mmsniper.datasets import read_annotations
from mmsniper.datasets.proposal_files import read_proposals

NUMBERS = [0, 1, -1, 2, 0.5, 1e-9, 31, 300, 2**31, 10**30, 10**400, 1e300, -1e300]
NUMBERS += [float('nan'), float('inf'), -float('inf')]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(-9, 9), st.text(max_size=3)
)
ODD = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(node, path=()):
    """Paths of all values in nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


@st.composite
def mutated(draw, content):
    """The content with up to three values that are removed, doubled, or something else."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        paths = list(places(content))
        if not paths:
            break
        *above, key = draw(st.sampled_from(paths))
        node = content
        for step in above:
            node = node[step]
        action = draw(st.sampled_from(['set', 'set', 'remove', 'double', 'number', 'like']))
        if action == 'remove':
            del node[key]
        elif action == 'double' and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif action == 'number':
            node[key] = draw(st.sampled_from(NUMBERS))
        elif action == 'like':  # text instead of numbers, a list instead of a value
            node[key] = draw(st.sampled_from([str(node[key]), [node[key]], {'a': node[key]}]))
        else:
            node[key] = draw(ODD)
    return content


def own_error(read, *words):
    """What ``read`` returns; None if it refuses by an error that has one of the words."""
    message = None
    try:
        return read()
    except ValueError as error:
        message = str(error)
    assert any(word in message for word in words), message
    return None


SEGMENTATIONS = [
    [[10, 10, 60, 10, 60, 70]],
    dict(size=[300, 400], counts=[9, 119991]),
    dict(size=[300, 400], counts='Pd4'),
]
COCO = dict(
    images=[dict(id=i, file_name=f'{i}.jpg', width=400, height=300) for i in (1, 2)],
    annotations=[
        dict(
            id=i,
            image_id=1 + i % 2,
            category_id=7,
            bbox=[10 * i, 10, 50, 60.5],
            area=99,
            iscrowd=0,
            ignore=0,
            segmentation=SEGMENTATIONS[i % 3],
        )
        for i in range(6)
    ],
    categories=[dict(id=7, name='disc'), dict(id=8, name='ring')],
)


@settings(max_examples=300)
@given(mutated(COCO))
def test_coco_file(content):
    def read():
        file = CocoFile.read(content, name='train.json')
        file.complete()
        use = file.use(('disc',), dict(filter_empty_gt=True, min_size=32))
        use.check_training()
        file.check_masks(use.annotations)
        list(use.messages())
        return AnnotationTable.from_use(use)

    own_error(read, 'train.json')


@settings(max_examples=50)
@given(ODD)
def test_coco_file_of_anything(content):
    own_error(lambda: CocoFile.read({'x': content}, name='train.json'), 'train.json')


@settings(max_examples=100)
@given(st.binary(max_size=40) | ODD.map(lambda value: json.dumps(value).encode()))
@example(b'\xef\xbb\xbf')
@example(b'[' * 99_999)
def test_coco_file_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'any.json'
    path.write_bytes(content)
    own_error(lambda: CocoFile.read(path), 'any.json')


PIPELINE = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]


@settings(max_examples=100)
@given(mutated(COCO))
def test_reading_for_training_is_that_of_coco_file(tmp_path_factory, content):
    register_all_modules(init_default_scope=True)
    path = tmp_path_factory.getbasetemp() / 'train.json'
    path.write_text(json.dumps(content))
    rules = dict(filter_empty_gt=True, min_size=32)
    data = dict(
        type='CocoDataset',
        ann_file=str(path),
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('disc',)),
        filter_cfg=rules,
    )

    def train():
        return read_annotations(
            DATASETS.build(dict(type='ChipDataset', dataset=data, pipeline=PIPELINE))
        )

    def by_file():
        file = CocoFile.read(path)
        use = file.use(('disc',), rules)
        use.check_training()
        file.check_masks(use.annotations)
        return AnnotationTable.from_use(use)

    table, expected = own_error(train, 'train.json'), own_error(by_file, 'train.json')
    assert (table is None) == (expected is None)
    if table is not None:
        for name in ('width', 'height', 'offset', 'boxes', 'ignore'):
            np.testing.assert_array_equal(getattr(table, name), getattr(expected, name))


PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=[0, 20], test_range=[0, 16]),
        dict(resize=dict(factor=1.0), valid_range=[10, 40], test_resize=dict(factor=0.9)),
        dict(resize=dict(short_side=50, long_side=90), valid_range=[30, None]),
    ],
    adopt_orphans=True,
)
WORDS = ('pyramid', 'resize', 'level', 'range', 'chip_size', 'orphans', '_side')


@settings(max_examples=300)
@given(mutated(PYRAMID))
def test_pyramid(config):
    own_error(lambda: ScalePyramid.from_config(config), *WORDS)


@settings(max_examples=50)
@given(ODD)
@example({1: 2, 'a': 3})
def test_pyramid_of_anything(config):
    own_error(lambda: ScalePyramid.from_config(config), *WORDS)


def pool_arrays(tmp_path):
    table = AnnotationTable.from_images([(300, 200, [[50, 40, 60, 50]] * 3, None)] * 2)
    pyramid = ScalePyramid.from_config(PYRAMID)
    found = plan_negative_chips(table, ChipPlan.empty(), pyramid, min_proposals=1)
    pool = NegativeChipPool(
        pyramid,
        np.array(['a/0.png', 'a/1.png']),
        table.width,
        table.height,
        found.chips,
        found.proposals_per_chip,
        found.statistics,
        *(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros((0, 4), np.float32)),
        options=dict(min_proposals=1, max_per_image=None, covered='enclosed'),
        proposal_image=table.image.astype(np.int32),
        proposal_box=table.boxes,
    )
    pool.save(tmp_path / 'pool.npz')
    assert len(NegativeChipPool.from_file(tmp_path / 'pool.npz').chips) > 0
    return dict(np.load(tmp_path / 'pool.npz'))


@pytest.fixture(scope='module')
def arrays(tmp_path_factory):
    return pool_arrays(tmp_path_factory.mktemp('pool'))


@settings(max_examples=200)
@given(st.data())
def test_pool(tmp_path_factory, arrays, data):
    changed = dict(arrays)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(changed)))
        array = changed[name]
        if name in ('pyramid', 'statistics', 'options'):
            content = mutated(json.loads(str(array))) | ODD
            changed[name] = np.array(json.dumps(data.draw(content)))
        elif array.size and array.ndim and array.dtype.kind in 'if' and data.draw(st.booleans()):
            changed[name] = array.copy()
            value = data.draw(st.sampled_from([-1, 0, 1, 5, 127]))
            changed[name].flat[data.draw(st.integers(0, array.size - 1))] = value
        else:
            odd = [array[..., None], array.ravel()[:1], array.astype(str), np.array(3), np.zeros(0)]
            changed[name] = odd[data.draw(st.integers(0, len(odd) - 1))]
    path = tmp_path_factory.getbasetemp() / 'pool.npz'
    with open(path, 'wb') as file:
        np.savez(file, **changed)

    def read():
        pool = NegativeChipPool.from_file(path)
        chips = pool.chips_for(['b/a/0.png'], [300], [200], 'pool.npz')
        planner = pool.planner_for(['a/1.png'], [300], [200], 'pool.npz')
        planner.plan(ChipPlan.empty(), 2, 0, 1)
        return chips

    own_error(read, 'pool.npz')


class Images:
    """A data set of two images."""

    def __len__(self):
        return 2

    def get_data_info(self, i):
        return dict(img_path=f'a/{i}.png', img_id=i, width=300, height=200)


RESULTS = [dict(image_id=i % 2, bbox=[10, 10, 20, 20], score=0.5) for i in range(4)]
BOXES = [[10.0, 10.0, 30.0, 30.0], [50.0, 10.0, 60.0, 30.0]]
PICKLES = [
    {f'a/{i}.png': dict(bboxes=BOXES, scores=[0.5, 0.6]) for i in range(2)},
    [
        dict(img_path=f'a/{i}.png', pred_instances=dict(bboxes=BOXES, scores=[0.5, 0.6]))
        for i in range(2)
    ],
]


@settings(max_examples=200)
@given(mutated(RESULTS) | ODD)
def test_proposals_as_coco_results(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'proposals.json'
    path.write_text(json.dumps(content))
    own_error(lambda: read_proposals(path, Images()), 'proposals.json')


@settings(max_examples=200)
@given(
    st.sampled_from(PICKLES).flatmap(mutated)
    | ODD
    | st.lists(
        st.sampled_from(
            [
                np.array(BOXES),
                np.array([[*box, 0.5] for box in BOXES]),
                np.zeros((0, 5)),
                np.zeros(3),
                np.array(BOXES, object),
                np.array(3),
                np.array([['a'] * 5]),
            ]
        ),
        max_size=3,
    )
)
@example({1: 2, 'a': 3})
@example([{'bboxes': BOXES, 3: 4}, {'scores': 3}])
@example([{'bboxes': BOXES, 'scores': 3}] * 2)
def test_proposals_as_pickles(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'proposals.pkl'
    path.write_bytes(pickle.dumps(content))
    own_error(lambda: read_proposals(path, Images()), 'proposals.pkl')
