"""Every config gives what it gave when it was frozen: ``configs/`` beside this file.

``python tests/frozen/freeze.py configs`` stores them anew.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mmrotate_ready import NO_MMROTATE, lacks_mmrotate

from mmsniper.convert import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STORED = Path(__file__).resolve().parent / 'configs'
NO_DETECTOR = 'a part that makes a detector of another file its SNIPER version; alone it is refused'
UNLOADABLE = {'_base_/sniper.py': NO_DETECTOR}
PATHS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py'))
LOADABLE = [path for path in PATHS if path not in UNLOADABLE]
MOST = 20
MISSING = object()


def resolved(path: str) -> Any:
    """What the config file gives where there are no data and weights, as JSON holds it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return plain(load_config(CONFIGS / path).to_dict())
        finally:
            os.chdir(before)


def plain(value: Any) -> Any:
    """Tuples become lists, sets sorted lists, classes and functions their names."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value):
        return f'{value.__module__}.{value.__qualname__}'
    raise TypeError(f'JSON has nothing for {value!r}')


def differences(old: Any, new: Any, path: str = '') -> Iterator[str]:
    """The keys whose values differ, such as ``sampler.type: 'A' != 'B'``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        for key in keys:
            below = f'{path}.{key}' if path else key
            yield from differences(old.get(key, MISSING), new.get(key, MISSING), below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new)):
            yield from differences(*pair, f'{path}.{i}')
    # 1, 1.0 and True are equal, but not the same setting.
    elif type(old) is not type(new) or old != new:
        yield f'{path}: {_short(old)} != {_short(new)}'


def _short(value: Any) -> str:
    if value is MISSING:
        return 'nothing'
    text = repr(value)
    return text if len(text) <= 200 else f'{text[:200]}...'


def freeze() -> None:
    """Store every config as it is now, those of MMRotate where there is one."""
    for stored in STORED.rglob('*.json'):
        if stored not in map(stored_file, LOADABLE):
            stored.unlink()
    for path in LOADABLE:
        if lacks_mmrotate(CONFIGS / path):
            continue
        file = stored_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(resolved(path), indent=1, sort_keys=True) + '\n')


def stored_file(path: str) -> Path:
    return (STORED / path).with_suffix('.json')


@pytest.mark.parametrize('path', LOADABLE)
def test_the_config_is_the_frozen_one(path):
    file = stored_file(path)
    if lacks_mmrotate(CONFIGS / path):
        pytest.skip(NO_MMROTATE)
    if not file.is_file():
        pytest.fail(f'{path} is not frozen: python tests/frozen/freeze.py configs')
    found = list(differences(json.loads(file.read_text()), resolved(path)))
    if found:
        more = f'\n... and {len(found) - MOST} more' if len(found) > MOST else ''
        shown = '\n'.join(found[:MOST])
        pytest.fail(f'{path}, frozen != now:\n{shown}{more}', pytrace=False)


@pytest.mark.parametrize('path', UNLOADABLE)
def test_a_part_is_refused_alone(path):
    with pytest.raises(ValueError, match='put the config of a detector|has no pyramid'):
        load_config(CONFIGS / path)


def test_every_config_is_frozen_and_no_other():
    assert set(UNLOADABLE) <= set(PATHS)
    stored = {path.relative_to(STORED).as_posix() for path in STORED.rglob('*.json')}
    assert stored == {stored_file(path).relative_to(STORED).as_posix() for path in LOADABLE}


def test_differences_are_told_by_their_paths():
    old = dict(a=dict(b=[1, dict(c='x')], d=1), gone=None, same=[1])
    new = dict(a=dict(b=[1, dict(c='y')], d=1.0), same=[1], more=())
    assert list(differences(plain(old), plain(new))) == [
        "a.b.1.c: 'x' != 'y'",
        'a.d: 1 != 1.0',
        'gone: None != nothing',
        'more: nothing != []',
    ]
    assert plain(dict(t=(1, {3, 2}), f=plain, c=Path)) == dict(
        t=[1, [2, 3]], f=f'{__name__}.plain', c='pathlib.Path'
    )
