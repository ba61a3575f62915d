"""Read pickles that hold data, and no others: a pickle can make the reader run any code."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


class Fields:
    """Stands for mmengine's ``InstanceData``: an object with attributes."""


def load_data(path: str | os.PathLike) -> Any:
    """Read a pickle of NumPy arrays and numbers, torch tensors, mmengine's ``InstanceData`` and
    Python's own containers.

    Args:
        path (str | os.PathLike): The file.

    Returns:
        Any: Its content; tensors are on the CPU, and an ``InstanceData`` is a :class:`Fields`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it asks for any other class or function, which it names, or is no whole
            pickle. Nothing that the file asks for has been called then.
    """
    try:
        with open(path, 'rb') as file:
            return _DataUnpickler(file).load()
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no file {path}') from None
    except _RefusedError as error:
        raise ValueError(
            f'{path} is refused: it asks for {error}, and a pickle can run any code that way. '
            f'Only numbers, arrays, tensors and InstanceData are read: write the data as these'
        ) from None
    # A pickle that is cut short or is no pickle fails in any of these ways, and more.
    except Exception as error:
        raise ValueError(
            f'{path} is not a whole pickle, it may have been cut short '
            f'({type(error).__name__}: {error}): make it again'
        ) from None


class _RefusedError(Exception):
    """The name of what a pickle may not use."""


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f'{module}.{name}']
        except KeyError:
            raise _RefusedError(f'{module}.{name}') from None


def _encode(text: str, encoding: str) -> bytes:
    """By which protocol 2 writes bytes."""
    if encoding != 'latin1':
        raise _RefusedError(f'the codec {encoding}')
    return text.encode(encoding)


def _storage(content: bytes) -> Any:
    """The numbers of a tensor; torch's own function unpickles whatever the content asks for."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


def _allowed() -> Mapping[str, type | Callable]:
    builtins = (bytes, bytearray, dict, frozenset, list, set, tuple)
    allowed: dict[str, type | Callable] = {
        f'{module}.{cls.__name__}': cls
        for module in ('builtins', '__builtin__')
        for cls in builtins
    }
    # NumPy 1 and 2 have these functions in different modules; a pickle of either is read by either.
    array, scalar = np.zeros(1), np.float64(0)
    functions = {
        'multiarray._reconstruct': array.__reduce__()[0],
        'multiarray.scalar': scalar.__reduce__()[0],
        'numeric._frombuffer': array.__reduce_ex__(5)[0],
    }
    for core in ('core', '_core'):
        allowed.update({f'numpy.{core}.{name}': f for name, f in functions.items()})
    return {
        **allowed,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
        'collections.OrderedDict': OrderedDict,
        '_codecs.encode': _encode,
        'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
        'torch.storage._load_from_bytes': _storage,
        'mmengine.structures.instance_data.InstanceData': Fields,
    }


_ALLOWED = _allowed()
