"""One process of each machine makes, all have the result; here with real processes."""

import logging
import mmap
import os
import pickle
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from mmsniper.utils import made_once as module
from mmsniper.utils.made_once import made_once

MEGABYTES = 32
HOSTS = ['a', 'a', 'b']


class OddError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one, other):
        super().__init__(one)


def private_megabytes():
    """Memory that is in no file."""
    _, resident, of_files, *_ = map(int, Path('/proc/self/statm').read_text().split())
    return (resident - of_files) * mmap.PAGESIZE / 1e6


def outcome(call):
    try:
        return call()
    except Exception as error:
        return f'{type(error).__name__}: {error}'


def scenes(rank, folder):
    """What a process sees in each case, by its name."""
    makers = []

    def content():
        makers.append(rank)
        return dict(
            a=np.arange(6).reshape(2, 3), none=np.zeros((0, 4), np.float32), by=rank, text=['ä', 1]
        )

    seen = {'first': made_once(content), 'makers': makers}
    array = seen['first']['a']
    array[0, 0] = 100 + rank
    dist.barrier()
    seen['mine'] = int(array[0, 0])

    def share(k, n):
        return rank, k, n, np.full(3, k)

    seen['shares'] = made_once(lambda shares: [(*s[:3], s[3].tolist()) for s in shares], share)

    def fails(who, error):
        if rank == who:
            raise error
        return rank

    seen['make fails'] = outcome(lambda: made_once(lambda: fails(0, ValueError('faulty file'))))
    seen['a share fails'] = outcome(
        lambda: made_once(len, lambda k, n: fails(1, ValueError('faulty share')))
    )
    seen['odd'] = outcome(lambda: made_once(lambda: fails(0, OddError('odd', 1))))

    warnings = []
    module.print_log = lambda text, **more: warnings.append((text, more['level']))
    seen['cannot be stored'] = made_once(lambda: (rank, lambda: None))[0]
    seen['warnings'] = list(warnings)
    seen['unstored shares'] = made_once(
        lambda shares: [(s[0], s[1]) for s in shares], lambda k, n: (k, rank, lambda: None)
    )
    dist.barrier()  # the first process removes its folder last
    seen['left'] = os.listdir(tempfile.gettempdir())
    tempfile.tempdir = f'{folder}/no such folder'
    seen['no folder'] = made_once(lambda: rank)
    tempfile.tempdir = folder

    before = private_megabytes() if Path('/proc/self/statm').exists() else 0
    large = made_once(lambda: np.ones(MEGABYTES * 125_000))
    seen['sum'] = float(large.sum())  # read, all of it
    seen['private'] = private_megabytes() - before if before else 0
    return seen


def _rank_main(rank, world_size, folder):
    socket.gethostname = lambda: HOSTS[rank]
    temporary = f'{folder}/of_{HOSTS[rank]}'
    os.makedirs(temporary, exist_ok=True)
    tempfile.tempdir = temporary
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
    )
    seen = scenes(rank, temporary)
    Path(f'{folder}/{rank}.pkl').write_bytes(pickle.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    """Of two processes on one machine and one on another, what each sees."""
    folder = tmp_path_factory.mktemp('processes')
    mp.spawn(_rank_main, args=(3, str(folder)), nprocs=3)
    return [pickle.loads((folder / f'{rank}.pkl').read_bytes()) for rank in range(3)]


def test_one_process_of_each_machine_makes_it(seen):
    assert [process['makers'] for process in seen] == [[0], [], [2]]
    assert [process['first']['by'] for process in seen] == [0, 0, 2]
    for process in seen:
        first = process['first']
        assert first['a'].tolist()[1] == [3, 4, 5]
        assert first['a'].dtype == np.arange(1).dtype
        assert first['none'].shape == (0, 4)
        assert first['none'].dtype == np.float32
        assert first['text'] == ['ä', 1]


def test_each_process_may_change_its_own(seen):
    assert [process['mine'] for process in seen] == [100, 101, 102]


def test_the_processes_of_a_machine_share_the_work(seen):
    both = [(0, 0, 2, [0] * 3), (1, 1, 2, [1] * 3)]
    assert [process['shares'] for process in seen] == [both, both, [(2, 0, 1, [0] * 3)]]


def test_errors_reach_all_processes(seen):
    faults = [process['make fails'] for process in seen]
    assert faults[:2] == ['ValueError: faulty file'] * 2
    elsewhere = 'RuntimeError: process 0, on another machine, has failed with ValueError: faulty'
    assert faults[2].startswith(elsewhere)
    faults = [process['a share fails'] for process in seen]
    assert faults[:2] == ['ValueError: faulty share'] * 2
    assert faults[2].startswith(elsewhere)
    assert [process['odd'] for process in seen][:2] == [
        'OddError: odd',
        'RuntimeError: OddError: odd',
    ]


def test_what_cannot_be_stored_is_made_by_each_process(seen):
    assert [process['cannot be stored'] for process in seen] == [0, 1, 2]
    ((text, level),) = seen[0]['warnings']
    assert level == logging.WARNING
    assert 'TMPDIR=FOLDER' in text
    assert 'the 2 processes of a' in text
    assert seen[1]['warnings'] == seen[2]['warnings'] == []
    assert seen[0]['unstored shares'] == seen[1]['unstored shares'] == [(0, 0), (1, 0)]


def test_without_a_folder_each_process_makes_it(seen):
    assert [process['no folder'] for process in seen] == [0, 1, 2]


def test_no_file_is_left_over(seen):
    assert [process['left'] for process in seen] == [[], [], []]


def test_arrays_are_in_memory_once(seen):
    assert [process['sum'] for process in seen] == [MEGABYTES * 125_000.0] * 3
    if seen[2]['private']:  # on Linux
        assert seen[2]['private'] > 0.9 * MEGABYTES  # alone on its machine
        assert seen[1]['private'] < 0.3 * MEGABYTES
        assert seen[0]['private'] < 0.3 * MEGABYTES


def test_in_one_process_it_is_a_call():
    made = object()
    assert made_once(lambda: made) is made
    assert made_once(lambda shares: shares, lambda k, n: (k, n)) == [(0, 1)]


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    old, recent, other = (
        tmp_path / name for name in ('mmsniper-made-once-1', 'mmsniper-made-once-2', 'mmsniper-1')
    )
    for folder in (old, recent, other):
        folder.mkdir()
        (folder / 'made.arrays').write_text('half')
    for folder in (old, other):
        os.utime(folder, (0, 0))
    new = Path(module._new_folder())
    assert set(tmp_path.iterdir()) == {recent, other, new}
