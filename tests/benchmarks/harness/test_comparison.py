"""A comparison gives all contestants the same pixels, survives failures, and adds up right."""

import io
import json
import math

import pytest
from mmengine.config import Config
from rich.console import Console

from harness import comparison as module
from harness.comparison import (
    Comparison,
    execute_all,
    mean,
    overall_progress,
    plan_runs,
    sample_std,
    summarise,
)
from harness.training_run import METRICS, OtherTest, RunError

CONFIG = """
train_dataloader = dict(pixels={pixels})
model = dict(type='FasterRCNN')
{more}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two configs whose epochs have 100 and 30 pixels; the first has a TTA."""
    tta = 'tta_model = dict(type="DetTTAModel")'
    (tmp_path / 'fine.py').write_text(CONFIG.format(pixels=100, more=tta))
    (tmp_path / 'whole.py').write_text(CONFIG.format(pixels=30, more=''))
    monkeypatch.setattr(module, 'pixels_per_epoch', lambda cfg: cfg.train_dataloader.pixels)
    return tmp_path


def plan(project, **changes):
    settings = dict(configs={'many': 'fine.py', 'single': 'whole.py'}, pixels=310, seeds=(0, 1))
    comparison = Comparison(**{**settings, **changes})
    return comparison, plan_runs(comparison, project, project / 'runs')


def fake_execute(ap):
    """Stand in for ``execute``: leave results with the AP that ``ap`` gives for a run."""

    def execute(run, report, started):
        run.work_dir.mkdir(parents=True, exist_ok=True)
        if ap(run) is None:
            raise RunError('out of luck')
        for stage in run.stages:
            content = dict.fromkeys(METRICS, ap(run) + 0.1 * (stage == 'tta'))
            if stage == 'train':
                content = dict(
                    epochs=run.max_epochs,
                    train_pixels=300 + run.seed,
                    train_seconds=60.0,
                    train_cpu_seconds=30.0,
                )
            run.result_file(stage).write_text(json.dumps(content))
            report(stage, 1.0)

    return execute


def quiet():
    return Console(file=io.StringIO())


def test_every_contestant_gets_the_epochs_that_come_nearest_to_the_pixels(project):
    _, (many, single) = plan(project)
    assert [run.max_epochs for run in many.runs] == [3, 3]  # 300 of 310
    assert [run.max_epochs for run in single.runs] == [10, 10]
    assert [run.seed for run in many.runs] == [0, 1]
    assert [run.tta for run in (many.runs[0], single.runs[0])] == [True, False]


def test_options_change_the_pixels_and_reach_the_runs(project):
    options = {'train_dataloader.pixels': 50}
    _, (many, _) = plan(project, options=options)
    assert many.pixels_per_epoch == 50
    assert many.runs[0].max_epochs == 6
    assert many.runs[0].options == options


def test_a_contestant_may_have_options_of_its_own(project):
    names = {'before': 'fine.py', 'after': 'fine.py'}
    own = {'before': {'train_dataloader.pixels': 50, 'model.depth': 3}}
    options = {'train_dataloader.pixels': 25}
    comparison, (before, after) = plan(project, configs=names, own_options=own, options=options)
    assert (before.pixels_per_epoch, after.pixels_per_epoch) == (50, 25)
    assert before.runs[0].options == own['before']
    assert after.runs[0].options == options
    assert summarise(comparison, [before, after])['own_options'] == own


@pytest.mark.parametrize(
    ('changes', 'tests'),
    [
        (dict(), dict(test='one scale')),
        (dict(tta_model=dict(type='DetTTAModel')), dict(test='one scale', tta='multi-scale --tta')),
        (
            dict(model=dict(type='PyramidDetector'), tta_model=dict(type='SNIPERTTAModel')),
            dict(test='all levels'),
        ),
        (dict(model=dict(type='AutoFocus')), dict(test='coarse to fine')),
        (dict(model=dict(type='AutoFocus', thresholds=0)), dict(test='all levels')),
    ],
)
def test_what_a_test_shows_the_detector_is_told(changes, tests):
    assert module.tests_of(Config(dict(dict(model=dict(type='FasterRCNN')), **changes))) == tests


def test_a_run_is_the_same_in_another_checkout(project, tmp_path_factory):
    names = []
    for root in (project, tmp_path_factory.mktemp('other')):
        for name in ('fine.py', 'whole.py'):
            (root / name).write_text((project / name).read_text())
        _, contestants = plan(root, options={'data.file': f'{root}/data/held_out.json'})
        names.append([run.work_dir.name for c in contestants for run in c.runs])
    assert names[0] == names[1]


def test_a_run_keeps_its_folder_until_its_settings_change(project):
    def folders(**changes):
        _, contestants = plan(project, **changes)
        return [run.work_dir for c in contestants for run in c.runs]

    before = folders()
    assert len(set(before)) == 4
    assert folders() == before
    assert folders(seeds=(0, 1, 2))[:2] == before[:2]
    assert not set(folders(pixels=500)) & set(before)
    assert not set(folders(options={'model.depth': 3})) & set(before)
    with open(project / 'fine.py', 'a') as config:
        config.write('lr = 1\n')
    after = folders()
    assert not set(after[:2]) & set(before)
    assert after[2:] == before[2:]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(configs={}), 'configs and seeds'),
        (dict(seeds=()), 'configs and seeds'),
        (dict(seeds=(1, 1)), 'every seed counts once'),
        (dict(pixels=0), 'pixels must be positive'),
        (dict(pixels=math.inf), 'pixels must be positive'),
        (dict(own_options={'b': {}}), 'own_options are of b, but the contestants are a'),
        (dict(other_tests={'b': {}}), 'other_tests are of b, but the contestants are a'),
    ],
)
def test_an_impossible_comparison_is_refused(changes, message):
    settings = dict(configs={'a': 'a.py'}, pixels=1.0)
    with pytest.raises(ValueError, match=message):
        Comparison(**{**settings, **changes})


