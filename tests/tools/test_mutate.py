"""mutate.py changes single places, and tells which changes the tests notice."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(load_tool):
    return load_tool('dev/mutate')


@pytest.mark.parametrize(
    ('line', 'changed'),
    [
        ('x = a <= b', ['x = a < b']),
        ('x = a not in b is c', ['x = a in b is c', 'x = a not in b is not c']),
        ('x = (a + b) * c', ['x = (a - b) * c', 'x = (a + b) / c']),
        ('x //= y', ['x /= y']),
        ('x = a and b or c', ['x = a or b or c', 'x = a and b and c']),
        ('x = not a, -b, -3', ['x = (a), -b, -3', 'x = not a, (b), -3', 'x = not a, -b, -4']),
        ('x = 0, 2.5, True', ['x = 1, 2.5, True', 'x = 0, 3.5, True', 'x = 0, 2.5, False']),
        ('x = y[1]', ['x = y[0]', 'x = y[2]']),
        ('x = max(a, b)', ['x = (a)', 'x = min(a, b)']),
        ('x = np.clip(a, b, c)', ['x = (a)']),
        ('x = a.b.clip(c, d)', ['x = (a.b)']),
        ('x = f(a, b)', ['x = f(b, a)']),
        ('f(a, *b)', ['pass']),
        ('if f(a): g = 3', ['if (not (f(a))): g = 3', 'if f(a): g = 4']),
        ('x: Literal[1] | None = None', []),
        ("raise ValueError(f'{a + 1} is below {2}')", ['pass']),
        ("warnings.warn(f'{a + 1}' + b)", ['pass']),
        ("'''A text of 1 + 1.'''", []),
        ('def f(a: int = 3) -> Literal[4]: pass', ['def f(a: int = 4) -> Literal[4]: pass']),
    ],
)
def test_what_is_changed_in_a_line(tool, line, changed):
    found = {mutant.after for mutant in tool.mutants_of('a.py', line.encode())}
    assert found == set(changed)


def test_a_default_matters_when_the_function_runs(tool):
    source = b"# \xc3\x97\ndef f(\n    a=2,\n):\n    b = a\n    return (\n        'x' + b)\n"
    mutants = tool.mutants_of('a.py', source)
    assert [(m.line, m.after, m.span) for m in mutants] == [
        (3, 'a=3,', (5, 7)),
        (7, 'None)', (6, 7)),
        (7, "'x' - b)", (6, 7)),
    ]
    assert mutants[0].apply(source).decode() == source.decode().replace('a=2', 'a=3')


def test_a_sample_is_spread_evenly_and_the_same_again(tool):
    mutants = tool.mutants_of('a.py', b'\n'.join(b'x%d = 5' % i for i in range(100)))
    sample = tool.sample_of(mutants, 10, seed=3)
    assert sorted(mutant.line // 10.01 for mutant in sample) == list(range(10))
    assert tool.sample_of(mutants, 10, seed=3) == sample != tool.sample_of(mutants, 10, seed=4)
    assert len(tool.sample_of(mutants, 1000, seed=0)) == 100


@pytest.mark.parametrize(
    ('again', 'status'), [(['killed'] * 3, 'killed'), (['killed', 'survived'], 'by luck')]
)
def test_random_examples_must_notice_it_with_other_seeds_too(tool, monkeypatch, again, status):
    [mutant] = tool.mutants_of('mmsniper/chips/seeding.py', b'x = 5')
    answers = iter(['killed', *again])
    seeds = []

    def run(package, files, plugin, limit):
        seeds.append(plugin.seed)
        return dict(status=next(answers), failed=['tests/t.py::random'], certain=False)

    monkeypatch.setattr(tool, '_run', run)
    monkeypatch.setattr(tool, '_copy_package', lambda folder, mutant: Path(folder))
    assert tool.judge(mutant, {'tests/t.py::random': 1.0})['status'] == status
    assert seeds == [None, 1, 2, 3][: 1 + len(again)]


def spin(*_, **__):
    while True:
        pass


@pytest.mark.parametrize(
    ('main', 'limit', 'status'),
    [
        (spin, 0.9, 'timed out'),
        (lambda *_, **__: time.sleep(60), 0.1, 'timed out'),
        (lambda *_, **__: os._exit(3), 60, 'crashed'),
    ],
)
def test_tests_that_do_not_end_are_ended(tool, monkeypatch, tmp_path, main, limit, status):
    monkeypatch.setattr(tool.pytest, 'main', main)
    monkeypatch.chdir(tmp_path)
    assert tool._run(tmp_path, [], tool._FirstFailure([], None), limit)['status'] == status


@pytest.fixture
def project(tmp_path):
    """A project with a file, its tests, and the tool."""
    for name in ('tools/dev', 'mmsniper/chips', 'tests/chips'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('', 'chips/'):
        (tmp_path / 'mmsniper' / name / '__init__.py').touch()
    shutil.copy(ROOT / 'tools' / 'dev' / 'mutate.py', tmp_path / 'tools' / 'dev')
    (tmp_path / 'tools/dev/equivalent_mutants.json').write_text('[]')
    (tmp_path / 'tests/conftest.py').write_text(
        'from hypothesis import settings\n'
        "settings.register_profile('mmsniper', deadline=None)\n"
        "settings.load_profile('mmsniper')\n"
    )
    (tmp_path / 'mmsniper/chips/a.py').write_text(
        'def least(x):\n    return min(x, 7)\n\n\ndef unused(x):\n    return x < 3\n\n\n'
        'def listed(x):\n    return [x]\n'
    )
    (tmp_path / 'tests/chips/test_a.py').write_text(
        'import pytest\n'
        'from mmsniper.chips.a import least, listed\n\n\n'
        "@pytest.fixture(scope='module')\ndef shared():\n    return least(9)\n\n\n"
        'def test_first(shared):\n    pass\n\n\n'
        'def test_least(shared):\n    assert (shared, least(8)) == (7, 7)\n\n\n'
        'def test_listed():\n    listed(1)\n'
    )
    return tmp_path


def test_a_project_is_told_what_its_tests_would_not_notice(project):
    command = [sys.executable, str(project / 'tools/dev/mutate.py')]
    out = project / 'results.jsonl'
    command += ['--out', str(out), '--jobs', '2']
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = {(r['line'], r['after']): r for r in map(json.loads, out.read_text().splitlines())}
    noticed = {
        (2, 'return max(x, 7)'),
        (2, 'return (x)'),
        (2, 'return min(x, 8)'),
        (2, 'return None'),
    }
    assert {key for key, r in found.items() if r['status'] == 'killed'} == noticed
    assert found[2, 'return None']['failed'] == ['tests/chips/test_a.py::test_least']
    assert 'mmsniper/chips/a.py:10\n    - return [x]\n    + return None  [survived]' in run.stdout
    assert '+ return x <= 3  [survived: no test runs it]' in run.stdout
    assert (project / 'mmsniper/chips/a.py').read_text().count('return min(x, 7)') == 1

    entry = dict(file='mmsniper/chips/a.py', before='return [x]', after='return None', reason='-')
    (project / 'tools/dev/equivalent_mutants.json').write_text(json.dumps([entry]))
    before = out.read_text()
    again = subprocess.run(command, env=env, capture_output=True, text=True)
    assert out.read_text() == before  # all is known
    assert 'return [x]' not in again.stdout
