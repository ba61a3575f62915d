"""What negative chips give: both sides train for equally long, and the measures are theirs."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from negative_pools import pool_of
from scripts import load_script

from harness import comparison
from harness.training_run import COSTS, METRICS, TRAIN, train_result
from mmsniper.chips import AnnotationTable, ChipPlan, ScalePyramid, plan_negative_chips
from mmsniper.convert import load_config
from mmsniper.mining import NegativeChipMiner

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    return load_script('benchmarks/negatives.py')


# ----------------------------------------------------------------------------------- configurations
@pytest.mark.parametrize('name', ['toy', 'bccd', 'hituav'])
def test_only_the_hook_and_the_images_without_objects_tell_the_sides_apart(script, name):
    configs = script.PRESETS[name].comparison.configs
    plain, mined = (load_config(ROOT / configs[side]).to_dict() for side in ('without', 'with'))
    assert mined['custom_hooks'][:-1] == plain['custom_hooks']
    assert mined['custom_hooks'][-1]['type'] == 'NegativeChipHook'
    for cfg in (plain, mined):
        del cfg['custom_hooks']
        # Neither side can learn positives from images without objects.
        cfg['train_dataloader']['dataset']['dataset'].pop('filter_cfg')
        cfg.pop('train_dataset', None)
    assert mined == plain


def test_three_seeds_unless_told_otherwise(script):
    args = script.parse_args(['toy', '--seeds', '5', '--pixels', '1e6', '--cfg-options', 'a.b=3'])
    preset = script.PRESETS['toy'].comparison
    changed = script.with_options(preset, args)
    assert preset.seeds == (0, 1, 2)
    assert changed == replace(preset, seeds=(5,), pixels=1e6, options={'a.b': 3})


def test_another_data_set_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.parse_args(['coco'])
    assert "'coco'" in capsys.readouterr().err


def test_a_config_without_the_hook_is_refused(script):
    cfg = Config(dict(custom_hooks=[dict(type='PixelCounterHook')], train_dataloader=dict()))
    with pytest.raises(ValueError, match='NegativeChipHook'):
        script.epochs_of_the_run_with(script.PRESETS['toy'].comparison)(cfg, 1.0, 0)


# --------------------------------------------------------------------------------- equal iterations
@pytest.mark.parametrize(
    ('pixels', 'epochs'),
    [
        (35, 3),  # 2 x 10 and 15
        (95, 7),  # 2 x 10 and 5 x 15
        (101, 7),
        (104, 8),  # 110 is nearer than 95
    ],
)
def test_epochs_that_grow_after_mining_fill_the_pixels(script, pixels, epochs):
    assert script.epochs_with_negatives(pixels, per_epoch=10, growth=5, warmup=2) == epochs


def test_the_number_of_chips_of_an_image_changes_the_side_with_them_only(script):
    plain = script.PRESETS['toy'].comparison
    changed = script.with_chips_per_image(plain, 2)
    assert dict(plain.options) == {}
    assert script.with_chips_per_image(plain, None) is plain
    cfg = load_config(ROOT / plain.configs['with'], changed.options)
    assert cfg.custom_hooks[-1].chips_per_image == 2
    assert cfg.custom_hooks[-1].type == 'NegativeChipHook'


def test_a_training_that_ends_before_it_has_mined_is_refused(script):
    with pytest.raises(ValueError, match='2.5 epochs.*mined after 2: take at least --pixels 35'):
        script.epochs_with_negatives(25, per_epoch=10, growth=5, warmup=2)


def run_of(seed, iterations, chips=4, **measures):
    return dict(
        seed=seed, train=dict(iterations=iterations), measures=measures, pool=dict(chips=chips)
    )


def test_runs_that_are_not_equally_long_are_pointed_out(script):
    plain = [run_of(0, 1000), run_of(1, 1000), run_of(2, 1000), run_of(3, 1000)]
    mined = [run_of(0, 1019), run_of(1, 1021), run_of(2, 981), run_of(3, 950)]
    fewer, more = sorted(script.remarks(plain, mined), reverse=True)
    assert fewer.startswith('Seed 3: the run with negative chips has 5.0% fewer iterations')
    assert more.startswith('Seed 1: the run with negative chips has 2.1% more iterations')


def test_a_run_that_found_no_negative_chips_is_pointed_out(script):
    assert script.remarks([run_of(7, 10)], [run_of(7, 10, chips=0)]) == [
        'Seed 7: no negative chips were found.'
    ]


# ----------------------------------------------------------------------------------------- measures
def test_differences_are_those_of_the_same_seed(script):
    plain = [run_of(0, 100, AP=0.1, fp=5.0), run_of(1, 100, AP=0.5, fp=None)]
    mined = [run_of(0, 110, AP=0.3, fp=4.0), run_of(1, 100, AP=0.6, fp=2.0)]
    found = script.difference(plain, mined)
    assert [run['measures']['AP'] for run in found['runs']] == pytest.approx([0.2, 0.1])
    assert found['mean']['measures']['AP'] == pytest.approx(0.15)
    # Of 0.2 and 0.1, by n - 1: far less than the runs of either side differ.
    assert found['std']['measures']['AP'] == pytest.approx(0.1 / np.sqrt(2))
    assert found['runs'][0]['measures']['fp'] == -1
    assert found['runs'][1]['measures']['fp'] is None
    assert found['mean']['measures']['fp'] is None
    assert [run['iteration_ratio'] for run in found['runs']] == [1.1, 1.0]


# -------------------------------------------------------------------------------------- all of it
OBJECT, OTHER, LOOKALIKE = [10, 10, 20, 20], [60, 60, 20, 20], [110, 10, 20, 20]  # xywh
CLASSES = ('disc', 'ring', 'square', 'cross')
POOL_PYRAMID = dict(chip_size=100, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])


def annotations(images, objects, **more):
    """A COCO file of so many images of 300x200 px, of which the first have the given objects."""
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=300, height=200) for i in range(1, images + 1)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)],
        annotations=[
            dict(id=i, image_id=image, category_id=1, bbox=box, area=400, iscrowd=0)
            for i, (image, box) in enumerate(objects, start=1)
        ],
        **more,
    )


def write_data(folder):
    """Data of 10 images, one chip in each of the first 9; returns what gives it to the configs."""
    train, val = folder / 'train.json', folder / 'val.json'
    train.write_text(json.dumps(annotations(10, [(i, OBJECT) for i in range(1, 10)])))
    distractors = [dict(id=1, image_id=1, category_id=2, bbox=LOOKALIKE)]
    val.write_text(json.dumps(annotations(2, [(1, OBJECT), (2, OTHER)], distractors=distractors)))
    return [
        f'train_dataloader.dataset.ann_file={train}',
        'train_dataloader.dataset.data_root=',
        f'test_evaluator.ann_file={val}',
    ]


def detections(lookalike_score):
    """Of the 2 objects both are found, with scores of 0.75 and 0.25, and the look-alike is."""

    def of_image(i, *found):
        x, y, w, h = np.array([box for box, _ in found], dtype=np.float32).T
        return dict(
            img_id=i,
            pred_instances=dict(
                bboxes=torch.from_numpy(np.stack([x, y, x + w, y + h], axis=1)),
                labels=torch.zeros(len(found), dtype=int),
                scores=torch.tensor([score for _, score in found]),
            ),
        )

    return [of_image(1, (OBJECT, 0.75), (LOOKALIKE, lookalike_score)), of_image(2, (OTHER, 0.25))]


def pool():
    table = AnnotationTable.from_images([(300, 200, [[250, 140, 260, 150]] * 3, None)])
    pyramid = ScalePyramid.from_config(POOL_PYRAMID)
    found = plan_negative_chips(table, ChipPlan.empty(), pyramid, min_proposals=2)
    return pool_of(pyramid, ['1.jpg'], table, found, ChipPlan.empty())


def fake_execute(order):
    """Stand in for training and tests, and note in which order runs are executed.

    Runs with negative chips have 16 iterations, that of seed 1 has 19, and an AP of 0.5; those
    without have 2 in each epoch, and an AP of 0.25, that of seed 1 of 0.375.
    """

    def execute(run, report, started):
        mined = 'negatives' in run.config
        order.append((mined, run.seed))
        run.work_dir.mkdir(parents=True)
        iterations = 16 + 3 * (run.seed == 1) if mined else 2 * run.max_epochs
        info = dict.fromkeys(COSTS, 60e6)
        if mined:
            info['mining_pixels'] = 5e6
            pool().save(run.work_dir / 'negative_chips.npz')
            (run.work_dir / 'negatives.json').write_text('{"chips": 9, "with_object": 0.125}')
        torch.save(
            dict(meta=dict(iter=iterations), message_hub=dict(runtime_info=info)), run.checkpoint
        )
        run.result_file(TRAIN).write_text(json.dumps(train_result(run)))
        (run.work_dir / 'proposals.json').write_text(json.dumps({'AR@300': 0.75}))
        for stage in run.stages[1:]:
            # Only the last test is to be told of.
            last = stage == run.stages[-1]
            ap = (0.5 if mined else 0.25 + 0.125 * (run.seed == 1)) if last else 0.0
            run.result_file(stage).write_text(json.dumps(dict.fromkeys(METRICS, ap)))
            with open(run.predictions(stage), 'wb') as file:
                pickle.dump(detections(0.125 if mined else 0.875) if last else [], file)

    return execute


@pytest.fixture(scope='module')
def result(script, tmp_path_factory):
    """JSON and page of two seeds, and in which order the runs were executed."""
    folder, order = tmp_path_factory.mktemp('negatives'), []
    toy = replace(script.PRESETS['toy'], prepare=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(script.PRESETS, 'toy', toy)
        patch.setattr(comparison, 'execute', fake_execute(order))
        patch.chdir(folder)  # the script goes to the project's folder
        script.main(
            [
                'toy',
                '--seeds',
                '0',
                '1',
                '--pixels',
                '4.4e6',
                '--jobs',
                '1',
                '--work-dir',
                'work',
                '--out-dir',
                'out',
                '--cfg-options',
                *write_data(folder),
            ]
        )
    out = folder / 'out' / 'negatives_toy.json'
    return json.loads(out.read_text()), out.with_suffix('.md').read_text(), order


def cells(page, start):
    """Cells of the table rows that start with a word, one list for each table."""
    rows = [line.strip('| ').split(' | ') for line in page.splitlines() if line.startswith('| ')]
    return [row[1:] for row in rows if row[0] == start]


def test_all_of_it(result):
    summary, page, order = result
    plain, mined = summary['contestants']
    assert (plain['name'], mined['name']) == ('without', 'with')

    # An epoch has 9 chips of 160x160 px, and after two up to one of each of the 10 images more:
    # 2 x 0.23 and 8 x 0.49 are 4.35 million pixels, the nearest to 4.4.
    assert mined['epochs'] == [10, 10]
    # 9 chips are 2 batches of up to 8: 8 epochs for 16 iterations, 10 for 19.
    assert plain['epochs'] == [8, 10]
    assert order == [(True, 0), (True, 1), (False, 0), (False, 1)]
    assert [run['iteration_ratio'] for run in summary['difference']['runs']] == [1, 19 / 20]
    (remark,) = summary['remarks']
    assert remark.startswith('Seed 1: the run with negative chips has 5.0% fewer')
    assert remark in page

    # The look-alike scores highest without, lowest with negative chips; 2 images.
    for run in plain['runs']:
        assert run['measures']['fp_recall_0.5'] == 0.5
        assert run['measures']['lookalikes_recall_0.5'] == 0.5
        assert run['measures']['fp_score_0.5'] == 0.5
    for run in mined['runs']:
        assert run['measures']['fp_recall_0.9'] == 0
        assert run['measures']['lookalikes_recall_0.9'] == 0
        assert run['measures']['recall_score_0.5'] == 0.5
        assert run['pool'] == dict(
            chips=1, chips_per_level=[1], images=1, images_with_chips=1, with_object=0.125
        )
    assert summary['difference']['mean']['measures']['AP'] == 0.1875
    assert plain['std']['measures']['AP'] == pytest.approx(0.125 / np.sqrt(2))


def test_another_rule_is_compared_with_what_was_measured(script, result, tmp_path, monkeypatch):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'negatives_toy.json').write_text(json.dumps(result[0]))
    toy, order = replace(script.PRESETS['toy'], prepare=lambda: None), []
    monkeypatch.setitem(script.PRESETS, 'toy', toy)
    monkeypatch.setattr(comparison, 'execute', fake_execute(order))
    monkeypatch.chdir(tmp_path)  # the script goes to the project's folder
    folders = ['--work-dir', str(tmp_path / 'work'), '--out-dir', str(tmp_path / 'out')]
    command = ['toy', '--rule', 'release', '--pixels', '4.4e6', *folders, '--seeds']
    data = ['--cfg-options', *write_data(tmp_path)]
    script.main([*command, '1', *data])
    assert order == [(True, 1)]
    out = tmp_path / 'out' / 'negatives_toy_release.json'
    summary, page = json.loads(out.read_text()), out.with_suffix('.md').read_text()
    names = [entry['name'] for entry in summary['contestants']]
    assert names == ['without', 'with', 'release']
    assert [entry['mean']['measures']['AP'] for entry in summary['contestants']] == [
        0.375,
        0.5,
        0.5,
    ]
    assert all([run['seed'] for run in entry['runs']] == [1] for entry in summary['contestants'])
    assert summary['difference']['mean']['measures']['AP'] == 0
    assert cells(page, 'release')[0][0] == '0.500'
    with pytest.raises(SystemExit, match='no runs of the seeds 2'):
        script.main([*command, '2', *data])
    (tmp_path / 'out' / 'negatives_toy.json').unlink()
    with pytest.raises(SystemExit, match='negatives.py toy first'):
        script.main([*command, '1', *data])


def test_a_rule_changes_the_hook_only(script):
    plain = script.PRESETS['toy'].comparison
    config = ROOT / plain.configs['with']
    hook = load_config(config).custom_hooks[-1]
    for rule, changed in (
        ('release', {'share': 1.0, 'covered': 'touched', 'placed': 'anew'}),
        ('coarse_to_fine', {'share': NegativeChipMiner().share}),
    ):
        cfg = load_config(config, script.with_rule(plain, rule).own_options['with'])
        assert cfg.custom_hooks[-1] == {**hook, **changed}


def test_a_chip_shows_an_object_that_is_half_in_it_and_of_its_level(script):
    levels = [
        dict(resize=dict(factor=1.0), valid_range=(0, 15)),
        dict(resize=dict(factor=0.5), valid_range=(15, None)),
    ]
    pyramid = ScalePyramid.from_config(dict(chip_size=50, levels=levels))
    boxes = [[45, 10, 55, 20], [100, 100, 120, 120]]
    table = AnnotationTable.from_images([(300, 200, boxes, None), (300, 200, [], None)])
    windows = [[0, 0, 50, 50], [0, 0, 49, 50], [90, 90, 140, 140], [90, 90, 190, 190]]
    plan = ChipPlan.of_kind(1, [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [*windows, windows[0]])
    shown = script.shows_object(plan, table, pyramid)
    assert shown.tolist() == [True, False, False, True, False]


def test_the_page_has_a_table_of_each_kind(script, result):
    _, page, _ = result
    assert page.startswith('# Toy scenes')
    assert 'Made by `python benchmarks/negatives.py toy --seeds 0 1 --pixels 4.4e6 --cfg' in page
    columns = list(script.COLUMNS)
    plain, plain_lookalikes, plain_cost = cells(page, 'without')
    mined, _, mined_cost = cells(page, 'with')
    assert plain[columns.index('AP')] == '0.312 ± 0.088'
    assert mined[columns.index('AP')] == '0.500 ± 0.000'
    assert plain[columns.index('FP at recall 0.9')] == '0.500 ± 0.000'
    assert plain_lookalikes == ['0.500 ± 0.000'] * 5
    difference, lookalikes = cells(page, 'difference')
    assert plain[columns.index('proposal AR')] == '0.750 ± 0.000'
    assert difference[columns.index('AP')] == '+0.188 ± 0.088'
    assert difference[columns.index('FP at recall 0.5')] == '-0.500 ± 0.000'
    assert lookalikes == ['-0.500 ± 0.000'] * 5
    assert plain_cost == ['8, 10', '16, 20', '60.0', '1000000.0', '1000000.0', '-', '-', '-']
    assert mined_cost[:5] == ['10, 10', '16, 19', '60.0', '1000000.0', '1000000.0']
    assert mined_cost[5:] == ['1, 1', '5.0', '12.5%, 12.5%']
    assert cells(page, 'ratio')[0][:2] == ['', '1.000, 0.950']


def test_the_recall_of_proposals_is_measured_once(script, tmp_path, monkeypatch):
    seen = []

    def measured(cfg, checkpoint):
        seen.append((cfg.train_cfg.max_epochs, checkpoint))
        return {'AR@300': 0.25}

    monkeypatch.setattr(script, 'proposal_recall', measured)
    config = script.PRESETS['toy'].comparison.configs['with']
    run = comparison.TrainingRun(config, 3, 0, tmp_path, ROOT, options={'train_cfg.max_epochs': 3})
    assert script.proposals_of(run) == script.proposals_of(run) == {'AR@300': 0.25}
    assert seen == [(3, tmp_path / 'epoch_3.pth')]


def test_data_without_lookalikes_have_no_table_of_them(script, result):
    summary = copy.deepcopy(result[0])
    for entry in (*summary['contestants'], summary['difference']):
        for item in (entry['mean'], entry['std'], *entry['runs']):
            item['measures'] = {
                k: v for k, v in item['measures'].items() if not k.startswith('lookalikes')
            }
    page = script.page(summary, 'Title', 'command')
    assert len(cells(page, 'difference')) == 1
    assert 'look-alike:' not in page


def test_a_recall_that_is_not_reached_has_no_number(script, tmp_path):
    path, content = tmp_path / 'val.json', annotations(2, [(1, OBJECT), (2, OTHER), (2, LOOKALIKE)])
    path.write_text(json.dumps(content))
    run = comparison.TrainingRun('some.py', 1, 0, tmp_path, tmp_path)
    for stage in run.stages:
        run.result_file(stage).write_text(json.dumps({**dict.fromkeys(METRICS, 0.5), 'APs': None}))
    with open(run.predictions('test'), 'wb') as file:
        pickle.dump(detections(0.875), file)
    (tmp_path / 'proposals.json').write_text(json.dumps({'AR@300': 0.75}))
    found = script.measures(run, path)
    assert found['fp_recall_0.5'] == 0.5
    assert found['fp_recall_0.7'] is None
    assert found['APs'] is None
    assert not [key for key in found if key.startswith('lookalikes')]
    json.dumps(found, allow_nan=False)
