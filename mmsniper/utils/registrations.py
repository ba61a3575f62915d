"""Why a config names a type that nobody has registered, or a module that cannot be imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

_UNREGISTERED = re.compile(r'([\w.]+) is not in the ([\w.]+)::([\w. ]+) registry')
# Files of a folder that are searched for a class.
_MAX_FILES = 200


def registration_fault(error: BaseException) -> str:
    """Say what to add to a config whose type or module was not found.

    Args:
        error (BaseException): What mmengine raised in reading a config or building a part of it.

    Returns:
        str: What was found out and what to do; '' for an error of another kind.
    """
    if isinstance(error, KeyError) and (found := _UNREGISTERED.search(str(error))):
        return _unregistered(*found.groups())
    if isinstance(error, ImportError) and 'custom modules' in str(error):
        return _failed_import(error)
    return ''


def _unregistered(name: str, scope: str, kind: str) -> str:
    bare = name.rpartition('.')[2]
    known = dict(_known_types())
    places = known.get(bare, set())
    said = f"type='{name}' is not known as a {kind}"
    others = sorted({other for _, other in places} - {kind})
    scopes = sorted({where for where, what in places if what == kind})
    if scopes:
        return (
            f'{said} in the scope {scope}, but it is in {scopes[0]}: write default_scope = '
            f"'{scopes[0]}' in the config, or type='{scopes[0]}.{bare}'"
        )
    if others:
        return f'{said}, it is a {" and a ".join(others)}: it is in the wrong place of the config'
    of_kind = [one for one, at in known.items() if any(what == kind for _, what in at)]
    lower = {one.lower(): one for one in of_kind}
    if near := get_close_matches(bare.lower(), lower, 3, 0.8):
        return f'{said}. Did you mean {" or ".join(lower[one] for one in near)}?'
    for file in _own_files():
        if re.search(rf'^class {bare}\b', file.read_text('utf-8', 'replace'), re.MULTILINE):
            if file.stem in sys.modules:
                return (
                    f'{said}. {file} has it, and was imported: does '
                    f'@{kind.replace(" ", "_").upper()}S.register_module() stand above the class?'
                )
            found = file.parent in (Path(entry).absolute() for entry in sys.path)
            path = '' if found else f', and set PYTHONPATH={file.parent}'
            return (
                f'{said}. {file} has it: add custom_imports = dict(imports=[{file.stem!r}]) to the '
                f'config{path}'
            )
    return (
        f'{said}. If it is a class of your own: custom_imports = dict(imports=[...]) in the config '
        f'names the module that has it, and PYTHONPATH the folder of that module'
    )


def _known_types() -> dict[str, set[tuple[str, str]]]:
    """Everything that is registered: its scopes and kinds by name."""
    import mmengine.registry  # a tool that plans chips starts without it

    registries = [
        value
        for value in vars(mmengine.registry).values()
        if isinstance(value, mmengine.registry.Registry)
    ]
    types: dict[str, set[tuple[str, str]]] = {}
    for registry in registries:
        registries += registry.children.values()  # while the list is gone through
        for name in registry.module_dict:
            types.setdefault(name, set()).add((registry.scope, registry.name))
    return types


def _own_files() -> Iterator[Path]:
    """Python files where Python looks for a user's modules, and in the current folder."""
    for folder in dict.fromkeys(Path(entry).absolute() for entry in [*sys.path, '']):
        installed = folder.name in ('site-packages', 'dist-packages')
        if folder.is_dir() and not installed and not (folder / 'os.py').is_file():
            yield from sorted(folder.glob('*.py'))[:_MAX_FILES]


def _failed_import(error: ImportError) -> str:
    """Why custom_imports failed: mmengine always says that PYTHONPATH is missing."""
    first: BaseException = error
    while cause := first.__cause__ or first.__context__:
        first = cause
    failed = re.search(r'Failed to import ([\w.]+)', str(error.__cause__))
    module = failed[1] if failed else ''
    said = f'{module} of custom_imports cannot be imported'
    missing = first.name if isinstance(first, ModuleNotFoundError) else None
    if not missing or not (module == missing or module.startswith(f'{missing}.')):
        return f'{said}: {type(first).__name__}: {first}'
    file = Path(*module.split('.')).with_suffix('.py')
    said = f'{said}, there is no {missing} in the folders where Python looks'
    if file.is_file():
        return f'{said}. It is in the current one: set PYTHONPATH={Path.cwd()}'
    return f'{said}: correct its name, or set PYTHONPATH to the folder that it is in'
