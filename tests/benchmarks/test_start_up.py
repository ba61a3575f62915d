"""The benchmark of the start of a training runs and says what it should."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start_up(monkeypatch):
    """The module under its own name, by which the processes that it starts find it."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import planning
    import start_up

    monkeypatch.setattr(planning, 'COCO_TINY', [])
    yield start_up
    for name in ('start_up', 'planning'):
        sys.modules.pop(name, None)


def test_what_it_writes(start_up, tmp_path):
    if not Path('/proc/self/statm').exists():
        pytest.skip('memory is measured on Linux')
    out = tmp_path / 'start_up.json'
    start_up.main(['--images', '30', '--processes', '1', '--out', str(out)])
    result = json.loads(out.read_text())
    assert result['images_like'] == 'built-in'
    (run,) = result['runs']
    assert (run['images'], run['processes']) == (30, 1)
    assert run['boxes'] / 30 == pytest.approx(start_up.BOXES_PER_IMAGE, rel=0.6)
    assert run['chips'] > 30
    assert run['first_cpu_seconds_read'] > 0
    assert '| images | 30 | 1,740,000 |' in out.with_suffix('.md').read_text()


def test_images_are_chosen_by_their_number_of_boxes(start_up):
    seeds, _ = start_up.seed_images()
    for mean in (4.0, 14.4):
        table = start_up.with_more_boxes(seeds, mean)
        assert len(table.boxes) / len(table) == pytest.approx(mean, rel=0.1)
        assert np.diff(table.offset).max() <= np.diff(seeds.offset).max()


def test_it_extrapolates_along_the_line_through_two_runs(start_up):
    few, many = (dict(images=n, processes=4, first=10.0 + n / 1e4) for n in (10_000, 40_000))
    assert start_up.extrapolated([few, many]) == dict(images=1_740_000, processes=4, first=184.0)
    assert start_up.extrapolated([dict(many, first=4.0)])['first'] == 174.0