def test_means_and_sample_deviations_over_the_seeds(project, monkeypatch):
    comparison, contestants = plan(project, seeds=(0, 1, 2))
    monkeypatch.setattr(module, 'execute', fake_execute(lambda run: 0.4 + 0.1 * run.seed))
    execute_all(contestants, 2, quiet())

    summary = summarise(comparison, contestants)
    many, single = summary['contestants']
    assert [run['seed'] for run in many['runs']] == [0, 1, 2]
    assert many['runs'][1]['tta']['AP'] == pytest.approx(0.6)
    assert many['mean']['tta']['AP'] == pytest.approx(0.6)
    assert many['std']['tta']['AP'] == pytest.approx(0.1)  # of 0.5, 0.6, 0.7, by n - 1
    assert single['mean']['test']['AP'] == pytest.approx(0.5)
    assert single['mean']['train'] == dict(train_pixels=301, train_seconds=60, train_cpu_seconds=30)
    assert 'tta' not in single['mean']


def test_the_summary_names_no_folder_of_the_machine(project, monkeypatch):
    monkeypatch.setattr(module, '_ROOT', project)
    held_out = {'data.file': f'{project}/held_out.json'}
    own = {'many': {'other.file': f'{project}/other.json'}}
    comparison, contestants = plan(project, options=held_out, own_options=own)
    monkeypatch.setattr(module, 'execute', fake_execute(lambda run: 0.5))
    execute_all(contestants, 1, quiet())
    assert str(project) not in json.dumps(summarise(comparison, contestants))


def test_a_failed_run_stops_no_other_and_is_told_of(project, monkeypatch):
    comparison, contestants = plan(project)
    failing = contestants[0].runs[0]
    monkeypatch.setattr(
        module, 'execute', fake_execute(lambda run: None if run == failing else 0.5)
    )
    with pytest.raises(RunError, match='many, seed 0: out of luck'):
        execute_all(contestants, 1, quiet())
    assert [run.finished for c in contestants for run in c.runs] == [False, True, True, True]

    many = summarise(comparison, contestants)['contestants'][0]
    assert [run['seed'] for run in many['runs']] == [1]
    assert many['mean']['test']['AP'] == 0.5
    assert many['std']['test']['AP'] is None


def test_an_interruption_ends_what_was_started(project, monkeypatch):
    ended = []

    class Process:
        def terminate(self):
            ended.append(self)

    def execute(run, report, started):
        started(Process())
        raise KeyboardInterrupt

    _, contestants = plan(project, configs={'many': 'fine.py'}, seeds=(0,))
    monkeypatch.setattr(module, 'execute', execute)

    def interrupted(futures):
        next(iter(futures)).exception()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'as_completed', interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute_all(contestants, 1, quiet())
    assert len(ended) == 1


def test_costs_and_false_positives_are_averaged_where_all_runs_have_them(project, monkeypatch):
    comparison, contestants = plan(project)
    monkeypatch.setattr(module, 'execute', fake_execute(lambda run: 0.5))
    execute_all(contestants, 1, quiet())
    for contestant, runs in zip(contestants, (2, 1)):
        for run in contestant.runs[:runs]:
            for stage, more in (('train', {'mining_pixels': 9}), ('test', {'FP@0.5': run.seed})):
                path = run.result_file(stage)
                path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    many, single = summarise(comparison, contestants)['contestants']
    assert (many['mean']['train']['mining_pixels'], many['mean']['test']['FP@0.5']) == (9, 0.5)
    assert 'mining_pixels' not in single['mean']['train']
    assert 'FP@0.5' not in single['mean']['test']


def test_a_part_of_a_comparison_keeps_what_belongs_to_it():
    whole = Comparison(
        configs=dict(a='a.py', b='b.py'),
        pixels=10,
        own_options=dict(a={'x': 1}, b={'x': 2}),
        other_tests=dict(b=dict(sliced=OtherTest('c.py'))),
    )
    part = whole.only(['a'], pixels=5, seeds=(0,))
    assert (part.configs, part.own_options, part.other_tests) == (
        dict(a='a.py'),
        dict(a={'x': 1}),
        {},
    )
    assert (part.pixels, part.seeds) == (5, (0,))
    with pytest.raises(ValueError, match='no contestant c, only a, b'):
        whole.only(['a', 'c'])


def test_other_tests_reach_the_runs(project):
    tests = dict(sliced=OtherTest('c.py'))
    _, (many, single) = plan(project, other_tests={'many': tests})
    assert many.runs[0].stages == ('train', 'test', 'tta', 'sliced')
    assert many.runs[0].other_tests == tests
    assert single.runs[0].stages == ('train', 'test')


def test_mean_and_deviation_of_nothing_are_nothing():
    assert mean([]) is None
    assert mean([1.0, None]) is None
    assert sample_std([1.0]) is None
    assert sample_std([1.0, 3.0]) == pytest.approx(math.sqrt(2))


def test_progress_never_goes_back():
    stages = ('train', 'test', 'tta')
    told = [overall_progress(stages, s, done) for s in stages for done in (0.0, 0.5, 1.0)]
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == pytest.approx(1)
    assert overall_progress(stages[:2], 'test', 1.0) == pytest.approx(1)
