"""compare_detections.py says which objects one detector finds and another does not."""

import json

import pytest
from predicted_scenes import ATTRIBUTES, DETECTIONS, OBJECTS, write_data, write_predictions

DOG = ('dog', [60, 10, 80, 30], 0.99)
EDGE_DOG = ('dog', [0, 50, 20, 70], 0.98)
JUNK = ('person', [100, 100, 120, 120], 0.97)
OTHER = {1: [DOG], 2: [JUNK, JUNK], 3: [EDGE_DOG]}


@pytest.fixture
def run(load_tool, tmp_path):
    tool = load_tool('analysis_tools/compare_detections')

    def run_(*options, a=DETECTIONS, b=OTHER, **data):
        config = write_data(tmp_path, **data)
        files = [write_predictions(tmp_path / f'{n}.pkl', d) for n, d in (('a', a), ('b', b))]
        return tool.main([config, *files, *options])

    return run_


def rows_of(content, by):
    """Objects, found by A, found by B, gained, lost; by value."""
    return {
        row['value']: (row['objects'], *row['found'], row['gained'], row['lost'])
        for row in content['rows']
        if row['by'] == by
    }


def test_objects_gained_and_lost_at_one_false_positive_per_image(run):
    content = run()
    # Of A 3 false positives, .85, .8 and .7, may count in 3 images; the crowd is no object.
    a, b = content['detectors']
    assert (a['score'], b['score']) == (pytest.approx(0.7), pytest.approx(0.97))
    assert a['false_positives_per_image'] == 1
    assert b['false_positives_per_image'] == pytest.approx(2 / 3)
    assert rows_of(content, 'all') == {'': (3, 1, 2, 2, 1)}
    assert rows_of(content, 'class') == {'person': (1, 1, 0, 0, 1), 'dog': (2, 0, 2, 2, 0)}
    assert rows_of(content, 'size, px') == {'16 to 32': (3, 1, 2, 2, 1)}
    assert rows_of(content, 'time') == {'day': (2, 1, 1, 1, 1), 'night': (1, 0, 1, 1, 0)}
    assert [item['box'] for item in content['gained']] == [DOG[1], EDGE_DOG[1]]
    assert [item['class'] for item in content['lost']] == ['person']
    assert content['false_positives'] == {
        'background': [1, 2],
        'badly placed': [0, 0],
        'another class': [1, 0],
        'near another class': [0, 0],
        'found twice': [1, 0],
    }


def test_another_number_of_false_positives(run):
    content = run('--false-positives', '0.34')
    a, b = content['detectors']
    assert a['score'] == pytest.approx(0.85)
    assert b['score'] == pytest.approx(0.98)  # the two of .97 come together
    assert content['false_positives']['background'] == [1, 0]


def test_at_equal_recall(run):
    content = run('--recall', '0.3')
    assert [one['score'] for one in content['detectors']] == pytest.approx([0.9, 0.99])
    assert rows_of(content, 'all') == {'': (3, 1, 1, 1, 1)}
    with pytest.raises(SystemExit, match='0.5 is never reached.*0.333 of the 3'):
        run('--recall', '0.5')


def test_the_edge_and_the_crowding_by_hand(run):
    objects = {
        1: [
            ('person', [0, 50, 20, 70], 0),  # cut
            ('person', [180, 129, 200, 149], 0),  # at the right edge, 1 px from the lower one
            ('person', [20, 100, 40, 120], 0),  # exactly a side from the edge
            ('person', [100, 50, 120, 70], 0),  # alone
        ],
        # Centres 40 px apart are 2 sides of these, and 1 side of the large one.
        2: [('dog', [80 + dx, 60, 100 + dx, 80], 0) for dx in (0, 40)]
        + [('dog', [70, 50, 110, 90], 0)]
        + [('person', [85, 60, 105, 80], 0), ('person', [75, 60, 95, 80], 0)],
        3: [('dog', [60, 60, 80, 80], 1), ('dog', [60, 60, 80, 80], 0)],  # beside a crowd
    }
    content = run(objects=objects, a={1: [], 2: [], 3: []})
    edge = {value: row[0] for value, row in rows_of(content, "the image's edge").items()}
    assert edge == {'cut by it': 2, 'within a box side': 1, 'further inside': 7}
    near = rows_of(content, 'objects within 2 box sides')
    # The dog at +40 and the last person are 45 px apart, and have three.
    assert {value: row[0] for value, row in near.items()} == {'0': 5, '1 to 3': 2, '4 and more': 3}


