"""Proposals of a data set's images, from the files that detectors write."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from mmdet.evaluation import DumpDetResults
from mmdet.evaluation.metrics import DumpProposals
from mmdet.registry import DATASETS
from mmengine.structures import InstanceData

from mmsniper.datasets.data_pickle import load_data
from mmsniper.datasets.proposal_files import ImageProposals, read_proposals

SIZES = ((100, 80), (60, 90), (50, 50))


@pytest.fixture
def dataset(make_coco):
    """Three images, 0.png to 2.png in a folder called 'set', the last without objects."""
    boxes = [[[10, 10, 20, 20]], [[5, 5, 40, 40]], []]
    images = [dict(size=size, boxes=some) for size, some in zip(SIZES, boxes)]
    return DATASETS.build(make_coco(images, filter_cfg=dict(filter_empty_gt=False)))


def random_proposals(counts=(4, 0, 7)):
    """For each image boxes inside it and scores, in no order."""
    rng = np.random.default_rng(0)
    found = []
    for (width, height), count in zip(SIZES, counts):
        corners = np.sort(rng.random((count, 2, 2)), axis=1) * (width, height)
        found.append(
            ImageProposals(
                corners.reshape(-1, 4).astype(np.float32), rng.random(count).astype(np.float32)
            )
        )
    return found


def as_instances(proposals):
    return InstanceData(bboxes=proposals.boxes, scores=proposals.scores)


def written(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected):
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)
        np.testing.assert_array_equal(mine.scores, theirs.scores)


def samples_of(dataset, proposals, shuffled=(2, 0, 1)):
    """What MMDetection's metrics get of a test over the images in some order."""
    for i in shuffled:
        pred = dict(
            bboxes=torch.tensor(proposals[i].boxes),
            scores=torch.tensor(proposals[i].scores),
            labels=torch.zeros(len(proposals[i].scores), dtype=torch.long),
        )
        info = dataset.get_data_info(i)
        yield dict(
            img_path=info['img_path'],
            img_id=info['img_id'],
            ori_shape=SIZES[i][::-1],
            pred_instances=pred,
        )


# The formats --------------------------------------------------------------------------------------


def test_what_mmdetections_own_metric_dumps(dataset, tmp_path):
    proposals = random_proposals()
    metric = DumpProposals(output_dir=str(tmp_path), proposals_file='p.pkl')
    metric.process({}, list(samples_of(dataset, proposals)))
    metric.evaluate(size=3)
    keys = pickle.loads((tmp_path / 'p.pkl').read_bytes())
    assert sorted(keys) == ['set/0.png', 'set/1.png', 'set/2.png']
    best_first = [p.best(99, 0.0) for p in proposals]
    assert_equal(read_proposals(tmp_path / 'p.pkl', dataset), best_first)


def test_what_mmdetections_test_writes_for_a_detector_without_rpn(dataset, tmp_path):
    proposals = random_proposals()
    metric = DumpDetResults(out_file_path=str(tmp_path / 'r.pkl'))
    metric.process({}, list(samples_of(dataset, proposals)))
    metric.evaluate(size=3)
    assert_equal(read_proposals(tmp_path / 'r.pkl', dataset), proposals)


def test_the_list_of_mmdetection_2_is_in_the_order_of_the_data_set(dataset, tmp_path):
    proposals = random_proposals()
    rows = [np.column_stack([p.boxes, p.scores]) for p in proposals]
    assert_equal(read_proposals(written(tmp_path / 'p.pkl', rows), dataset), proposals)


def test_boxes_without_scores_are_taken_to_be_best_first(dataset, tmp_path):
    proposals = random_proposals()
    file = written(tmp_path / 'p.pkl', [p.boxes for p in proposals])
    for mine, theirs in zip(read_proposals(file, dataset), proposals):
        np.testing.assert_array_equal(mine.best(3, 0.0).boxes, theirs.boxes[:3])


