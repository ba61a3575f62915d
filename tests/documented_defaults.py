"""Defaults as the docstrings tell them, beside those that the code has."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_ENTRY = re.compile(r'^ *(\w+(?:, \w+)*)(?: \([^\n]*?\))?: ')
_VALUE = re.compile(
    r"Defaults? to\s+('[^']*'|\([^)]*\)|-?\d+(?:\.\d+)?(?: \*\* \d+)?|True|False|None)(?=[.,;:]|$)"
)


def documented_defaults(package: ModuleType) -> list[tuple[str, Any, Any]]:
    """(function and argument, default in its docstring, default in its signature) of a package."""
    found = []
    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
        for name, thing in vars(importlib.import_module(module.name)).items():
            if getattr(thing, '__module__', '') == module.name and not name.startswith('_'):
                found += _of(name, thing)
    return found


def _of(name: str, thing: Any) -> Iterator[tuple[str, Any, Any]]:
    if inspect.isclass(thing):
        for key, part in vars(thing).items():
            part = getattr(part, '__func__', part)
            if inspect.isfunction(part) and not key.startswith('_'):
                yield from _of(f'{name}.{key}', part)
    elif not inspect.isfunction(thing):
        return
    if inspect.isclass(thing) and '__init__' not in vars(thing):  # as those of its base
        return
    parameters = inspect.signature(thing).parameters
    section = re.search(r'^Args:\n((?: +.*\n|\n)+)', f'{inspect.getdoc(thing)}\n', re.M)
    for entry in re.split(r'\n(?=    \w)', section[1] if section else ''):
        names, value = _ENTRY.match(entry), _VALUE.search(entry)
        for argument in names[1].split(', ') if names and value else ():
            if argument not in parameters:
                continue
            told, default = _value(value[1]), parameters[argument].default
            # None where the value is found out when it is called.
            if default is not inspect.Parameter.empty and (default is not None or told is None):
                yield f'{name}({argument})', told, default


def _value(text: str) -> Any:
    base, _, power = text.partition(' ** ')
    return int(base) ** int(power) if power else ast.literal_eval(text)
