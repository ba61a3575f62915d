"""A run does its stages as a user would, keeps what is finished, and says what went wrong."""

import fcntl
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from harness import training_run
from harness.training_run import (
    COSTS,
    METRICS,
    OtherTest,
    RunError,
    TrainingRun,
    execute,
    progress_of,
)

TRAIN_TOOL = """
    import pathlib, sys
    work_dir = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
    with open('calls', 'a') as calls:
        print(' '.join(sys.argv[1:]), file=calls)
    print('Epoch(train)  [1][ 5/10]  lr: 1')
    print('Epoch(train)  [2][10/10]  lr: 1')
    if pathlib.Path('broken').exists():
        sys.exit('out of luck')
"""
TEST_TOOL = """
    import json, pathlib, sys
    work_dir = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
    with open('calls', 'a') as calls:
        print(' '.join(sys.argv[1:]), file=calls)
    names = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100']
    values = [0.5, 0.9, 0.4, -1, 0.3, 0.6, 0.7]
    metrics = {f'coco/bbox_{n}': v for n, v in zip(names, values)}
    if 'with_masks.py' in sys.argv[1]:
        metrics |= {f'coco/segm_{n}': v / 2 for n, v in zip(names, values)}
    folder = work_dir / '20200101_000000'
    (folder / 'vis_data').mkdir(parents=True, exist_ok=True)
    (folder / f'{folder.name}.json').write_text(json.dumps(metrics))
    (folder / 'vis_data' / 'config.json').write_text('{}')
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose tools are stand-ins that note their arguments in the file `calls`."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'train.py').write_text(textwrap.dedent(TRAIN_TOOL))
    (tmp_path / 'tools' / 'test.py').write_text(textwrap.dedent(TEST_TOOL))
    monkeypatch.setattr(
        training_run, 'train_result', lambda run: {'epochs': run.max_epochs, 'train_pixels': 5}
    )
    return TrainingRun('configs/some.py', 2, 7, tmp_path / 'runs' / 'a', tmp_path, tta=True)


def calls(run):
    path = run.root / 'calls'
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_the_stages_are_the_tools_command_lines(run):
    execute(run)

    train, test, tta = calls(run)
    assert train[:2] == ['configs/some.py', '--resume']
    assert {'train_cfg.max_epochs=2', 'randomness.seed=7', 'train_cfg.val_begin=3'} <= set(train)
    assert test[1] == tta[1] == str(run.work_dir / 'epoch_2.pth')
    assert '--tta' in tta
    assert '--tta' not in test


def test_cfg_options_read_back_as_they_were_given(run):
    import argparse

    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    command = run.command('train')
    options = parser.parse_args(command[command.index('--cfg-options') :]).cfg_options
    assert options == run.all_options()
    assert options['test_evaluator.metric_items'] == list(METRICS.values())
    assert options['val_dataloader.persistent_workers'] is False


def test_options_of_the_caller_win(run):
    changed = TrainingRun(
        run.config, 2, 7, run.work_dir, run.root, options={'train_dataloader.num_workers': 4}
    )
    assert 'train_dataloader.num_workers=4' in changed.command('train')
    assert 'train_dataloader.num_workers=0' not in changed.command('train')


def test_results_are_kept_by_stage(run):
    assert not run.finished

    execute(run)

    assert run.finished
    assert run.results()['train'] == {'epochs': 2, 'train_pixels': 5}
    expected = {'AP': 0.5, 'AP50': 0.9, 'AP75': 0.4, 'APs': None, 'APm': 0.3, 'APl': 0.6, 'AR': 0.7}
    assert run.results()['test'] == run.results()['tta'] == expected


def test_the_weights_are_tested_with_other_configs_too(run):
    run = replace(run, tta=False, other_tests={'masks': OtherTest('configs/with_masks.py')})
    execute(run)
    assert [call[0] for call in calls(run)] == [
        'configs/some.py',
        'configs/some.py',
        'configs/with_masks.py',
    ]
    assert calls(run)[2][1] == str(run.checkpoint)
    assert run.finished
    boxes, masks = run.results()['test'], run.results()['masks']
    assert masks == {
        **boxes,
        **{f'mask {key}': None if v is None else v / 2 for key, v in boxes.items()},
    }


def test_another_test_has_options_arguments_and_a_tool_of_its_own(run):
    test = OtherTest(options={'a.b': 3}, tool='other/sliced.py', arguments=('--slice', '160'))
    run = replace(run, tta=False, options={'a.b': 1, 'c': 2}, other_tests={'sliced': test})
    command = run.command('sliced')
    assert command[2] == str(run.root / 'other' / 'sliced.py')
    assert command[3:5] == ['configs/some.py', str(run.checkpoint)]
    assert command[command.index('--slice') + 1] == '160'
    assert {'a.b=3', 'c=2'} < set(command)
    assert 'a.b=1' not in command
    assert 'a.b=1' in run.command('test')


def test_a_finished_run_is_not_run_again(run):
    execute(run)
    execute(run)
    assert len(calls(run)) == 3


def test_an_interrupted_run_does_what_is_left(run):
    execute(run)
    run.result_file('tta').unlink()
    execute(run)
    assert ['--tta' in call for call in calls(run)] == [False, False, True, True]


def test_a_failure_shows_the_end_of_the_log_and_leaves_no_result(run):
    (run.root / 'broken').touch()
    with pytest.raises(RunError, match=r'(?s)train of configs/some\.py, seed 7.*out of luck'):
        execute(run)
    assert run.results() == {}

    (run.root / 'broken').unlink()
    execute(run)
    assert run.finished


def test_two_processes_do_not_work_on_one_run(run):
    run.work_dir.mkdir(parents=True)
    hold = (
        'import fcntl, sys; f = open(sys.argv[1], "w"); fcntl.flock(f, fcntl.LOCK_EX); '
        'print("locked", flush=True); sys.stdin.read()'
    )
    with subprocess.Popen(
        [sys.executable, '-c', hold, str(run.work_dir / 'lock')],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b'locked\n'
        with pytest.raises(RunError, match='another process'):
            execute(run)
        other.stdin.close()
    assert calls(run) == []
    execute(run)


def test_progress_is_told_in_order(run):
    told = []
    execute(run, lambda stage, done: told.append((stage, done)))
    assert told == [
        ('train', 0.0),
        ('train', 0.25),
        ('train', 1.0),
        ('train', 1.0),
        ('test', 0.0),
        ('test', 1.0),
        ('tta', 0.0),
        ('tta', 1.0),
    ]


def test_progress_is_read_from_the_lines_of_the_log():
    assert progress_of('INFO - Epoch(train)  [3][ 20/100]  lr: 1e-3', 'train', 4) == 0.55
    assert progress_of('INFO - Epoch(test)  [30/60]  eta: 0:00:01', 'test', 4) == 0.5
    assert progress_of('INFO - Epoch(test)  [30/60]  eta: 0:00:01', 'tta', 4) == 0.5
    assert progress_of('INFO - Saving checkpoint', 'train', 4) is None


def test_the_costs_come_from_the_last_checkpoint(tmp_path):
    import torch

    run = TrainingRun('some.py', 3, 0, tmp_path, tmp_path)
    info = {'train_pixels': 123, 'train_seconds': 4.5, 'train_cpu_seconds': 4.0, 'epoch': 2}
    torch.save({'message_hub': {'runtime_info': info}}, run.checkpoint)
    for line, device in (
        ('CUDA available: False', 'CPU'),
        ('    GPU 0: NVIDIA A1', 'NVIDIA A1'),
        ('    GPU 0,1,2: NVIDIA A 2', 'NVIDIA A 2'),
    ):
        (tmp_path / 'train.log').write_text(f'System environment:\n{line}\n    GCC: 12\n')
        costs = {key: info[key] for key in COSTS}
        assert training_run.train_result(run) == {'epochs': 3, **costs, 'device': device}

    del info['train_pixels']
    torch.save({'message_hub': {'runtime_info': info}}, run.checkpoint)
    with pytest.raises(RunError, match='PixelCounterHook'):
        training_run.train_result(run)


def test_a_test_without_any_detection_counts_zero(run):
    folder = run.work_dir / 'test' / '20200101_000000'
    folder.mkdir(parents=True)
    (folder / f'{folder.name}.json').write_text(json.dumps({'time': 1.0}))
    assert training_run.test_result(run, 'test') == dict.fromkeys(METRICS, 0.0)


def test_metrics_of_rotated_boxes_have_the_same_names(run):
    folder = run.work_dir / 'test' / '20200101_000000'
    folder.mkdir(parents=True)
    content = {f'r_coco/bbox_{theirs}': 0.5 for theirs in METRICS.values()}
    (folder / f'{folder.name}.json').write_text(json.dumps(content))
    assert training_run.test_result(run, 'test') == dict.fromkeys(METRICS, 0.5)


def test_the_last_test_counts(run):
    for name, value in (('20200101_000000', 0.1), ('20200102_000000', 0.2)):
        folder = run.work_dir / 'test' / name
        folder.mkdir(parents=True)
        content = {f'coco/bbox_{theirs}': value for theirs in METRICS.values()}
        (folder / f'{name}.json').write_text(json.dumps(content))
    assert training_run.test_result(run, 'test')['AP'] == 0.2


@pytest.mark.skipif(sys.platform != 'linux', reason='asks the Linux kernel to end processes')
def test_a_stage_ends_with_a_killed_parent(run):
    (run.root / 'tools' / 'train.py').write_text(
        'import pathlib, time\n'
        'print("Epoch(train) [1][1/1]", flush=True)\n'
        'time.sleep(20)\n'
        'pathlib.Path("survived").touch()\n'
    )
    parent = (
        'from pathlib import Path\n'
        'from harness.training_run import TrainingRun, execute\n'
        'def say(stage, done):\n'
        '    print(done, flush=True)\n'
        f'root = Path({str(run.root)!r})\n'
        'execute(TrainingRun("a.py", 1, 0, root / "runs", root), say)\n'
    )
    with subprocess.Popen(
        [sys.executable, '-c', parent],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdout.readline() == '0.0\n'
        assert process.stdout.readline() == '1.0\n'  # the stage has started and waits
        process.kill()
    # The stage held the lock: who gets it knows that the stage has ended.
    with open(run.root / 'runs' / 'lock') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert not (run.root / 'survived').exists()