def test_coco_results_where_an_image_without_proposals_does_not_occur(dataset, tmp_path):
    results = [
        dict(image_id=2, bbox=[10, 20, 30, 5], score=0.25),
        dict(image_id=0, bbox=[1, 2, 3, 4], score=0.5, category_id=7),
        dict(image_id=2, bbox=[0, 0, 50, 50], score=1),
        dict(image_id=77, bbox=[0, 0, 9, 9], score=1),
    ]
    (tmp_path / 'r.json').write_text(json.dumps(results))
    found = read_proposals(tmp_path / 'r.json', dataset)
    assert [p.boxes.tolist() for p in found] == [
        [[1, 2, 4, 6]],
        [],
        [[10, 20, 40, 25], [0, 0, 50, 50]],
    ]
    assert [p.scores.tolist() for p in found] == [[0.5], [], [0.25, 1]]


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_every_protocol_of_pickles_with_arrays_and_tensors(dataset, tmp_path, protocol):
    proposals = random_proposals()
    content = {
        'set/0.png': as_instances(proposals[0]),
        'set/1.png': dict(bboxes=proposals[1].boxes, scores=proposals[1].scores),
        'set/2.png': InstanceData(
            bboxes=torch.tensor(proposals[2].boxes), scores=torch.tensor(proposals[2].scores)
        ),
    }
    file = written(tmp_path / 'p.pkl', content, protocol)
    assert_equal(read_proposals(file, dataset), proposals)


@pytest.mark.parametrize('core', [b'numpy.core.', b'numpy._core.'])
def test_pickles_of_numpy_1_and_of_numpy_2(dataset, tmp_path, core):
    proposals = random_proposals()
    file = written(tmp_path / 'p.pkl', [np.column_stack([p.boxes, p.scores]) for p in proposals])
    content = file.read_bytes().replace(b'numpy._core.', b'numpy.core.')
    file.write_bytes(content.replace(b'numpy.core.', core))
    assert core in file.read_bytes()
    assert_equal(read_proposals(file, dataset), proposals)


# Images -------------------------------------------------------------------------------------------


def test_repeated_and_concatenated_images_get_the_same_proposals_again(dataset, tmp_path):
    class Repeated:
        def __len__(self):
            return 6

        def get_data_info(self, i):
            return dataset.get_data_info(i % 3)

    proposals = random_proposals()
    named = {f'set/{i}.png': as_instances(p) for i, p in enumerate(proposals)}
    listed = [np.column_stack([p.boxes, p.scores]) for p in proposals]
    for content in (named, listed):
        file = written(tmp_path / 'p.pkl', content)
        assert_equal(read_proposals(file, Repeated()), proposals * 2)
    row = dict(image_id=1, bbox=[0, 0, 9, 9], score=1)
    (tmp_path / 'p.json').write_text(json.dumps([row]))
    counts = [len(p.boxes) for p in read_proposals(tmp_path / 'p.json', Repeated())]
    assert counts == [0, 1, 0, 0, 1, 0]


def test_images_that_are_in_the_file_only_are_left_out(dataset, tmp_path):
    proposals = random_proposals()
    content = {f'set/{i}.png': as_instances(p) for i, p in enumerate(proposals)}
    content['set/99.png'] = as_instances(proposals[0])
    assert_equal(read_proposals(written(tmp_path / 'p.pkl', content), dataset), proposals)


def test_the_best_are_those_of_highest_score_with_ties_in_their_order():
    boxes = np.arange(20, dtype=np.float32).reshape(5, 4)
    proposals = ImageProposals(boxes, np.array([0.5, 0.9, 0.1, 0.9, np.nan], np.float32))
    assert proposals.best(2, 0.0).boxes[:, 0].tolist() == [4, 12]
    assert proposals.best(9, 0.5).boxes[:, 0].tolist() == [4, 12, 0]
    assert len(proposals.best(9, 0.95).scores) == 0


# Mistakes -----------------------------------------------------------------------------------------


def error_of(path, dataset):
    with pytest.raises(ValueError, match=path.name) as caught:
        read_proposals(path, dataset)
    message = str(caught.value)
    assert str(path) in message
    assert '\n' not in message
    return message


def test_counts_the_images_without_an_entry(dataset, tmp_path):
    content = {'set/1.png': as_instances(random_proposals()[1])}
    message = error_of(written(tmp_path / 'p.pkl', content), dataset)
    assert 'has no proposals for 2 of the 3 images, such as' in message
    assert '0.png' in message


def test_names_a_file_of_each_side_if_none_matches(dataset, tmp_path):
    content = {'val/7.png': as_instances(random_proposals()[1])}
    message = error_of(written(tmp_path / 'p.pkl', content), dataset)
    assert 'none of its 1 files, such as val/7.png, is one of this data set' in message
    assert 'Were they made on the training images?' in message
    (tmp_path / 'p.json').write_text(json.dumps([dict(image_id='x', bbox=[0, 0, 1, 1], score=1)]))
    assert "ids, such as 'x', is one of this data set, such as 0" in error_of(
        tmp_path / 'p.json', dataset
    )


