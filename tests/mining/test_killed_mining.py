"""Processes that are really killed while they mine, and runs that go on from there."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

# KILL=MOMENT:RANK ends a process as if by kill -9. Every epoch's chips are noted.
MODULE = """
import json, os, pathlib, signal
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmsniper.chips import NegativeChipPool
from mmsniper.mining import NegativeChipMiner

moment, rank = os.environ.get('KILL', 'never:0').split(':')
me = os.environ.get('RANK', '0') == rank
propose, save, write = NegativeChipMiner._propose, NegativeChipPool.save, np.savez_compressed

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killed_propose(self, model, data, batch, pyramid, seen=[]):
    seen.append(batch)
    if len(seen) == 9:
        die()
    return propose(self, model, data, batch, pyramid)

def killed_write(file, **arrays):
    if 'negative_chips.npz' in str(file.name):
        write(file, **arrays)
        file.flush()
        os.truncate(file.name, 700)
        die()
    return write(file, **arrays)

def killed_save(self, path):
    save(self, path)
    if pathlib.Path(path).name == 'negative_chips.npz':
        die()

if me and moment == 'mining':
    NegativeChipMiner._propose = killed_propose
if me and moment == 'writing':
    np.savez_compressed = killed_write
if me and moment == 'written':
    NegativeChipPool.save = killed_save

@HOOKS.register_module()
class NoteChips(Hook):
    priority = 'LOWEST'
    def before_train_epoch(self, runner):
        chips = [[int(i), i.chip] for i in runner.train_dataloader.sampler]
        name = f'epoch{runner.epoch}-rank{runner.rank}.json'
        pathlib.Path(runner.work_dir, name).write_text(json.dumps(chips))
"""


@pytest.fixture
def train(small_run, tmp_path):
    """Train in a process of its own, or in two; return its exit status and output."""
    (tmp_path / 'killing.py').write_text(MODULE)
    text = small_run.read_text().replace("'mmsniper.engine']", "'mmsniper.engine', 'killing']")
    small_run.write_text(text + "\ncustom_hooks += [dict(type='NoteChips')]\n")

    def run(work_dir, kill='never:0', ranks=1):
        with socket.socket() as free:
            free.bind(('', 0))
            port = free.getsockname()[1]
        env = {
            **os.environ,
            'KILL': kill,
            'PYTHONPATH': str(tmp_path),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHON': sys.executable,
            'PORT': str(port),
            'NNODES': '',
            'NODE_RANK': '',
            'MASTER_ADDR': '',
        }
        command = [sys.executable, str(TOOLS / 'train.py'), str(small_run)]
        if ranks > 1:
            command = [str(TOOLS / 'dist_train.sh'), str(small_run), str(ranks)]
        done = subprocess.run(
            [*command, '--resume', '--work-dir', str(tmp_path / work_dir)],
            env=env,
            text=True,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        return done.returncode, done.stdout

    return run


def chips(folder, ranks=1):
    """The chips of the epochs after mining, by epoch and rank."""
    return {
        (epoch, rank): json.loads((folder / f'epoch{epoch}-rank{rank}.json').read_text())
        for epoch in (2, 3)
        for rank in range(ranks)
    }


def assert_same(work_dir, other, ranks=1):
    assert chips(work_dir, ranks) == chips(other, ranks)
    first, second = (np.load(folder / 'negative_chips.npz') for folder in (work_dir, other))
    assert set(first) == set(second)
    assert all((first[name] == second[name]).all() for name in first)
    assert [p.name for p in work_dir.glob('*negative_chips*')] == ['negative_chips.npz']


def test_a_run_that_is_killed_around_mining_ends_as_an_uninterrupted_one(train, tmp_path):
    status, output = train('whole')
    assert status == 0, output
    found = {}
    for moment in ('mining', 'writing', 'written'):
        work_dir = tmp_path / moment
        status, output = train(moment, kill=f'{moment}:0')
        assert status == -signal.SIGKILL, output
        assert (work_dir / 'last_checkpoint').read_text().endswith('epoch_2.pth')
        assert (work_dir / 'negative_chips.npz').exists() == (moment == 'written')
        parts = list(work_dir.glob('negative_chips.parts/*/*.npz'))
        found[moment] = len(parts)
        status, output = train(moment)
        assert status == 0, output
        if moment == 'mining':
            assert f'{len(parts)} of ' in output.partition('parts are there from before')[0]
        if moment == 'written':
            assert 'was mined before' in output
            assert 'mining negative chips in' not in output
        assert_same(work_dir, tmp_path / 'whole')
    assert 0 < found['mining'] < found['writing'] == found['written']


@pytest.mark.parametrize('killed', [0, 1])
def test_the_other_rank_ends_with_a_message_and_the_run_can_go_on(train, tmp_path, killed):
    status, output = train('killed', kill=f'mining:{killed}', ranks=2)
    assert status != 0
    assert 'Signal 9 (SIGKILL)' in output
    assert not (tmp_path / 'killed' / 'negative_chips.npz').exists()
    status, output = train('killed', ranks=2)
    assert status == 0, output
    status, output = train('whole', ranks=2)
    assert status == 0, output
    assert_same(tmp_path / 'killed', tmp_path / 'whole', ranks=2)
