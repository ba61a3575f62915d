"""The command line of the comparison: presets, and comparisons of one's own."""

import json
from pathlib import Path

import pytest
from mmrotate_ready import lacks_mmrotate
from scripts import load_script

from harness import comparison as module
from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    return load_script('benchmarks/compare_training.py')


def test_every_preset_names_configs_that_exist(script):
    configs = {
        config
        for preset in script.PRESETS.values()
        for part in preset.parts
        for config in part.configs.values()
    }
    for config in configs:
        if not lacks_mmrotate(ROOT / config):
            assert 'train_dataloader' in load_config(ROOT / config)


@pytest.mark.parametrize('data', ['toy', 'bccd'])
def test_before_and_after_differ_by_which_proposals_are_learned(script, data):
    comparison = script.PRESETS[f'range_first_{data}'].comparison
    before, after = (
        load_config(ROOT / config, comparison.own_options.get(name))
        for name, config in comparison.configs.items()
    )
    types = [cfg.model.rpn_head.pop('type') for cfg in (before, after)]
    assert types == ['RPNHead', 'SNIPERRPNHead']
    assert after.model.rpn_head.pop('pyramid') == after.pyramid
    assert before.to_dict() == after.to_dict()


@pytest.mark.parametrize(('data', 'by_area'), [('bccd', (246, 480)), ('hituav', (40, 78))])
def test_by_area_differs_by_samples_and_proposals(script, data, by_area):
    comparison = script.PRESETS[f'by_area_{data}'].comparison
    numbers = []
    for name, config in comparison.configs.items():
        train = load_config(ROOT / config, comparison.own_options.get(name)).model.train_cfg
        numbers.append((train.rcnn.sampler.num, train.rpn_proposal.max_per_img))
    assert numbers == [(64, 300), (512, 1000), by_area]


def test_a_preset_runs_as_it_is_unless_told_otherwise(script):
    preset = script.preset_of(script.parse_args(['bccd']))
    assert preset.comparison == script.PRESETS['bccd'].comparison
    assert len(preset.comparison.seeds) == 3

    changed = script.preset_of(
        script.parse_args(
            ['bccd', '--pixels', '1e6', '--seeds', '5', '--threads', '2', '--cfg-options', 'a.b=3']
        )
    ).comparison
    assert changed.configs == preset.comparison.configs
    assert (changed.pixels, changed.seeds, changed.threads) == (1e6, (5,), 2)
    assert changed.options == {'a.b': 3}


def test_options_come_on_top_of_those_of_the_preset(script):
    argv = ['hituav_held_out', '--cfg-options', 'a.b=3']
    options = script.preset_of(script.parse_args(argv)).comparison.options
    assert options == {**script.PRESETS['hituav_held_out'].comparison.options, 'a.b': 3}


def test_a_preset_with_several_budgets_is_cut_down(script, monkeypatch):
    configs = {'a': 'configs/a.py', 'b': 'configs/b.py', 'c': 'configs/c.py'}
    whole = module.Comparison(configs, 3e6)
    preset = script.Preset('T', '', whole, others=(whole.only(['a'], pixels=9e6, seeds=(0,)),))
    monkeypatch.setitem(script.PRESETS, 'several', preset)
    few_first = script.Preset('T', '', whole.only(['a']), others=(whole,))
    monkeypatch.setitem(script.PRESETS, 'few_first', few_first)
    argv = ['few_first', '--only', 'b', '--seeds', '5']
    (part,) = script.preset_of(script.parse_args(argv)).parts
    assert (list(part.configs), part.seeds) == (['b'], (5,))

    def parts(*argv):
        return script.preset_of(script.parse_args(['several', *argv])).parts

    assert [(list(part.configs), part.pixels) for part in parts()] == [
        (['a', 'b', 'c'], 3e6),
        (['a'], 9e6),
    ]
    assert [list(part.configs) for part in parts('--only', 'a', 'b')] == [['a', 'b'], ['a']]
    assert [list(part.configs) for part in parts('--only', 'b')] == [['b']]
    assert [part.pixels for part in parts('--pixels', '1e6')] == [1e6]
    assert [part.seeds for part in parts('--seeds', '5')] == [(5,)]
    with pytest.raises(script.RunError, match='the contestants are a, b, c'):
        parts('--only', 'd')


def test_what_only_one_contestant_needs_is_made_for_it_alone(script, monkeypatch):
    made = []
    preset = script.Preset(
        'T',
        '',
        module.Comparison({'a': 'a.py', 'b': 'b.py'}, 3e6),
        prepare=lambda: made.append('all'),
        prepare_for={'b': lambda: made.append('b')},
    )
    monkeypatch.setitem(script.PRESETS, 'prepared', preset)
    script.preset_of(script.parse_args(['prepared', '--only', 'a'])).prepare_all()
    assert made == ['all']
    script.preset_of(script.parse_args(['prepared'])).prepare_all()
    assert made == ['all', 'all', 'b']


def test_a_comparison_of_ones_own(script):
    args = script.parse_args(
        ['mine', '--configs', 'a=configs/a.py', 'b=configs/b.py', '--pixels', '1e9']
    )
    preset = script.preset_of(args)
    assert preset.comparison.configs == {'a': 'configs/a.py', 'b': 'configs/b.py'}
    assert preset.comparison.pixels == 1e9
    assert preset.comparison.own_options == {}


