"""The benchmark of loading sends the same chips in all ways and finds the images kept."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    path = ROOT / 'benchmarks' / 'loading.py'
    spec = importlib.util.spec_from_file_location('loading_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'PHOTO', (600, 500))
    monkeypatch.setattr(module, 'OBJECTS', ((12, 20),))
    yield module
    del sys.modules[spec.name]


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