def test_the_same_file_name_in_another_folder_is_another_image(dataset, tmp_path):
    """Training and validation images are often numbered from 0, each in a folder of its own."""
    content = {f'val/{i}.png': as_instances(p) for i, p in enumerate(random_proposals())}
    message = error_of(written(tmp_path / 'p.pkl', content), dataset)
    assert 'has proposals of val/0.png, the data set has ' in message
    moved = {
        f'/somewhere/else/set/{i}.png': as_instances(p) for i, p in enumerate(random_proposals())
    }
    assert_equal(read_proposals(written(tmp_path / 'p.pkl', moved), dataset), random_proposals())


def test_a_list_for_another_number_of_images_says_how_to_get_all_of_them(dataset, tmp_path):
    message = error_of(written(tmp_path / 'p.pkl', [np.zeros((0, 5))] * 4), dataset)
    assert 'a list for 4 images' in message
    assert 'this one has 3' in message
    assert 'filter_cfg=None' in message


@pytest.mark.parametrize(
    ('row', 'box'),
    [
        ([60, 10, 20, 20, 1], r'\[60.0, 10.0, 20.0, 20.0\]'),  # x, y, width, height
        ([200, 20, 240, 60, 1], r'\[200.0, 20.0, 240.0, 60.0\]'),  # pixels of a larger picture
        ([np.nan, 20, 30, 40, 1], r'\[nan, 20.0, 30.0, 40.0\]'),
    ],
)
def test_boxes_in_another_frame_are_told_from_what_sticks_out_a_little(dataset, tmp_path, row, box):
    rows = np.tile([-30.0, -3, 99, 85, 1], (100, 1))
    empty = np.zeros((0, 5))
    file = tmp_path / 'p.pkl'
    rows[:1] = row
    assert len(read_proposals(written(file, [rows, empty, empty]), dataset)[0].boxes) == 100
    rows[:2] = row
    with pytest.raises(ValueError, match=f'2 of 100 boxes are not inside .*{box} of .*0.png') as e:
        read_proposals(written(file, [rows, empty, empty]), dataset)
    assert 'which has 100x80 px: boxes must be x1, y1, x2, y2' in str(e.value)


