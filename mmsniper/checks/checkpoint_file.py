"""Whether a file can be a checkpoint, told by its bytes: nothing is unpickled."""

from __future__ import annotations

import os
import pickletools
import re
import string
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import IO

from mmsniper.checks.finding import ERROR, Finding
from mmsniper.utils.missing_files import GIT_LFS

_TEXT = frozenset(string.printable.encode())
_OF_LEGACY = 3  # pickles before the content in files of torch.save as of before 1.6
_LEGACY = 0x1950A86A20F9469CFC6C  # torch's number in the first of them
_AGAIN = 'Copy it again, or take an earlier one'
_SAVE = 'torch.save(dict(state_dict=model.state_dict()), FILE)'


def check_checkpoint_file(file: str) -> Iterator[Finding]:
    """Check that a file can be a checkpoint: a dict that torch has saved.

    Args:
        file (str): Path of the checkpoint; an address, and what does not exist, has no findings.
    """
    if '://' not in file and os.path.isfile(file):
        what, fix = _fault(file)
        if what:
            yield Finding(ERROR, file, what, fix)


def unpickling_fault(error: Exception) -> str:
    """What to say where torch refuses to load a checkpoint for the objects that it holds."""
    named = re.search(r'Unsupported global: GLOBAL (\S+)', str(error))
    holds = f'objects such as {named[1]}' if named else 'something else'
    return (
        f'holds {holds} beside weights, which torch does not load, as to load it could run '
        f'any code. Save its weights only, where it is from: {_SAVE}'
    )


def _fault(file: str) -> tuple[str, str]:
    """What is wrong, '' if nothing is, and what to do."""
    fix = 'Name a checkpoint, such as work_dirs/.../epoch_7.pth'
    with open(file, 'rb') as opened:
        head = opened.read(64)
        if not head:
            return 'is empty (0 bytes)', _AGAIN
        if head.startswith(GIT_LFS):
            return 'is a pointer of Git LFS', 'Fetch it: git lfs pull'
        if all(sign in _TEXT for sign in head):
            return f'is text, not a checkpoint, and begins with {head[:40].decode()!r}', fix
        if head.startswith(b'PK\3\4'):
            return _zip_fault(file)
        if head.startswith(b'\x80'):
            opened.seek(0)
            return _pickle_fault(opened)
    return '', ''  # torch says what it is


def _zip_fault(file: str) -> tuple[str, str]:
    if not zipfile.is_zipfile(file):
        return 'is cut short, its end is missing', _AGAIN
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith('/constants.pkl') for name in names):
            return ('is a TorchScript program, not weights', 'Name what it was made of')
        data = [name for name in names if name.count('/') == 1 and name.endswith('/data.pkl')]
        if not data:
            fix = 'Unpack it, if the checkpoint is in it'
            return f'is a ZIP archive, but not of torch.save (it has {names[:1]})', fix
        with archive.open(data[0]) as opened:
            return _content_fault(opened)


def _pickle_fault(opened: IO[bytes]) -> tuple[str, str]:
    try:
        if _LEGACY not in [value for _, value, _ in islice(pickletools.genops(opened), 3)]:
            return 'is a pickle, but not of torch.save', f'Save it so: {_SAVE}'
        opened.seek(0)
        for _ in range(_OF_LEGACY):
            list(pickletools.genops(opened))
    except ValueError:
        return 'is cut short, or no checkpoint', _AGAIN
    return _content_fault(opened)


def _content_fault(opened: IO[bytes]) -> tuple[str, str]:
    """What is wrong with the first thing in a pickle, which has to be a dict."""
    texts: list[str] = []
    kind = ''
    try:
        for op, value, _ in pickletools.genops(opened):
            if op.name in ('PROTO', 'FRAME', 'MEMOIZE'):
                continue
            if op.name.endswith('BINUNICODE') and len(texts) < 2:  # of a STACK_GLOBAL
                texts.append(str(value))
                continue
            kind = op.name
            if kind in ('GLOBAL', 'STACK_GLOBAL'):
                kind = (value or ' '.join(texts)).replace(' ', '.')
            break
    except ValueError:
        return 'is cut short, or no checkpoint', _AGAIN
    if kind == 'EMPTY_DICT' or kind.endswith(('Dict', '.defaultdict')):
        return '', ''
    names = dict(EMPTY_LIST='list', EMPTY_TUPLE='tuple', MARK='tuple or Python object')
    if '.' not in kind:
        what = f'holds a {names.get(kind, "value of another kind")} instead of a dict with weights'
    elif kind.startswith('torch._utils._rebuild'):
        what = 'holds one tensor instead of a dict with weights'
    else:
        what = f'holds a Python object ({kind}), pickled whole, instead of a dict of weights'
    return what, f'Save the weights only: {_SAVE}'
