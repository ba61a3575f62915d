"""What one process of a machine makes for all of them: start-up work is done once, and is in
memory once.
"""

from __future__ import annotations

import logging
import mmap
import os
import pickle
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from mmsniper.utils.files import replacing

Made = TypeVar('Made')
Share = Callable[[int, int], Any]

_PREFIX = 'mmsniper-made-once-'
_ALIGNED = 64  # bytes, to which arrays in a file are
_WAIT = 0.1  # seconds
_OLD = 24 * 3600  # seconds after which nobody reads what a killed process has left


def made_once(make: Callable[..., Made], share: Share | None = None) -> Made:
    """Have one process of each machine make something, and give it to the others there.

    The arrays in it are in a temporary file then (``TMPDIR`` names its folder), which the processes
    map: so they are in memory once for all of them. The file loses its name as soon as all have it,
    and its room when the last of them ends, however it ends. Where a machine has no room for it,
    or what is made cannot be pickled, each process makes it for itself.

    All processes must call it, in the same order. In a training of one process, and in a worker of
    a data loader, it is the call of ``make``.

    Args:
        make (Callable): Makes it. With ``share`` it gets a list of all shares.
        share (Callable[[int, int], Any] | None): ``share(k, n)`` makes share k of n, of which each
            process of the machine makes one. Defaults to None.

    Returns:
        Made: What was made. Each process may change its own.

    Raises:
        Exception: What ``make`` or ``share`` raise, in all processes of the machine.
        RuntimeError: If one on another machine has failed.
    """
    if get_world_size() == 1 or get_worker_info() is not None:
        return _alone(make, share)
    machine = _Machine.find()
    failed: Exception | None = None
    try:
        made = machine.make(make, share)
    except Exception as error:
        failed = error
    errors = all_gather_object(None if failed is None else f'{type(failed).__name__}: {failed}')
    if machine.index == 0 and machine.folder is not None:
        shutil.rmtree(machine.folder, ignore_errors=True)
    if failed is not None:
        raise failed
    for rank, message in enumerate(errors):
        if message is not None:
            raise RuntimeError(f'process {rank}, on another machine, has failed with {message}')
    return made


def _alone(make: Callable[..., Made], share: Share | None) -> Made:
    return make() if share is None else make([share(0, 1)])


@dataclass(frozen=True)
class _Machine:
    """The processes that share a folder for temporary files; None if this one has none to share."""

    folder: Path | None
    index: int = 0
    size: int = 1

    @classmethod
    def find(cls) -> _Machine:
        rank, host = get_rank(), socket.gethostname()
        hosts = all_gather_object(host)
        first = hosts.index(host)
        name = _new_folder() if rank == first and hosts.count(host) > 1 else ''
        name = all_gather_object(name)[first]
        # Containers may have a host's name in common and no folder.
        seen = all_gather_object(bool(name) and os.path.isdir(name))
        here = [r for r, there in enumerate(hosts) if there == host and seen[r]]
        if rank not in here:
            return cls(None)
        return cls(Path(name), here.index(rank), len(here))

    def make(self, make: Callable[..., Made], share: Share | None) -> Made:
        """What :func:`made_once` returns in this process."""
        folder = self.folder
        if folder is None or self.size == 1:
            return _alone(make, share)
        if self.index == 0:
            return self._put(folder / 'made', lambda: make(*self._shares(folder, share)))
        if share is not None:
            self._put(folder / f'share{self.index}', partial(share, self.index, self.size))
        return self._get(folder / 'made', lambda: _alone(make, share))

    def _shares(self, folder: Path, share: Share | None) -> list[list[Any]]:
        """The arguments of ``make``."""
        if share is None:
            return []
        shares = [share(0, self.size)]
        for k in range(1, self.size):
            shares.append(self._get(folder / f'share{k}', partial(share, k, self.size)))
        return [shares]

    def _put(self, file: Path, make: Callable[[], Made]) -> Made:
        """Make something for the others; they get the error, if there is one, and so does this."""
        try:
            made = make()
        except Exception as error:
            _store(_Failed.of(error), file)
            raise
        try:
            _store(made, file)
        except Exception as error:  # unpicklable objects raise several kinds
            _store(_EachItself(), file)
            print_log(
                f'the {self.size} processes of {socket.gethostname()} do the same work each and '
                f'take memory for it, since what one has made cannot be stored in {file.parent} '
                f'({type(error).__name__}: {error}). If that has no room, name another folder in '
                f'the environment, TMPDIR=FOLDER',
                logger='current',
                level=logging.WARNING,
            )
            return made
        del made
        return _load(file)

    def _get(self, file: Path, make: Callable[[], Made]) -> Made:
        """What another process has put there; made here if it could not be stored."""
        found = _load(file)
        if isinstance(found, _Failed):
            raise found.error
        return make() if isinstance(found, _EachItself) else found


class _EachItself:
    """Stands for what could not be stored."""


@dataclass(frozen=True)
class _Failed:
    """Stands for what could not be made."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> _Failed:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # its class is local, or has other arguments
            error = RuntimeError(f'{type(error).__name__}: {error}')
        return cls(error)


def _new_folder() -> str:
    """A folder for temporary files, '' if there can be none."""
    try:
        for left in Path(tempfile.gettempdir()).glob(f'{_PREFIX}*'):
            if time.time() - left.stat().st_mtime > _OLD:
                shutil.rmtree(left, ignore_errors=True)
        return tempfile.mkdtemp(prefix=_PREFIX)
    except OSError:
        return ''


def _store(content: Any, file: Path) -> None:
    """Write something; its arrays go to a file beside, and ``file`` appears when both are whole."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    arrays, places = file.with_suffix('.arrays'), []
    try:
        with open(arrays, 'wb') as out:
            for buffer in buffers:
                out.seek(-out.tell() % _ALIGNED, os.SEEK_CUR)
                raw = buffer.raw()
                places.append((out.tell(), raw.nbytes))
                out.write(raw)
        with replacing(file) as temporary:
            temporary.write_bytes(pickle.dumps((head, places)))
    except OSError:
        arrays.unlink(missing_ok=True)
        raise


def _load(file: Path) -> Any:
    """Wait for what :func:`_store` writes; arrays are mapped, and changes of them are private."""
    while not file.exists():
        time.sleep(_WAIT)
    # Written by this user's own process: the folder is closed to others.
    head, places = pickle.loads(file.read_bytes())
    whole = memoryview(b'')
    if any(size for _, size in places):
        with open(file.with_suffix('.arrays'), 'rb') as arrays:
            whole = memoryview(mmap.mmap(arrays.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(head, buffers=[whole[at : at + size] for at, size in places])