def test_sizes_are_octaves(run):
    objects = {1: [('dog', [0, 0, side, side], 0) for side in (15.9, 16, 31, 32)], 2: [], 3: []}
    sizes = rows_of(run(objects=objects), 'size, px')
    assert {size: row[0] for size, row in sizes.items()} == {
        '8 to 16': 1,
        '16 to 32': 2,
        '32 to 64': 1,
    }


def test_attributes_are_chosen(run):
    content = run('--by', 'height_m', 'time')
    assert rows_of(content, 'height_m') == {'60': (3, 1, 2, 2, 1)}
    assert list(rows_of(content, 'time')) == ['day', 'night']
    content = run('--by', 'height_m', attributes={**ATTRIBUTES, 3: {}})
    assert list(rows_of(content, 'height_m')) == ['60', '(none)']


def test_attributes_that_cannot_be_are_refused(run):
    with pytest.raises(SystemExit, match='--by weather: .*no such.*they have time, height_m, note'):
        run('--by', 'weather')
    with pytest.raises(SystemExit, match='--by note: its values must be texts or numbers'):
        run('--by', 'note')


def test_an_attribute_of_too_many_values_is_refused(load_tool):
    tool = load_tool('analysis_tools/compare_detections')
    images = [dict(id=i, day=str(i), time='day' if i else 'night') for i in range(51)]
    with pytest.raises(ValueError, match='--by day: it has 51 different values, at most 50'):
        tool.image_attributes(images, ['day'])
    assert list(tool.image_attributes(images, None)) == ['time']


def test_a_table_is_printed_and_written(run, tmp_path, capsys):
    run('--names', 'whole|image', '[b]', '--out', str(tmp_path / 'deep' / 'c.md'))
    said = capsys.readouterr().out
    assert 'objects from whole|image to [b]' in said
    text = (tmp_path / 'deep' / 'c.md').read_text()
    assert r'|  | objects | found by whole\|image | found by [b] | gained | lost |' in text
    assert '| class: dog | 2 | 0 | 2 | 2 | 0 |' in text
    assert '| found twice | 1 | 0 |' in text


def test_the_json_file_is_what_was_compared(run, tmp_path):
    content = run('--out', str(tmp_path / 'c.json'))
    assert json.loads((tmp_path / 'c.json').read_text()) == content


def test_without_objects_or_detections(run):
    empty = {1: [], 2: [], 3: []}
    content = run(objects=empty, a=empty)
    assert content['detectors'][0] == dict(
        name='A', score=None, recall=None, false_positives_per_image=0
    )
    assert content['rows'] == [dict(by='all', value='', objects=0, found=[0, 0], gained=0, lost=0)]


def test_predictions_of_other_images_are_refused_by_name(run):
    with pytest.raises(SystemExit, match=r'b\.pkl: .*got 1 for 3 images'):
        run(b={1: []})


@pytest.mark.parametrize(
    'options', [['--out', 'c.csv'], ['--false-positives', '-1'], ['--false-positives', 'nan']]
)
def test_options_that_cannot_be_are_refused(run, options, capsys):
    with pytest.raises(SystemExit):
        run(*options)
    assert options[0] in capsys.readouterr().err


def test_the_scene_has_objects_in_two_of_three_images():
    assert [bool(of_image) for of_image in OBJECTS.values()] == [True, False, True]
