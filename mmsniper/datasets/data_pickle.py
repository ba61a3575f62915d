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


class _RefusedError(Exception):
    """The name of what a pickle may not use."""


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
    except Exception as error:  # a pickle that is cut short fails in many ways
        raise ValueError(
            f'{path} is not a whole pickle, it may have been cut short '
            f'({type(error).__name__}: {error}): make it again'
        ) from None


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f'{module}.{name}' not in _ALLOWED:
            raise _RefusedError(f'{module}.{name}')
        return _ALLOWED[f'{module}.{name}']


def _encode(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as the encoding of a text."""
    if encoding != 'latin1':
        raise _RefusedError(f'the codec {encoding}')
    return text.encode(encoding)


def _storage(content: bytes) -> Any:
    """The numbers of a tensor; torch's own function unpickles whatever the content asks for."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


# The functions by which NumPy's arrays and numbers are pickled.
_NUMPY: Mapping[str, Any] = {
    'multiarray._reconstruct': np.zeros(1).__reduce__()[0],
    'multiarray.scalar': np.float64(0).__reduce__()[0],
    'numeric._frombuffer': np.zeros(1).__reduce_ex__(5)[0],
}
_BUILTINS = (bytes, bytearray, dict, frozenset, list, set, tuple)
_ALLOWED: Mapping[str, Callable] = {
    **{f'builtins.{cls.__name__}': cls for cls in _BUILTINS},
    **{f'__builtin__.{cls.__name__}': cls for cls in _BUILTINS},  # Python 2's, in protocol 2
    **{f'numpy.core.{name}': function for name, function in _NUMPY.items()},  # NumPy 1
    **{f'numpy._core.{name}': function for name, function in _NUMPY.items()},  # NumPy 2
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': _encode,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    'torch.storage._load_from_bytes': _storage,
    'mmengine.structures.instance_data.InstanceData': Fields,
}