def test_variants_are_contestants_with_options_of_their_own(script):
    argv = ['mine', '--configs', 'a=c.py', 'b=c.py', 'c=c.py', '--pixels', '1e9']
    variants = ['--variant', 'b', 'x.y=2', 'z=[1,2]', '--variant', 'c', 'x.y=3']
    comparison = script.preset_of(script.parse_args([*argv, *variants])).comparison
    assert comparison.own_options == {'b': {'x.y': 2, 'z': [1, 2]}, 'c': {'x.y': 3}}


@pytest.mark.parametrize(
    ('per_epoch', 'epochs', 'mines', 'said'),
    [
        (4e6, 2, False, 'a is trained on 20% fewer pixels than --pixels 1e+07'),
        (6e6, 2, False, 'a is trained on 20% more pixels than --pixels 1e+07'),
        (9.5e6, 1, False, ''),
        (3e7, 1, False, ''),  # of which a third is trained on
        (4e6, 2, True, ''),
    ],
)
def test_whole_epochs_that_are_no_equal_pixels_are_warned_of(per_epoch, epochs, mines, said):
    run = module.TrainingRun('a.py', epochs, 0, Path('work'), ROOT)
    contestant = module.Contestant('a', 'a.py', per_epoch, (run,), mines=mines)
    warnings = list(module.unequal_pixels(module.Comparison({'a': 'a.py'}, 1e7), [contestant]))
    assert len(warnings) == bool(said)
    assert said in ''.join(warnings)


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['mine'], 'name a preset'),
        (['bccd', '--configs', 'a=a.py', '--pixels', '1'], 'name a preset'),
        (['mine', '--configs', 'a=a.py'], 'needs --pixels'),
        (['mine', '--configs', 'a.py', '--pixels', '1'], 'NAME=CONFIG'),
        (['mine', '--configs', 'a=a.py', '--pixels', '1', '--variant', 'b', 'x=1'], '--variant b'),
        (['bccd', '--jobs', '0'], 'at least 1'),
    ],
)
def test_a_wrong_command_line_is_told_of(script, argv, message, capsys):
    with pytest.raises(SystemExit):
        script.parse_args(argv)
    assert message in capsys.readouterr().err


def test_the_noted_command_leaves_out_what_does_not_change_the_result(script):
    argv = ['toy', '--jobs', '2', '--seeds', '0', '1', '--work-dir', 'x', '--pixels', '1e8']
    assert script.command_line(argv) == (
        'python benchmarks/compare_training.py toy --seeds 0 1 --pixels 1e8'
    )


def test_json_and_table_are_written(script, tmp_path, monkeypatch):
    def plan_runs(comparison, root, work_dir):
        assert work_dir == tmp_path / 'work'
        return [
            module.Contestant(
                name,
                config,
                1.0,
                tuple(
                    module.TrainingRun(config, 2, seed, work_dir / f'{name}{seed}', root)
                    for seed in comparison.seeds
                ),
            )
            for name, config in comparison.configs.items()
        ]

    def execute_all(contestants, jobs, console):
        for run in (run for c in contestants for run in c.runs):
            run.work_dir.mkdir(parents=True)
            for stage in run.stages:
                keys = module.COSTS if stage == 'train' else module.METRICS
                run.result_file(stage).write_text(json.dumps(dict.fromkeys(keys, 0.25)))

    monkeypatch.setattr(script, 'plan_runs', plan_runs)
    monkeypatch.setattr(script, 'execute_all', execute_all)
    monkeypatch.chdir(tmp_path)  # the script goes to the project's folder
    script.main(['bccd', '--work-dir', 'work', '--out-dir', 'out'])

    summary = json.loads((tmp_path / 'out' / 'bccd.json').read_text())
    names = [entry['name'] for entry in summary['contestants']]
    assert names == list(script.PRESETS['bccd'].comparison.configs)
    assert summary['contestants'][0]['mean']['test']['AP'] == 0.25
    assert str(tmp_path) not in json.dumps(summary)
    page = (tmp_path / 'out' / 'bccd.md').read_text()
    assert page.startswith('# BCCD')
    table, ahead = page.split('Differences')
    assert table.count('0.250 ± 0.000') == 6 * len(names)
    assert ahead.count('0.000 ± 0.000') == 3 * (len(names) - 1)


def test_what_is_finished_is_reported_without_training(script, tmp_path, monkeypatch):
    def plan_runs(comparison, root, work_dir):
        run = module.TrainingRun('a.py', 2, 0, work_dir / str(comparison.pixels), root)
        return [module.Contestant('a', 'a.py', 1.0, (run,))]

    whole = module.Comparison({'a': 'a.py'}, 3e6)
    preset = script.Preset('T', '', whole, others=tuple(whole.only('a', pixels=p) for p in (5, 9)))
    monkeypatch.setitem(script.PRESETS, 'several', preset)
    monkeypatch.setattr(script, 'plan_runs', plan_runs)
    monkeypatch.chdir(tmp_path)
    argv = ['several', '--work-dir', 'work', '--out-dir', 'out', '--report-only']
    script.main(argv)
    assert not (tmp_path / 'out').exists()

    for pixels in (3e6, 9):
        (run,) = plan_runs(whole.only('a', pixels=pixels), ROOT, tmp_path / 'work')[0].runs
        run.work_dir.mkdir(parents=True)
        for stage in run.stages:
            keys = module.COSTS if stage == 'train' else module.METRICS
            run.result_file(stage).write_text(json.dumps(dict.fromkeys(keys, 0.25)))
    monkeypatch.chdir(tmp_path)
    script.main(argv)
    summary = json.loads((tmp_path / 'out' / 'several.json').read_text())
    assert [part['pixels'] for part in summary['parts']] == [3e6, 9]
    assert (tmp_path / 'out' / 'several.png').exists()
