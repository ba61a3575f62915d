"""worst_detections.py draws false positives of the highest score and says what they are."""

import json
import pickle

import cv2
import numpy as np
import pytest
from predicted_scenes import DETECTIONS, KINDS, OBJECTS, write_data, write_predictions


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/worst_detections')


@pytest.fixture
def run(tool, tmp_path):
    def run_(*options, detections=DETECTIONS, **data):
        config = write_data(tmp_path, **data)
        predictions = write_predictions(tmp_path / 'p.pkl', detections)
        return tool.main([config, predictions, '--out-dir', str(tmp_path / 'out'), *options])

    return run_


def test_every_false_positive_has_its_kind(run, tmp_path, capsys):
    rows = run()
    assert {row['score']: row['kind'] for row in rows} == KINDS
    assert [row['rank'] for row in rows] == [1, 2, 3, 4, 5, 6]
    first, second = rows[:2]
    assert (first['image_id'], first['class'], first['object']) == (2, 'person', None)
    assert first['box'] == [50, 50, 70, 70]
    assert second['object'] == {'box': [10, 10, 30, 30], 'class': 'person', 'iou': 0.95}
    assert rows[2]['object']['class'] == 'dog'
    content = json.loads((tmp_path / 'out' / 'worst.json').read_text())
    assert content == {'detections': rows}
    said = capsys.readouterr().out
    assert 'The 6 most wrong of 6 false positives' in said
    assert 'worst_1.png' in said


def test_the_picture_has_a_cell_for_each(run, tool, tmp_path, monkeypatch):
    drawn = []
    draw = tool.draw_false_positives
    monkeypatch.setattr(
        tool, 'draw_false_positives', lambda page, **kw: drawn.extend(page) or draw(page, **kw)
    )
    run()
    assert cv2.imread(str(tmp_path / 'out' / 'worst_1.png')).shape[1] > 500
    twice, on_dog, in_crowd = drawn[1], drawn[2], drawn[5]
    assert twice.finder.tolist() == [[10, 10, 30, 30]]
    assert twice.lines[0] == '20×19 px; person at IoU 0.95'
    assert on_dog.finder.tolist() == []
    assert (list(twice.names), twice.same_class.tolist()) == (['person', 'dog'], [True, False])
    # The window of 80 px around the dog reaches the crowd.
    assert (list(on_dog.names), on_dog.same_class.tolist()) == (['dog'], [False])
    assert on_dog.crowds.tolist() == [[100, 0, 190, 60]]
    assert in_crowd.crowds.tolist() == [[100, 0, 190, 60]]


def test_many_are_drawn_on_several_pages(run, tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'PER_PAGE', 2)
    run('--num', '5')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'worst.json',
        'worst_1.png',
        'worst_2.png',
        'worst_3.png',
    ]


def test_at_a_recall_all_are_counted_and_only_those_are_drawn(run, tmp_path):
    dog = ('dog', [0, 50, 20, 70], 0.75)  # right
    rows = run('--num', '1', '--recall', '0.6', detections={**DETECTIONS, 3: [dog]})
    content = json.loads((tmp_path / 'out' / 'worst.json').read_text())
    assert [row['score'] for row in rows] == [0.85]
    assert content['score'] == pytest.approx(0.75)
    assert content['all'] == {'background': {'person': 1}, 'found twice': {'person': 1}}


def test_a_recall_that_is_not_reached_is_an_error(run):
    with pytest.raises(SystemExit, match='never reached'):
        run('--recall', '0.9')


def test_images_of_16_bits_are_drawn(run, tmp_path):
    run('--num', '1', dtype=np.uint16)
    assert (tmp_path / 'out' / 'worst_1.png').is_file()


def test_without_predictions_there_is_no_picture(run, tmp_path, capsys):
    assert run(detections={1: [], 2: [], 3: []}) == []
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['worst.json']
    assert '0 most wrong' in capsys.readouterr().out


def test_without_objects_everything_is_background(run):
    rows = run(objects={1: [], 2: [], 3: []})
    assert len(rows) == 8
    assert {row['kind'] for row in rows} == {'background'}


def test_predictions_of_other_images_are_refused(run):
    some = {i: found for i, found in DETECTIONS.items() if i < 3}
    with pytest.raises(SystemExit, match=r'p\.pkl: .*got 2 for 3 images.* has the id 3'):
        run(detections=some)


def test_a_file_that_is_not_of_predictions_is_refused(tool, tmp_path):
    config = write_data(tmp_path)
    arguments = [config, str(tmp_path / 'p.pkl'), '--out-dir', str(tmp_path / 'out')]
    with pytest.raises(SystemExit, match='there is no file'):
        tool.main(arguments)
    for content in ([dict(img_id=1)], dict(a=1), [dict(img_id=1, pred_instances=dict(bboxes=[]))]):
        (tmp_path / 'p.pkl').write_bytes(pickle.dumps(content))
        with pytest.raises(SystemExit, match='entry 0 is another.*tools/test.py'):
            tool.main(arguments)


def test_another_kind_of_data_set_and_several_are_refused(tool, tmp_path):
    config = write_data(tmp_path)
    predictions = write_predictions(tmp_path / 'p.pkl')
    text = (tmp_path / 'config.py').read_text()
    out = ['--out-dir', str(tmp_path / 'out')]
    (tmp_path / 'config.py').write_text(
        text + "test_dataloader['dataset'] = dict(type='ConcatDataset', "
        "datasets=[test_dataloader['dataset']] * 2)"
    )
    with pytest.raises(SystemExit, match='has 2 data sets'):
        tool.main([config, predictions, *out])
    (tmp_path / 'config.py').write_text("model = dict(type='FCOS')")
    with pytest.raises(SystemExit, match='no test_dataloader'):
        tool.main([config, predictions, *out])


def test_a_part_of_the_data_set_is_compared_with_its_part(run):
    rows = run(
        '--cfg-options',
        'test_dataloader.dataset.indices=2',
        detections={i: DETECTIONS[i] for i in (1, 2)},
    )
    assert {row['score']: row['kind'] for row in rows} == KINDS


def test_objects_of_the_scene_are_as_the_comments_say():
    assert [len(of_image) for of_image in OBJECTS.values()] == [3, 0, 1]
