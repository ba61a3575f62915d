"""What the stack below us needs to work together: versions, checkpoints, processes without a GPU.

Two families of packages provide ``mmengine``, ``mmcv`` and ``mmdet``: OpenMMLab's own and the
maintained fork (``onedl-*``). The rest of mmsniper does not know which one is installed.

Nothing here imports torch or MMDetection before a function that needs them is called.
"""

from __future__ import annotations

import atexit
import importlib.util
import inspect
import os
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mmengine.config import Config

OFFICIAL, ONEDL = 'official', 'onedl'


class Supported(NamedTuple):
    """One distribution that mmsniper runs on.

    Outside ``min_version <= version < below`` it cannot work. The tested versions reach from
    ``oldest`` to ``newest``; both are among them, and a patch release counts as its minor version.
    """

    family: str | None
    min_version: str
    below: str | None
    oldest: str
    newest: str


# The limits of mmcv and mmengine are those that MMDetection 3.3 checks when it is imported.
SUPPORTED: Mapping[str, Supported] = {
    'torch': Supported(None, '2.0', None, '2.1.2', '2.13.0'),
    'mmengine': Supported(OFFICIAL, '0.7.1', '1', '0.10.2', '0.10.7'),
    'mmcv': Supported(OFFICIAL, '2.0.0', '2.2.0', '2.1.0', '2.1.0'),
    'mmdet': Supported(OFFICIAL, '3.0.0', None, '3.3.0', '3.3.0'),
    'onedl-mmengine': Supported(ONEDL, '0.10.0', None, '0.10.12', '0.10.12'),
    'onedl-mmcv': Supported(ONEDL, '2.0.0', None, '2.3.6', '2.3.6'),
    'onedl-mmdetection': Supported(ONEDL, '3.0.0', None, '3.5.1', '3.5.1'),
}


def check_versions(installed: Mapping[str, str] | None = None) -> None:
    """Check that the packages found beside mmsniper work with it and with one another.

    A package that is not installed is no error: ``mmsniper.chips`` needs none of them. Versions
    that may work but have not been tested give one warning.

    Args:
        installed (Mapping[str, str] | None): Version of each distribution of ``SUPPORTED`` that is
            installed, by name. Defaults to None, which asks the running Python.

    Raises:
        ImportError: If a version cannot work, the two families are mixed, or mmengine's need of
            ``pkg_resources`` is not met. It says what was found, what is needed and the command
            that mends it.
    """
    found = _installed_versions() if installed is None else installed
    families = {name: SUPPORTED[name].family for name in found if SUPPORTED[name].family}
    if len(set(families.values())) > 1:
        raise ImportError(_mixed_families_message(families, found))
    for name, version in found.items():
        if not _can_work(SUPPORTED[name], version):
            raise ImportError(_version_message(name, version))
    if installed is None and 'mmengine' in found and not importlib.util.find_spec('pkg_resources'):
        raise ImportError(
            f'mmengine {found["mmengine"]} imports pkg_resources, which this environment lacks '
            '(setuptools dropped it in version 81). Fix: pip install "setuptools<81"'
        )
    untested = [name for name in found if not _is_tested(SUPPORTED[name], found[name])]
    # Of the processes that torchrun starts on a machine, one warns.
    if untested and os.environ.get('LOCAL_RANK', '0') == '0':
        warnings.warn(_untested_message(untested, found), stacklevel=2)


def _installed_versions() -> dict[str, str]:
    found = {}
    for name in SUPPORTED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _release(version: str) -> tuple[int, ...]:
    """``'2.13.0+cpu'`` -> ``(2, 13)``: enough to compare, so that no package is needed for it."""
    release = re.match(r'[\d.]*\d', version)
    numbers = re.sub(r'(\.0+)+$', '', release[0]) if release else '0'
    return tuple(int(number) for number in numbers.split('.'))


def _can_work(supported: Supported, version: str) -> bool:
    below = supported.below
    return _release(version) >= _release(supported.min_version) and (
        below is None or _release(version) < _release(below)
    )


def _is_tested(supported: Supported, version: str) -> bool:
    oldest, minor, newest = (
        _release(text)[:2] for text in (supported.oldest, version, supported.newest)
    )
    return oldest <= minor <= newest


def _version_message(name: str, version: str) -> str:
    _, min_version, below, _, newest = SUPPORTED[name]
    limits = f'>= {min_version}' + (f', < {below}' if below else '')
    rebuild = ' (and reinstall mmcv: its compiled operators fit one version of torch only)'
    return (
        f'mmsniper needs {name} {limits}; found {name} {version}. '
        f'Fix: pip install "{name}=={newest}"' + (rebuild if name == 'torch' else '')
    )


