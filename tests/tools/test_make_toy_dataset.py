"""The command line of the toy data generator."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    '--num-train',
    '2',
    '--num-val',
    '1',
    '--min-side',
    '300',
    '--max-side',
    '320',
    '--processes',
    '1',
]


def run(*args):
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.run(
        [sys.executable, 'tools/dataset_tools/make_toy_dataset.py', *args],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp('made') / 'toy'
    return out_dir, run('--out-dir', str(out_dir), *TINY)


def test_it_makes_the_data_set_with_a_progress_bar_and_says_where(made):
    out_dir, result = made
    assert result.returncode == 0, result.stderr
    assert f'train: 2 images, {out_dir}/annotations/train.json' in result.stdout
    assert '3/3' in result.stderr
    assert sorted(p.name for p in (out_dir / 'train').iterdir()) == ['000001.jpg', '000002.jpg']


def test_running_it_again_does_nothing(made):
    out_dir, _ = made
    before = {p: p.stat().st_mtime_ns for p in out_dir.rglob('*')}
    result = run('--out-dir', str(out_dir), *TINY)
    assert result.returncode == 0
    assert 'toy images' not in result.stderr
    assert {p: p.stat().st_mtime_ns for p in out_dir.rglob('*')} == before


def test_rotated_boxes_have_a_folder_of_their_own(load_tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    load_tool('dataset_tools/make_toy_dataset').main(['--rotated', *TINY])
    made = sorted(path.name for path in (tmp_path / 'work_dirs' / 'toy_rotated_data').iterdir())
    assert made == ['annfiles', 'annotations', 'toy_dataset.json', 'train', 'val']


@pytest.mark.parametrize(
    ('args', 'message'),
    [(['--seed', '1'], 'seed=0 (asked for: 1)'), (['--num-val', '0'], 'num_val must be')],
)
def test_errors_are_one_line(made, args, message):
    out_dir, _ = made
    result = run('--out-dir', str(out_dir), *TINY, *args)
    assert result.returncode == 1
    assert result.stderr.startswith('error: ')
    assert message in result.stderr
    assert 'Traceback' not in result.stderr
