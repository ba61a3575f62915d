"""Why a file does not exist: what is there instead."""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

GIT_LFS = b'version https://git-lfs'
"""How a pointer of Git LFS begins, which stands for a file that was not fetched."""

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.jp2')
"""Suffixes of files that are taken for images, in lower case."""

# Folders below one that exists that are searched for the rest of a path.
_MAX_FOLDERS = 200

_REWRITINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ('it is written with backslashes, as in Windows', lambda path: path.replace('\\', '/')),
    ('it is percent-encoded, as in an address', unquote),
    ('it is an address of Label Studio', lambda path: path.rpartition('?d=')[2]),
    ('it is an address, file:', lambda path: re.sub('^.*file:/+', '/', path)),
    ('it has HTML entities, such as &amp;', html.unescape),
    ('there is white space around a name', lambda path: re.sub(r'\s*(/|^|$)\s*', r'\1', path)),
)


class _Place(NamedTuple):
    """How far a path can be followed.

    Attributes:
        folder (str): The last folder (or file) on the way that exists.
        rest (tuple[str, ...]): The parts of the path that are not in it.
        remarks (list[str]): How names on the way differ from those in the path.
    """

    folder: str
    rest: tuple[str, ...]
    remarks: list[str]


def missing_file(path: str, named_in: str, folders: Sequence[str] = ()) -> str:
    """Say what is there instead of a file that does not exist.

    Everything is said because it was looked up: another spelling of the path, letters of another
    case, another suffix, folders too many or too few in it.

    Args:
        path (str): The path, which does not exist.
        named_in (str): Where it is written, such as 'the annotation file'.
        folders (Sequence[str]): Where the file ought to be, for a path of another machine.
            Defaults to none.

    Returns:
        str: Sentences without a full stop at the end.
    """
    for remarks, spelled in _spellings(path):
        found, why = _nearest(spelled, folders)
        if found:
            return f'There is {found}: {"; ".join([*remarks, *why])}. Correct it in {named_in}'
    place = _follow(path)
    if not place.rest:
        return ''
    missing = os.path.join(place.folder, place.rest[0])
    if os.path.islink(missing):
        return f'{missing} is a link to {os.readlink(missing)}, which does not exist'
    if os.path.isfile(place.folder):
        return f'{place.folder} is a file, not a folder'
    if place.folder in ('', '.'):
        return (
            f'The path is relative, and there is no {place.rest[0][:80]} in the current folder, '
            f'{os.getcwd()}'
        )
    if not os.access(place.folder, os.X_OK | os.R_OK):
        return f'The folder {place.folder} may not be read by this user'
    if not _names(place.folder):
        return f'The folder {place.folder} is empty'
    return f'The folder {place.folder} is there, but there is no {place.rest[0][:80]} in it'


def _spellings(path: str) -> Iterator[tuple[list[str], str]]:
    """The path, and the paths that it may mean, those with the fewest changes first."""
    yield [], path
    changing = [(why, change) for why, change in _REWRITINGS if change(path) != path]
    for number in range(1, len(changing) + 1):
        for some in combinations(changing, number):
            spelled = path
            for _, change in some:
                spelled = change(spelled)
            yield [why for why, _ in some], spelled


def _nearest(path: str, folders: Sequence[str]) -> tuple[str, list[str]]:
    """A file that the path may mean, '' if there is none, and how the paths differ."""
    folder, rest, remarks = _follow(path)
    if not rest:
        return (folder, remarks) if os.path.isfile(folder) else ('', [])
    if len(rest) == 1 and (other := _other_suffix(folder, rest[0])):
        return os.path.join(folder, other), [*remarks, 'it has another suffix']
    for k in range(1, len(rest)):
        if os.path.isfile(shorter := os.path.join(folder, *rest[k:])):
            return shorter, [*remarks, f'without the folder {os.path.join(*rest[:k])}']
    for sub in _names(folder)[:_MAX_FOLDERS]:
        if os.path.isfile(deeper := os.path.join(folder, sub, *rest)):
            return deeper, [*remarks, f'the folder {sub} is missing in the path']
    parts = Path(path).parts
    for root in folders:
        for k in range(len(parts)):
            if os.path.isfile(here := os.path.join(root, *parts[k:])):
                return here, ['the path is that of another folder or machine']
    return '', []


def _follow(path: str) -> _Place:
    """Follow a path as far as it exists, letters of another case or form included."""
    parts, at = Path(path).parts, ''
    remarks: list[str] = []
    for k, part in enumerate(parts):
        if os.path.exists(following := os.path.join(at, part)):
            at = following
            continue
        same = [name for name in _names(at) if _folded(name) == _folded(part) and name != part]
        if not same:
            return _Place(at, parts[k:], remarks)
        at = os.path.join(at, same[0])
        if same[0].casefold() == part.casefold():
            remarks.append('upper and lower case differ')
        else:
            remarks.append('its letters are of another Unicode form (NFC, NFD)')
    return _Place(at, (), remarks)


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()


def _other_suffix(folder: str, name: str) -> str:
    """An image of the same name with another suffix, or with one at all; '' if there is none."""
    stems = {Path(name).stem, name}
    for other in map(Path, _names(folder)):
        if (
            other.stem in stems
            and other.suffix.lower() in IMAGE_SUFFIXES
            and os.path.isfile(os.path.join(folder, other))
        ):
            return other.name
    return ''


def _names(folder: str) -> Sequence[str]:
    """What is in a folder, sorted; nothing if it cannot be read."""
    try:
        return _names_at(folder or '.', os.stat(folder or '.').st_mtime_ns)
    except (OSError, ValueError):
        return ()


@lru_cache(maxsize=8)
def _names_at(folder: str, time: int) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(folder)))
