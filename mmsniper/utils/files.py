"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Of a disk without room, a quota, and a limit of file sizes; such errors name no file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEAST_ROOM = 2**20  # bytes


def check_folder(folder: str | os.PathLike, option: str) -> None:
    """Check, before hours of work, that files can be written to a folder. It need not exist yet.

    Args:
        folder (str | os.PathLike): The folder.
        option (str): What names it, for the message.

    Raises:
        OSError: If not; the message says why.
    """
    there = Path(folder).absolute()
    while not os.path.lexists(there):
        there = there.parent
    fault = ''
    if not there.is_dir():
        fault = f'{there} is {"a file" if there.exists() else "a link to nothing"}, not a folder'
    elif not os.access(there, os.W_OK | os.X_OK):
        fault = f'this user may not write to {there}'
    elif shutil.disk_usage(there).free < _LEAST_ROOM:
        fault = f'the disk of {there} is full'
    if fault:
        raise OSError(f'cannot write to the folder {folder}: {fault}. Name another one, {option}')


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a temporary name and rename it when it is whole.

    Whoever reads ``path`` finds the old file or the new one, also if this process is killed or the
    machine loses power meanwhile. Whoever else writes it at the same time, in another thread,
    process or machine, does so under another name; the last one to finish stays. Of a link, the
    file that it leads to is replaced, and what is no file, such as ``/dev/stdout``, is written to.
    Folders are made as needed.

    A killed process leaves its temporary file, named ``.<path>.<host>-<process>-<number>.tmp``.

    Args:
        path (str | os.PathLike): The file to make or replace.

    Yields:
        Path: The temporary path, in the same folder, to write to.

    Example:
        >>> with replacing('numbers.json') as file:
        ...     _ = file.write_text('[1, 2, 3]')
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.realpath(path))
    # Names may have 255 bytes. Processes of two machines may have the same number.
    writer = f'{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(4)}'
    temporary = path.with_name(f'.{path.name[:40]}.{writer}.tmp')
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file that appears when it is whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, 'utf-8')


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write a JSON file, for people to read as well, that appears when it is whole."""
    write_text(path, json.dumps(content, indent=2) + '\n')


def utf8_name(name: str) -> str:
    """A file's name as text that can be printed and written, whatever the locale.

    In a locale that is not UTF-8, and for a name that is not, Python has surrogates in the place of
    letters, with which files are found, but which no text may have.
    """
    return os.fsencode(name).decode('utf-8', 'backslashreplace')
