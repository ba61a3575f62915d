"""What got slower is found, whatever the scripts do; how fast they are, is not tested here."""

import dataclasses
import importlib
import json
import subprocess
from pathlib import Path

import bench
import pytest

from harness import short_runs
from harness.short_runs import COUNT, MEMORY, TIME, Measurement, Ratio, Run, compare, run_once

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / 'benchmarks'
FAKE = """
import json, os, sys
from pathlib import Path

calls = Path({calls!r})
calls.write_text(calls.read_text() + 'x' if calls.exists() else 'x')
if {said!r}:
    sys.exit({said!r})
result = {results!r}[len(calls.read_text()) - 1]
Path(sys.argv[sys.argv.index('--out') + 1]).write_text(json.dumps(result))
told = [os.getcwd(), os.environ['OMP_NUM_THREADS'], *sys.argv[1:]]
Path('left behind').write_text(' '.join(told))
"""
RATIO = Ratio('a / b', lambda result: result['a'] / result['b'])


class Fakes:
    """Measurements by scripts that write the given results, one in each run."""

    def __init__(self, folder):
        self.folder, self.reference = folder, folder / 'reference.json'

    def make(self, *values, name='fake', said='', ratios=(RATIO,), b=1.0):
        results = [dict(a=value, b=b) for value in values]
        calls = str(self.folder / f'{name}.calls')
        script = self.folder / f'{name}.py'
        script.write_text(FAKE.format(calls=calls, said=said, results=results))
        return Measurement(str(script), '--in {folder}', tuple(ratios))

    def calls(self, name='fake'):
        path = self.folder / f'{name}.calls'
        return len(path.read_text()) if path.exists() else 0

    def bench(self, *measurements, options=()):
        for path in self.folder.glob('*.calls'):
            path.unlink()
        return bench.main(['--reference', str(self.reference), *options], measurements)

    def update(self, *measurements, options=()):
        return self.bench(*measurements, options=['--update', *options])

    def written(self):
        return json.loads(self.reference.read_text())['measurements']


@pytest.fixture
def fakes(tmp_path):
    return Fakes(tmp_path)


# Verdicts -----------------------------------------------------------------------------------------


def verdicts(reference, now, kind=TIME):
    measurement = Measurement('m.py', '', (Ratio('a / b', lambda result: 1.0, kind),))
    runs = [Run({} if value is None else {'a / b': value}) for value in now]
    rows = compare(measurement, {'a / b': reference} if reference else {}, runs)
    return [(row.verdict, row.bad) for row in rows]


@pytest.mark.parametrize(
    ('kind', 'now', 'verdict', 'bad'),
    [
        (TIME, 1.25, 'same', False),
        (TIME, 1.26, 'SLOWER', True),
        (TIME, 0.81, 'same', False),
        (TIME, 0.79, 'faster', False),
        (MEMORY, 1.11, 'MORE', True),
        (MEMORY, 0.90, 'less', False),
        (COUNT, 1.02, 'same', False),
        (COUNT, 1.03, 'MORE', True),
    ],
)
def test_a_ratio_may_be_worse_by_the_tolerance_of_its_kind(kind, now, verdict, bad):
    assert verdicts([1.0], [now], kind) == [(verdict, bad)]


def test_a_ratio_may_be_worse_by_three_spreads_of_the_reference():
    assert verdicts([0.9, 1.0, 1.1], [1.59]) == [('same', False)]  # 3 times 0.2 of the median, 1
    assert verdicts([0.9, 1.0, 1.1], [1.61]) == [('SLOWER', True)]
    assert verdicts([0.9, 1.0, 1.1], [0.63]) == [('same', False)]
    assert verdicts([0.9, 1.0, 1.1], [0.62]) == [('faster', False)]


def test_medians_count():
    assert verdicts([1.0, 1.01, 7.0], [1.0]) == [('same', False)]
    assert verdicts([1.0], [1.0, 9.0, 1.1]) == [('same', False)]


def test_what_only_one_of_the_two_has():
    assert verdicts([], [1.0]) == [('new', False)]
    assert verdicts([1.0], [None]) == [('missing', True)]
    assert verdicts([], [None]) == [('missing', True)]
    measurement = Measurement('m.py', '', ())
    (row,) = compare(measurement, {'gone': [1.0]}, [Run()])
    assert (row.ratio, row.verdict, row.bad) == ('gone', 'missing', True)


def test_ratios_that_a_result_does_not_have_are_left_out():
    ratios = {
        'good': lambda result: result['a'][0] / 3,
        'no key': lambda result: result['b'],
        'no row': lambda result: result['a'][9],
        'no such row': lambda result: bench.named(result['rows'], name='c')['a'],
        'of nothing': lambda result: 1 / result['zero'],
        'no number': lambda result: float('nan'),
    }
    measurement = Measurement('m.py', '', tuple(Ratio(*item) for item in ratios.items()))
    result = dict(a=[2], zero=0, rows=[dict(name='b', a=1)])
    assert dict(short_runs.found_ratios(measurement, result)) == {'good': 0.6667}


