"""Files that do not exist: what is there instead, each word of it looked up."""

import os
import unicodedata
from pathlib import Path

import pytest

from mmsniper.utils.missing_files import missing_file


@pytest.fixture
def data(tmp_path):
    """Two pictures in folders, a file, an empty folder and links to nowhere."""
    for name in ('sub dir/a b.png', 'sub dir/train/c.JPG', 'sub dir/über&.png', 'labels.json'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'gone.png').symlink_to('nowhere.png')
    (tmp_path / 'unmounted').symlink_to('disk')
    return tmp_path


@pytest.mark.parametrize(
    ('named', 'found', 'why'),
    [
        ('sub dir\\a b.png', 'sub dir/a b.png', 'it is written with backslashes'),
        ('sub%20dir/a%20b.png', 'sub dir/a b.png', 'it is percent-encoded'),
        ('sub%20dir\\a%20b.png', 'sub dir/a b.png', 'in Windows; it is percent-encoded'),
        ('sub dir/über&amp;.png', 'sub dir/über&.png', 'it has HTML entities'),
        ('sub dir / a b.png\n', 'sub dir/a b.png', 'there is white space around a name'),
        ('Sub Dir/A b.png', 'sub dir/a b.png', 'upper and lower case differ'),
        (
            unicodedata.normalize('NFD', 'sub dir/über&.png'),
            'sub dir/über&.png',
            'its letters are of another Unicode form',
        ),
        ('sub dir/a b.jpg', 'sub dir/a b.png', 'it has another suffix'),
        ('sub dir/a b', 'sub dir/a b.png', 'it has another suffix'),
        ('sub dir/sub dir/a b.png', 'sub dir/a b.png', 'without the folder sub dir'),
        ('train/c.JPG', 'sub dir/train/c.JPG', 'the folder sub dir is missing in the path'),
        ('C:\\theirs\\sub dir\\a b.png', 'sub dir/a b.png', 'without the folder C:/theirs'),
    ],
)
def test_what_was_meant_is_found(data, named, found, why):
    message = missing_file(f'{data}/{named}', 'the list')
    assert message.startswith(f'There is {data / found}: ')
    assert why in message
    assert message.endswith('. Correct it in the list')


def test_a_path_of_another_machine_is_looked_for_in_the_folders(data):
    path = '/home/me/my data/sub dir/a b.png'
    message = missing_file(path, 'the list', [str(data / 'empty'), str(data)])
    assert message.startswith(f'There is {data / "sub dir/a b.png"}: the path is that of another')


@pytest.mark.parametrize(
    ('named', 'message'),
    [
        ('sub dir/d.png', 'The folder {}/sub dir is there, but there is no d.png in it'),
        ('no/d.png', 'The folder {} is there, but there is no no in it'),
        ('a%20b.json', 'The folder {} is there, but there is no a%20b.json in it'),
        ('labels.png', 'The folder {} is there, but there is no labels.png in it'),
        ('empty/d.png', 'The folder {}/empty is empty'),
        ('labels.json/d.png', '{}/labels.json is a file, not a folder'),
        ('gone.png', '{}/gone.png is a link to nowhere.png, which does not exist'),
        ('unmounted/d.png', '{}/unmounted is a link to disk, which does not exist'),
    ],
)
def test_what_is_there_of_the_way_is_said_where_nothing_is_found(data, named, message):
    assert missing_file(f'{data}/{named}', 'the list') == message.format(data)


def test_a_relative_path_is_told_from_where(data, monkeypatch):
    monkeypatch.chdir(data)
    message = missing_file('no/d.png', 'the list')
    assert message == f'The path is relative, and there is no no in the current folder, {data}'
    assert missing_file('sub dir\\a b.png', 'the list').startswith('There is sub dir/a b.png: ')


def test_a_folder_that_may_not_be_read_is_said(data, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path).name != 'sub dir')
    message = missing_file(f'{data}/sub dir/d.png', 'the list')
    assert message == f'The folder {data}/sub dir may not be read by this user'


def test_a_new_file_in_a_folder_is_seen(data):
    assert 'There is ' not in missing_file(f'{data}/sub dir/d.png', 'the list')
    (data / 'sub dir' / 'D.png').touch()
    os.utime(data / 'sub dir', (1, 1))
    assert 'There is ' in missing_file(f'{data}/sub dir/d.png', 'the list')
