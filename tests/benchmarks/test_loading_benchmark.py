"""The benchmark of loading sends the same chips in all ways and finds the images kept."""

import json

import pytest
from scripts import load_script


@pytest.fixture
def benchmark(monkeypatch):
    module = load_script('benchmarks/loading.py')
    monkeypatch.setattr(module, 'PHOTO', (600, 500))
    monkeypatch.setattr(module, 'OBJECTS', ((12, 20),))
    return module


def test_json_and_page_are_written(benchmark, tmp_path, capsys):
    folder = tmp_path / 'photos'
    folder.mkdir()
    data = benchmark.make_photos(folder, 3, 12, 20)
    result = benchmark.main(
        [
            *('--coco', str(data.ann_file), str(folder), '--photos', '1', '--rounds', '2'),
            *('--batch-size', '2', '--cache-mb', '50', '--out', str(tmp_path / 'loading')),
        ]
    )
    given, made = result['rows']
    assert (given['data'], given['images'], made['images']) == ('photos', 3, 1)
    assert made['data'] == '600x500 JPEG, 12 objects of 20 px'
    assert 0 < given['kept'] < 1
    assert min(given['ms_per_chip']) > 0
    assert [len(ratios) for ratios in given['times_faster_of_rounds']] == [2, 2]
    assert json.loads((tmp_path / 'loading.json').read_text())['rows'] == result['rows']
    page = (tmp_path / 'loading.md').read_text()
    assert capsys.readouterr().out.endswith(page)
    assert str(tmp_path) not in page