# Runs ---------------------------------------------------------------------------------------------


def test_a_script_runs_in_a_folder_that_is_gone_afterwards(fakes, tmp_path):
    measurement = fakes.make(3.0)
    text = Path(measurement.script).read_text().replace('left behind', str(tmp_path / 'told'))
    Path(measurement.script).write_text(text)
    run = run_once(measurement)
    assert (run.ratios, run.fault) == ({'a / b': 3.0}, '')
    assert run.cpu_seconds > 0
    folder, threads, *arguments = (tmp_path / 'told').read_text().split()
    assert threads == '1'
    assert arguments == ['--in', folder, '--out', f'{folder}/result.json']
    assert not Path(folder).exists()


def test_what_went_wrong_is_told(fakes, tmp_path):
    assert run_once(fakes.make(said='no [rasterio]')).fault == 'exit status 1\nno [rasterio]'
    silent = tmp_path / 'silent.py'
    silent.write_text('')
    assert 'it has written no result' in run_once(Measurement(str(silent), '', ())).fault
    endless = tmp_path / 'endless.py'
    endless.write_text('while True: pass')
    assert run_once(Measurement(str(endless), '', ()), 0.1).fault == 'it took more than 0.1 s'


def test_an_interrupt_ends_the_script_that_runs(fakes, tmp_path, monkeypatch):
    children = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            children.append(self)

        def wait(self, timeout=None):
            if timeout is not None:
                raise KeyboardInterrupt
            return super().wait()

    monkeypatch.setattr(subprocess, 'Popen', Interrupted)
    endless = tmp_path / 'endless.py'
    endless.write_text('while True: pass')
    with pytest.raises(KeyboardInterrupt):
        run_once(Measurement(str(endless), '', ()))
    assert [child.returncode for child in children] == [-9]


# The command line ---------------------------------------------------------------------------------


def test_what_is_the_same_passes_after_one_run(fakes, capsys):
    assert fakes.update(fakes.make(1.0, 1.1, 1.05)) == 0
    assert fakes.written()['fake']['ratios'] == {'a / b': [1.0, 1.1, 1.05]}
    assert fakes.calls() == 3
    assert fakes.bench(fakes.make(1.1)) == 0
    assert fakes.calls() == 1
    out = capsys.readouterr().out
    assert '0 of 1 ratios got worse or are missing' in out
    assert 'python benchmarks/gpu_training.py' in out
    assert '25%' in out


def test_what_looks_slower_is_run_again(fakes, capsys):
    fakes.update(fakes.make(1.0), options=['--repeats', '1'])
    assert fakes.bench(fakes.make(2.0, 1.0, 1.1)) == 0
    assert fakes.calls() == 3
    capsys.readouterr()
    assert fakes.bench(fakes.make(2.0, 1.0, 2.1)) == 1
    out = capsys.readouterr().out
    assert '1 of 1 ratios got worse' in out
    assert 'SLOWER' in out


def test_a_script_that_fails_does_not_stop_the_others(fakes, capsys):
    good, bad = fakes.make(1.0, name='good'), fakes.make(1.0, name='bad')
    assert fakes.update(bad, good, options=['--repeats', '1']) == 0
    bad = fakes.make(name='bad', said='no [rasterio]')
    capsys.readouterr()
    assert fakes.bench(bad, good) == 1
    assert (fakes.calls('bad'), fakes.calls('good')) == (1, 1)
    out = capsys.readouterr().out
    assert 'no [rasterio]' in out
    assert 'failed: bad' in out
    assert 'missing' in out
    # Nor does it take the others' places in the reference, or lose its own.
    before = fakes.written()
    better = fakes.make(0.5, name='good')
    assert fakes.update(bad, better, options=['--repeats', '1']) == 1
    assert fakes.written()['bad'] == before['bad']
    assert fakes.written()['good']['ratios'] == {'a / b': [0.5]}


def test_a_ratio_that_is_missing_is_no_success(fakes):
    fakes.update(fakes.make(1.0), options=['--repeats', '1'])
    assert fakes.bench(fakes.make(1.0, b=0)) == 1
    assert fakes.calls() == 1
    assert fakes.update(fakes.make(1.0, b=0), options=['--repeats', '1']) == 1


def test_an_update_may_get_slower(fakes):
    fakes.update(fakes.make(1.0), options=['--repeats', '1'])
    assert fakes.update(fakes.make(2.0, 2.1), options=['--repeats', '2']) == 0
    assert fakes.written()['fake']['ratios'] == {'a / b': [2.0, 2.1]}


