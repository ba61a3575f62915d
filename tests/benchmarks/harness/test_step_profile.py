"""Waits are counted by the line that waits; the host's time by the function that spends it."""

import sys
from types import ModuleType

import pytest
import torch

from harness import step_profile
from harness.step_profile import HostTime, Synchronisations, source


@pytest.fixture
def module():
    """Call ``module(text, 'mmdet/a.py')`` for a module whose code seems to be in that file."""

    def make(text: str, file: str) -> ModuleType:
        made = ModuleType('made')
        exec(compile(text, f'/somewhere/{file}', 'exec'), made.__dict__)
        return made

    return make


def test_waits_of_each_line(module):
    code = module(
        'import torch\n'
        'def f(x):\n'
        '    y = x[x > 1]\n'  # 3: waits for the number
        '    x[x > 1] = 0\n'  # 4: does not
        '    x[x > -1] = torch.ones(3)\n'  # 5: does
        '    if x.sum() > 0:\n'  # 6: one number
        '        x.new_tensor([1.0])\n'  # 7: from the host, without pinned memory
        '        torch.tensor([1.0])\n'  # 8: stays there
        '    return x.tolist(), torch.nonzero(x)\n',  # 9: two
        'mmdet/a.py',
    )
    with Synchronisations('cpu').counting() as found:
        code.f(torch.arange(3.0))
    lines = {(name.split()[0], kind): count for (name, kind), count in found.counts.items()}
    assert lines == {
        ('mmdet/a.py:3', 'boolean index'): 1,
        ('mmdet/a.py:5', 'boolean index'): 1,
        ('mmdet/a.py:6', 'one number'): 1,
        ('mmdet/a.py:7', 'host to device'): 1,
        ('mmdet/a.py:9', 'device to host'): 1,
        ('mmdet/a.py:9', 'nonzero'): 1,
    }
    assert found.table()[0]['count'] == 1


def test_what_ours_has_called_is_told_with_our_line(module):
    theirs = module('def f(x):\n    return x.sum().item()\n', 'mmdet/a.py')
    ours = module('def g(f, x):\n    x.numpy()\n    return f(x)\n', 'mmsniper/b.py')
    with Synchronisations('cpu').counting() as found:
        ours.g(theirs.f, torch.ones(2))
    rows = {row['source']: row['via'] for row in found.table()}
    assert rows == {'mmdet/a.py:2 f': ['mmsniper/b.py:3 g'], 'mmsniper/b.py:2 g': []}
    with found.counting_operations():
        ours.g(theirs.f, torch.ones(2))
    assert found.ops['mmdet/a.py:2 f'] == 2  # sum, and the number of it
    assert found.counts.total() == 2, 'operations are no waits'


def test_data_structures_are_nobodys(module):
    assert source(module('f = lambda: 0', 'mmengine/structures/x.py').f.__code__) is None
    assert source(module('f = lambda: 0', 'torch/x.py').f.__code__) is None
    assert source(module('f = lambda: 0', 'mmdet/x.py').f.__code__) == 'mmdet/x.py:1 <lambda>'


def test_time_below_goes_to_who_called(module, monkeypatch):
    now = 0.0
    monkeypatch.setattr(step_profile.time, 'perf_counter', lambda: now)

    def work():
        nonlocal now
        now += 0.02

    theirs = module('def f(work):\n    work()\n    work()\n', 'mmdet/a.py')
    ours = module('def g(f, work):\n    work()\n    f(work)\n', 'mmsniper/b.py')
    with HostTime().measuring() as spent:
        ours.g(theirs.f, work)
    assert sys.getprofile() is None
    files = spent.by_file()
    assert files['mmdet/a.py'] == pytest.approx(0.04)
    assert files['mmsniper/b.py'] == pytest.approx(0.02)
    assert spent.share() == pytest.approx(1 / 3)