@pytest.mark.parametrize(
    ('box', 'inside'),
    [
        ([-3, 10, 1, 20], True),  # the centre on the left edge, at x = -1
        ([-3.5, 10, 1, 20], False),
        ([10, -3, 20, 1], True),
        ([10, -3.5, 20, 1], False),
        ([98, 10, 104, 20], True),  # at x = 101 of 100
        ([98, 10, 104.5, 20], False),
        ([10, 78, 20, 84], True),  # at y = 81 of 80
        ([10, 78, 20, 84.5], False),
        ([30, 20, 30, 20], True),  # no area
        ([30, 20, 29.5, 40], False),  # inside out
        ([30, 20, 40, 19.5], False),
    ],
)
def test_a_box_is_inside_if_its_centre_is_to_a_pixel(dataset, tmp_path, box, inside):
    file = written(tmp_path / 'p.pkl', [np.array([[*box, 1]]), np.zeros((0, 5)), np.zeros((0, 5))])
    if inside:
        assert read_proposals(file, dataset)[0].boxes.tolist() == [box]
    else:
        with pytest.raises(ValueError, match='1 of 1 boxes are not inside their images'):
            read_proposals(file, dataset)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'set/0.png': InstanceData(bboxes=np.zeros((1, 4)))}, r'set/0.png has no scores, it has'),
        ({'set/0.png': 5}, r'set/0.png is a int; expected are boxes and scores'),
        ({'set/0.png': np.zeros((2, 6))}, r'ndarray of shape \(2, 6\); expected'),
        ({'set/0.png': dict(bboxes=np.zeros((2, 4)), scores=np.zeros(3))}, r'\(2, 4\) and \(3,\)'),
        ({'set/0.png': dict(bboxes=np.array([['a'] * 4]), scores=[1])}, 'must be numbers'),
        ({3: np.zeros((0, 5))}, 'must name images by their files, it has 3'),
        (5, 'holds a int; expected is a dict of InstanceData'),
        ('text', 'holds a str; expected'),
    ],
)
def test_says_what_is_wrong_with_a_pickle(make_coco, tmp_path, content, message):
    one = DATASETS.build(make_coco([dict(size=(50, 50), boxes=[[1, 1, 9, 9]])]))
    with pytest.raises(ValueError, match=message):
        read_proposals(written(tmp_path / 'p.pkl', content), one)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'is not a JSON file'),
        ('{"images": []}', 'is not a file of COCO results: .* it holds a dict'),
        ('[{"image_id": 0, "bbox": [1, 2, 3, 4]}]', "result 0 must have .*KeyError: 'score'"),
        ('[{"image_id": 0, "bbox": [1, 2, 3], "score": 1}]', r'bbox must be .*got \[1, 2, 3\]'),
        ('[{"image_id": [1], "bbox": [1, 2, 3, 4], "score": 1}]', 'result 0 must have'),
        ('[3]', 'result 0 must have'),
    ],
)
def test_says_what_is_wrong_with_coco_results(dataset, tmp_path, text, message):
    (tmp_path / 'r.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_proposals(tmp_path / 'r.json', dataset)


def test_ids_must_tell_the_images_apart(dataset, tmp_path):
    class Mixed:
        def __len__(self):
            return 2

        def get_data_info(self, i):
            return {**dataset.get_data_info(i), 'img_id': 0}

    (tmp_path / 'r.json').write_text('[]')
    with pytest.raises(ValueError, match='ids, which are not unique'):
        read_proposals(tmp_path / 'r.json', Mixed())


def test_says_which_files_are_read_and_which_file_is_missing(dataset, tmp_path):
    assert '.pkl or .pickle' in error_of(tmp_path / 'p.npz', dataset)
    for name in ('p.pkl', 'p.json'):
        with pytest.raises(FileNotFoundError, match=f'no file .*{name}'):
            read_proposals(tmp_path / name, dataset)


# What a pickle may hold ---------------------------------------------------------------------------


class Call:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize(
    ('function', 'name'),
    [
        (os.system, 'posix.system'),
        (eval, 'builtin.*eval'),
        (getattr, 'builtin.*getattr'),
        (torch.load, 'torch.serialization.load'),
        (np.load, 'numpy.load'),
    ],
)
def test_a_pickle_that_asks_for_a_function_is_refused_before_it_is_called(
    dataset, tmp_path, function, name, protocol
):
    mark = tmp_path / 'mark'
    arguments = {os.system: (f'touch {mark}',), eval: (f'open({str(mark)!r}, "w")',)}
    content = {'set/0.png': Call(function, *arguments.get(function, (str(mark), 'x')))}
    file = written(tmp_path / 'p.pkl', content, protocol)
    with pytest.raises(ValueError, match=f'is refused: it asks for .*{name}.*run any code'):
        read_proposals(file, dataset)
    assert not mark.exists()
    if function in (os.system, eval):  # the call would work
        pickle.loads(file.read_bytes())
        assert mark.exists()


def test_a_tensor_whose_storage_hides_a_call_is_refused(tmp_path):
    mark = tmp_path / 'mark'
    inner = tmp_path / 'inner.pth'
    torch.save(Call(os.system, f'touch {mark}'), inner, _use_new_zipfile_serialization=False)
    file = written(tmp_path / 'p.pkl', Call(torch.storage._load_from_bytes, inner.read_bytes()))
    with pytest.raises(ValueError, match='p.pkl'):
        load_data(file)
    assert not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists()


def test_codecs_other_than_that_of_bytes_are_refused(tmp_path):
    import _codecs

    file = written(tmp_path / 'p.pkl', Call(_codecs.encode, b'abc', 'zlib'))
    with pytest.raises(ValueError, match='the codec zlib'):
        load_data(file)
    content = [b'\xff\x00', b'']
    assert load_data(written(tmp_path / 'p.pkl', content)) == content


def test_other_classes_are_named(tmp_path):
    from pathlib import PurePosixPath

    with pytest.raises(ValueError, match=r'asks for pathlib\S*\.PurePosixPath'):
        load_data(written(tmp_path / 'p.pkl', [PurePosixPath('a')]))


def test_a_pickle_that_was_cut_short_says_so_at_every_length(tmp_path):
    whole = written(tmp_path / 'p.pkl', {'a': as_instances(random_proposals()[0])}).read_bytes()
    load_data(tmp_path / 'p.pkl')
    for length in range(len(whole)):
        (tmp_path / 'p.pkl').write_bytes(whole[:length])
        with pytest.raises(ValueError, match='not a whole pickle, it may have been cut short'):
            load_data(tmp_path / 'p.pkl')
