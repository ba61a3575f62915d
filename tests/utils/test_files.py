"""Files appear whole or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from mmsniper.utils.files import replacing


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


def test_processes_that_write_the_same_file_do_not_write_into_each_others(tmp_path, monkeypatch):
    path = tmp_path / 'pool.npz'
    with replacing(path) as mine:
        mine.write_text('mine')
        monkeypatch.setattr(os, 'getpid', lambda: -1)
        with replacing(path) as theirs:
            theirs.write_text('theirs')
        assert path.read_text() == 'theirs'
    assert path.read_text() == 'mine'
    assert names(tmp_path) == ['pool.npz']


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda *args: (order.append('fsync'), fsync(*args)))
    monkeypatch.setattr(os, 'replace', lambda *args: (order.append('replace'), replace(*args)))
    with replacing(tmp_path / 'pool.npz') as temporary:
        temporary.write_text('whole')
    assert order == ['fsync', 'replace']