def test_some_measurements_only(fakes):
    two = fakes.make(1.0, name='one'), fakes.make(1.0, name='two')
    fakes.update(*two, options=['--repeats', '1'])
    two = fakes.make(5.0, name='one'), fakes.make(5.0, name='two')
    fakes.update(*two, options=['--repeats', '1', '--only', 'two'])
    assert (fakes.calls('one'), fakes.calls('two')) == (0, 1)
    found = {name: entry['ratios']['a / b'] for name, entry in fakes.written().items()}
    assert found == dict(one=[1.0], two=[5.0])
    fakes.update(two[0], options=['--repeats', '1'])  # of what is no longer measured nothing stays
    assert set(fakes.written()) == {'one'}


def test_another_short_form_is_not_compared(fakes, capsys):
    fakes.update(fakes.make(1.0), options=['--repeats', '1'])
    content = json.loads(fakes.reference.read_text())
    content['measurements']['fake']['options'] = '--more'
    fakes.reference.write_text(json.dumps(content))
    capsys.readouterr()
    assert fakes.bench(fakes.make(9.0)) == 0
    assert 'new' in capsys.readouterr().out


def test_what_needs_a_package_that_is_missing_is_left_out(fakes, capsys):
    one, two = fakes.make(1.0, name='one'), fakes.make(1.0, name='two')
    fakes.update(one, two, options=['--repeats', '1'])
    two = dataclasses.replace(two, needs='no_such_package')
    capsys.readouterr()
    assert fakes.bench(one, two) == 0
    assert (fakes.calls('one'), fakes.calls('two')) == (1, 0)
    assert 'Left out, no_such_package is not installed:\n  two\n' in capsys.readouterr().out
    assert fakes.bench(dataclasses.replace(one, needs='json')) == 0
    assert fakes.calls('one') == 1


def test_without_a_reference(fakes, capsys):
    with pytest.raises(SystemExit, match='there is no reference .* make it, with --update'):
        fakes.bench(fakes.make(1.0))
    assert fakes.calls() == 0


def test_an_interrupt_ends_cleanly(fakes, monkeypatch, capsys):
    def interrupted(measurement):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, 'run_once', interrupted)
    assert fakes.update(fakes.make(1.0)) == 130
    assert 'stopped' in capsys.readouterr().out
    assert not fakes.reference.exists()


def test_other_machines_and_versions_are_told():
    facts = dict(cpus=2, torch='2.1', load_before=3.0)
    same = dict(machine=dict(cpus=2, torch='2.1', load_before=9.0))
    other = dict(machine=dict(cpus=8, torch='2.1', load_before=3.0))
    assert bench.other_facts(dict(a=same), facts) == ''
    assert bench.other_facts(dict(a=same, b=other), facts) == 'cpus 8, here 2'


# What is measured ---------------------------------------------------------------------------------


@pytest.mark.parametrize('measurement', bench.MEASUREMENTS, ids=lambda one: one.name)
def test_every_script_takes_its_options_and_writes_into_the_folder(measurement, tmp_path):
    script = importlib.import_module(measurement.name)
    assert Path(script.__file__) == SCRIPTS / measurement.script
    args = script.parse_args(measurement.arguments(tmp_path))
    defaults = script.parse_args(['--device', 'cpu'] if measurement.name == 'training_step' else [])
    assert args.out.is_relative_to(tmp_path)
    for name, value in vars(defaults).items():  # where it would be written to else
        if isinstance(value, Path) and not value.is_file():
            assert getattr(args, name).is_relative_to(tmp_path), name
    names = [ratio.name for ratio in measurement.ratios]
    assert len(set(names)) == len(names) > 0


def test_every_benchmark_is_measured_or_said_to_be_left_out():
    left_out = ' '.join(command for commands in bench.LEFT_OUT.values() for command in commands)
    measured = {measurement.script for measurement in bench.MEASUREMENTS}
    no_benchmarks = {'bench.py', 'sahi_test.py'}  # a tool of compare_training.py
    for script in {path.name for path in SCRIPTS.glob('*.py')} - measured - no_benchmarks:
        assert f'benchmarks/{script}' in left_out


def test_the_reference_is_of_what_is_measured():
    content = json.loads(bench.REFERENCE.read_text())['measurements']
    assert list(content) == [measurement.name for measurement in bench.MEASUREMENTS]
    for measurement in bench.MEASUREMENTS:
        entry = content[measurement.name]
        assert entry['options'] == measurement.options, f'{measurement.name}: run bench.py --update'
        assert list(entry['ratios']) == [ratio.name for ratio in measurement.ratios]
        assert {len(values) for values in entry['ratios'].values()} == {bench.REPEATS_OF_REFERENCE}
