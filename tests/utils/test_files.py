"""Files appear whole or not at all."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mmsniper.utils.files import check_folder, replacing, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / 'pool.npz'
    with replacing(path) as temporary:
        temporary.write_text('half')
        assert not path.exists()
        with open(temporary, 'a') as file:
            file.write(' and whole')
        assert not path.exists()
    assert path.read_text() == 'half and whole'
    assert names(tmp_path) == ['pool.npz']


def test_a_file_that_is_there_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'pool.npz'
    path.write_text('a long old content')
    with replacing(str(path)) as temporary:
        temporary.write_text('new')
        assert path.read_text() == 'a long old content'
    assert path.read_text() == 'new'
    assert names(tmp_path) == ['pool.npz']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_the_old_content_stays_if_writing_fails_and_nothing_is_left_over(tmp_path, error):
    path = tmp_path / 'pool.npz'
    path.write_text('old')

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text('half')
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == 'old'
    assert names(tmp_path) == ['pool.npz']


def test_a_body_that_writes_nothing_is_an_error_and_the_old_content_stays(tmp_path):
    path = tmp_path / 'pool.npz'
    path.write_text('old')
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == 'old'
    assert names(tmp_path) == ['pool.npz']


def test_a_process_that_is_killed_meanwhile_leaves_the_old_content(tmp_path):
    path = tmp_path / 'pool.npz'
    path.write_text('old')
    code = (
        'import os, signal, sys\n'
        'from mmsniper.utils.files import replacing\n'
        'with replacing(sys.argv[1]) as temporary:\n'
        '    temporary.write_text("half")\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    done = subprocess.run([sys.executable, '-c', code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == 'old'
    with replacing(path) as temporary:
        temporary.write_text('new')
    assert path.read_text() == 'new'


def test_folders_are_made(tmp_path):
    with replacing(tmp_path / 'results' / 'toy' / 'pool.npz') as temporary:
        temporary.write_text('whole')
    assert (tmp_path / 'results' / 'toy' / 'pool.npz').read_text() == 'whole'


def test_a_name_without_a_folder_is_of_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replacing('pool.npz') as temporary:
        temporary.write_text('whole')
    assert names(tmp_path) == ['pool.npz']


def test_the_temporary_file_is_in_the_same_folder_and_no_search_for_the_suffix_finds_it(tmp_path):
    # In another folder it might be on another disk, and renaming would be copying.
    with replacing(tmp_path / 'pool.npz') as temporary:
        temporary.write_text('half')
        assert temporary.parent == tmp_path
        assert list(tmp_path.glob('*.npz')) == []


def test_two_that_write_the_same_file_do_not_write_into_each_others(tmp_path):
    """Two threads, or processes of two machines with one number, such as 7 in two containers."""
    path = tmp_path / 'pool.npz'
    with replacing(path) as mine:
        mine.write_text('mine')
        with replacing(path) as theirs:
            theirs.write_text('theirs')
        assert path.read_text() == 'theirs'
    assert path.read_text() == 'mine'
    assert names(tmp_path) == ['pool.npz']


def test_many_threads_at_once(tmp_path):
    path = tmp_path / 'pool.npz'

    def write(number):
        for _ in range(20):
            with replacing(path) as temporary:
                temporary.write_text(f'{number}' * 1000)
            assert len(set(path.read_text())) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(path.read_text()) == 1000
    assert names(tmp_path) == ['pool.npz']


def test_a_left_over_file_tells_what_it_was_and_who_wrote_it(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, 'gethostname', lambda: 'node12')
    with replacing(tmp_path / 'pool.npz') as temporary:
        temporary.touch()
        assert re.fullmatch(rf'\.pool\.npz\.node12-{os.getpid()}-\w{{8}}\.tmp', temporary.name)


def test_names_may_be_as_long_as_names_can_be(tmp_path):
    for name in ('x' * 251 + '.npz', '図' * 83 + '.npz'):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text('whole')
        assert (tmp_path / name).read_text() == 'whole'


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path):
    disk, work_dir = tmp_path / 'disk', tmp_path / 'work_dir'
    disk.mkdir()
    work_dir.mkdir()
    (disk / 'pool.npz').write_text('old')
    (work_dir / 'pool.npz').symlink_to('../disk/pool.npz')
    (work_dir / 'new.npz').symlink_to(disk / 'new.npz')
    for name in ('pool.npz', 'new.npz'):
        with replacing(work_dir / name) as temporary:
            temporary.write_text('new')
            assert temporary.parent == disk  # renaming does not cross disks
        assert (work_dir / name).is_symlink()
        assert (disk / name).read_text() == 'new'
    assert names(disk) == ['new.npz', 'pool.npz']


def test_a_folder_behind_a_link_stays_one(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'results').symlink_to('disk')
    with replacing(tmp_path / 'results' / 'pool.npz') as temporary:
        temporary.write_text('whole')
    assert (tmp_path / 'results').is_symlink()
    assert names(tmp_path / 'disk') == ['pool.npz']


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    reading, writing = os.pipe()
    with open(reading) as read, open(writing, 'w'):
        write_text(f'/dev/fd/{writing}', 'whole')
        assert os.read(read.fileno(), 100) == b'whole'
    write_text('/dev/null', 'nothing')
    assert not os.path.isfile('/dev/null')
    assert os.path.exists('/dev/null')


@pytest.mark.parametrize('mask', [0o022, 0o027, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / 'numbers.json', '[]')
    finally:
        os.umask(before)
    assert (tmp_path / 'numbers.json').stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda *args: (order.append('fsync'), fsync(*args)))
    monkeypatch.setattr(os, 'replace', lambda *args: (order.append('replace'), replace(*args)))
    with replacing(tmp_path / 'pool.npz') as temporary:
        temporary.write_text('whole')
    assert order == ['fsync', 'replace']


def test_folders_that_cannot_be_written_are_told_before_the_work(tmp_path, monkeypatch):
    check_folder(tmp_path / 'new' / 'one', '--out-dir')
    assert names(tmp_path) == []
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to(tmp_path / 'gone')
    for folder, said in (
        ('file', 'file is a file, not a folder. Name another one, --out-dir'),
        ('file/below', 'file is a file, not a folder'),
        ('link/below', 'link is a link to nothing'),
    ):
        with pytest.raises(OSError, match=said) as caught:
            check_folder(tmp_path / folder, '--out-dir')
        assert str(tmp_path / folder) in str(caught.value)
    monkeypatch.setattr(os, 'access', lambda *args: False)
    with pytest.raises(OSError, match='may not write to'):
        check_folder(tmp_path, '--out-dir')
    monkeypatch.undo()
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match='is full'):
        check_folder(tmp_path / 'new', '--out-dir')


def test_what_finds_no_room_names_the_file_and_leaves_nothing(tmp_path):
    (tmp_path / 'a.json').write_text('old')
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"):  # noqa: SIM117
        with replacing(tmp_path / 'a.json'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == ['a.json']
    assert (tmp_path / 'a.json').read_text() == 'old'