def _untested_message(names: Sequence[str], found: Mapping[str, str]) -> str:
    listed = []
    for name in names:
        tested = dict.fromkeys((SUPPORTED[name].oldest, SUPPORTED[name].newest))
        listed.append(f'{name} {found[name]} (tested: {" to ".join(tested)})')
    return (
        f'mmsniper is not tested with {", ".join(listed)}. It may well work; if something fails, '
        'try a tested version. To hide this warning: '
        'export PYTHONWARNINGS="ignore:mmsniper is not tested"'
    )


def _mixed_families_message(families: Mapping[str, str | None], found: Mapping[str, str]) -> str:
    listed = ', '.join(f'{name} {found[name]} ({family})' for name, family in families.items())
    # The one to keep is the one of mmdet: that is what a user chose.
    kept = next(
        (families[name] for name in ('mmdet', 'onedl-mmdetection') if name in families), OFFICIAL
    )
    wanted = ' '.join(
        f'"{name}=={item.newest}"' for name, item in SUPPORTED.items() if item.family == kept
    )
    return (
        f'packages of two families are installed, which share the import names mmengine, mmcv and '
        f'mmdet and overwrite each other: {listed}. Fix: pip uninstall -y {" ".join(families)} '
        f'&& pip install {wanted}'
    )


def allow_checkpoint_globals() -> None:
    """Let ``torch.load`` read full mmengine checkpoints with ``weights_only`` left on.

    A checkpoint with a message hub holds mmengine's ``HistoryBuffer``, NumPy arrays and scalars;
    from torch 2.6 on, ``torch.load`` refuses what is not listed. What is listed here cannot run
    code of a checkpoint's choice. An older torch refuses nothing by default: it needs no list, and
    there a checkpoint can run any code.

    onedl-mmengine answers a refusal by loading the file again with ``weights_only=False``, which
    runs whatever code the file holds; that fallback is taken out.

    Importing ``mmsniper.engine`` calls this, and so does a config that imports it.
    """
    import torch
    from mmengine.runner import checkpoint

    # torch 2.4 and 2.5 have this function too, but it takes no pairs.
    if _release(torch.__version__) >= (2, 6):
        torch.serialization.add_safe_globals(_checkpoint_globals())
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load


def _checkpoint_globals() -> list[Any]:
    """What mmengine pickles beside tensors, as ``torch.serialization.add_safe_globals`` takes it.

    A pair gives the name under which a checkpoint asks for the object.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    # These two functions moved between NumPy 1 and 2: a checkpoint of either loads with either.
    reconstruct: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    pairs = [
        (function, f'numpy.{core}.multiarray.{function.__name__}')
        for core in ('core', '_core')
        for function in (reconstruct, scalar)
    ]
    numbers = {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + '?efd'}
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        *numbers,
        *pairs,
        (_history_buffer_method, 'builtins.getattr'),
    ]


def _history_buffer_method(owner: object, name: str) -> Callable[..., Any]:
    """Stand in for the ``getattr`` by which a pickle names the methods of ``HistoryBuffer``.

    The real one would hand out any attribute of any listed object.
    """
    from mmengine.logging import HistoryBuffer

    method = vars(HistoryBuffer).get(name)
    if owner is not HistoryBuffer or name.startswith('_') or not inspect.isfunction(method):
        raise pickle.UnpicklingError(
            f'the checkpoint asks for the attribute {name!r} of {owner!r}; of all attributes only '
            'the methods of mmengine.logging.HistoryBuffer are allowed'
        )
    return method


def use_gloo_without_gpu(cfg: Config) -> None:
    """Let a Runner of several processes work where there is no accelerator.

    mmengine gives each process a GPU whatever the backend, twice: before it starts torch's process
    group, unless that exists, and in ``DistributedDataParallel``, unless the config says
    otherwise. So this starts the group, with gloo, and says so in the config. Call it before the
    Runner is built. Does nothing for the launcher ``'none'`` or with an accelerator.

    Args:
        cfg (Config): The Runner's config; ``model_wrapper_cfg`` is changed in place.

    Raises:
        RuntimeError: If without an accelerator the launcher is another than ``'pytorch'``
            (torchrun), or the processes were not started by torchrun.
    """
    import torch
    from mmengine.device import get_device

    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise RuntimeError(
            f'launcher {launcher!r} needs a GPU, and torch {torch.__version__} sees none. On CPUs '
            "start the processes with torchrun and use the launcher 'pytorch': "
            'tools/dist_train.sh CONFIG N'
        )
    if not os.environ.keys() >= {'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'}:
        raise RuntimeError(
            "launcher 'pytorch' needs the environment that torchrun sets (RANK, WORLD_SIZE, "
            'MASTER_ADDR, MASTER_PORT). Start with tools/dist_train.sh CONFIG N'
        )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
        # A process that ends with gloo's threads running may be aborted by them.
        atexit.register(_end_process_group)
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}


def _end_process_group() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
