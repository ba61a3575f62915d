"""The benchmark of planning runs and says what it should; how fast it is, is its own business."""

import json
from pathlib import Path

import pytest
from scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def planning(monkeypatch):
    module = load_script('benchmarks/planning.py')
    # Not the data at hand: what is tested is the same everywhere.
    monkeypatch.setattr(module, 'COCO_TINY', [])
    return module


def test_what_it_writes(planning, tmp_path, capsys):
    out = tmp_path / 'results' / 'planning.json'
    planning.main(
        [
            '--images',
            '30',
            '20',
            '--repeats',
            '2',
            '--scenes',
            '1',
            '--grid-images',
            '20',
            '--negatives',
            '2',
            '--out',
            str(out),
        ]
    )
    result = json.loads(out.read_text())
    assert result['images_like'] == 'built-in'
    assert [run['images'] for run in result['runs']] == [20, 30]
    for run in result['runs']:
        assert run['coverage'] == 1.0
        assert run['plan_bytes'] == 22 * run['chips']
        assert run['ms_per_image'] > 0
    assert ['ms_grid' in run for run in result['runs']] == [True, False]
    assert result['scenes'][0]['coverage'] == 1.0
    assert result['summary']['plan_bytes_of_a_million_images'] == pytest.approx(
        result['runs'][1]['plan_bytes'] / 30 * 1e6, rel=1e-3
    )
    assert [row['proposals'] for row in result['negatives']] == [900, 900, 900]
    assert result['negatives'][0]['width'] == 640
    for row in result['negatives']:
        assert 0 < row['ms_median'] <= row['ms_max']
    assert result['summary']['negatives_ms_max'] == result['negatives'][0]['ms_max']
    assert str(ROOT) not in out.read_text()
    assert str(Path.home()) not in out.read_text()
    assert 'Dense scenes' in capsys.readouterr().out


def test_the_built_in_images_are_the_same_on_every_machine(planning, tmp_path, monkeypatch):
    image = dict(id=1, file_name='a.jpg', width=100, height=100)
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    content = dict(images=[image], annotations=[box], categories=[dict(id=1, name='a')])
    (tmp_path / 'instances_val2017.json').write_text(json.dumps(content))
    monkeypatch.setattr(planning, 'COCO_TINY', [tmp_path])
    table, source = planning.seed_images()
    assert (len(table), source) == (1, 'coco_tiny')
    table, source = planning.seed_images(planning.parse_args(['--built-in']).built_in)
    assert (len(table), source) == (1000, 'built-in')


def test_images_are_made_like_the_given_ones(planning):
    seeds = planning.built_in_images(50)
    table = planning.images_like(seeds, 400)
    assert len(table) == 400
    shapes = {(w, h) for w, h in zip(seeds.width.tolist(), seeds.height.tolist())}
    assert {(w, h) for w, h in zip(table.width.tolist(), table.height.tolist())} == shapes
    originals = {len(seeds.boxes_of(i)): seeds.boxes_of(i) for i in range(50)}
    for i in range(400):
        boxes = table.boxes_of(i)
        assert len(boxes) in originals
    mean = len(seeds.boxes) / 50
    assert len(table.boxes) / 400 == pytest.approx(mean, rel=0.2)


def test_the_exponent_of_linear_time_is_one(planning):
    runs = [
        dict(images=n, ms_per_image=0.1, ms_per_image_cpu=0.1, plan_bytes=90 * n)
        for n in (10, 1000)
    ]
    found = planning.summary(runs)
    assert found['exponent_of_time_in_images'] == pytest.approx(1)
    assert found['plan_bytes_of_a_million_images'] == 90e6
    runs[1]['ms_per_image_cpu'] = 1.0  # a hundred times the images, a thousand times the time
    assert planning.summary(runs)['exponent_of_time_in_images'] == pytest.approx(1.5)


def test_proposals_are_of_all_levels_and_some_of_them_on_objects(planning):
    pyramid = planning.ScalePyramid.from_config(planning.Config.fromfile(planning.PYRAMID).pyramid)
    for size in planning.NEGATIVES:
        table, positives = planning.proposals_and_positives(*size, pyramid, 0)
        found = planning.plan_negative_chips(table, positives, pyramid).statistics
        assert found.proposals == 900
        assert 0 < found.covered < found.valid
        assert min(found.chips_per_level[:2]) > 0  # the coarsest is one positive chip


def test_without_negatives(planning, tmp_path):
    result = planning.main(
        [
            '--images',
            '5',
            '--repeats',
            '1',
            '--scenes',
            '0',
            '--negatives',
            '0',
            '--out',
            str(tmp_path / 'planning.json'),
        ]
    )
    assert result['negatives'] == []
    assert 'negatives_ms_max' not in result['summary']
