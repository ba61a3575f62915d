"""What the stack below us needs to work together: versions, checkpoints, processes without a GPU.

Two families of packages provide ``mmengine``, ``mmcv`` and ``mmdet``: OpenMMLab's own and the
maintained fork (``onedl-*``). The rest of mmsniper does not know which one is installed.

Nothing here imports torch or MMDetection before a function that needs them is called.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import pickle
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mmengine.config import Config

OFFICIAL, ONEDL = 'official', 'onedl'


class Supported(NamedTuple):
    """One distribution that mmsniper runs on, and its versions ``lowest <= version < below``."""

    module: str
    family: str | None
    lowest: str
    below: str
    pinned: str


SUPPORTED: Mapping[str, Supported] = {
    'torch': Supported('torch', None, '2.6', '3', '2.13.0'),
    'mmengine': Supported('mmengine', OFFICIAL, '0.10.5', '1', '0.10.7'),
    'mmcv': Supported('mmcv', OFFICIAL, '2.1.0', '2.2.0', '2.1.0'),
    'mmdet': Supported('mmdet', OFFICIAL, '3.3.0', '3.4', '3.3.0'),
    'onedl-mmengine': Supported('mmengine', ONEDL, '0.10.12', '1', '0.10.12'),
    'onedl-mmcv': Supported('mmcv', ONEDL, '2.3.6', '2.4', '2.3.6'),
    'onedl-mmdetection': Supported('mmdet', ONEDL, '3.5.1', '3.6', '3.5.1'),
}


def check_versions(installed: Mapping[str, str] | None = None) -> None:
    """Check that the packages found beside mmsniper work with it and with one another.

    A package that is not installed is no error: ``mmsniper.chips`` needs none of them.

    Args:
        installed (Mapping[str, str] | None): Version of each distribution of ``SUPPORTED`` that is
            installed, by name. Defaults to None, which asks the running Python.

    Raises:
        ImportError: If a version is out of the supported range, the two families are mixed, or
            mmengine's need of ``pkg_resources`` is not met. It says what was found, what is
            supported and the command that mends it.
    """
    found = _installed_versions() if installed is None else installed
    families = {name: SUPPORTED[name].family for name in found if SUPPORTED[name].family}
    if len(set(families.values())) > 1:
        raise ImportError(_mixed_families_message(families, found))
    for name, version in found.items():
        supported = SUPPORTED[name]
        if not _release(supported.lowest) <= _release(version) < _release(supported.below):
            raise ImportError(
                f'mmsniper needs {name} >= {supported.lowest}, < {supported.below}; found '
                f'{name} {version}. Fix: pip install "{name}=={supported.pinned}"'
                + _rebuild_hint(name)
            )
    if installed is None and 'mmengine' in found and not importlib.util.find_spec('pkg_resources'):
        raise ImportError(
            f'mmengine {found["mmengine"]} imports pkg_resources, which this environment lacks '
            '(setuptools dropped it in version 81). Fix: pip install "setuptools<81"'
        )


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
    release = re.match(r'[\d.]*\d', version).group()
    return tuple(int(number) for number in re.sub(r'(\.0+)+$', '', release).split('.'))


def _rebuild_hint(name: str) -> str:
    if name == 'torch':
        return ' (and reinstall mmcv: its compiled operators fit one version of torch only)'
    return ''


def _mixed_families_message(families: Mapping[str, str | None], found: Mapping[str, str]) -> str:
    listed = ', '.join(f'{name} {found[name]} ({family})' for name, family in families.items())
    # The one to keep is the one of mmdet: that is what a user chose.
    kept = next(
        (family for name, family in families.items() if SUPPORTED[name].module == 'mmdet'), OFFICIAL
    )
    wanted = ' '.join(
        f'"{name}=={item.pinned}"' for name, item in SUPPORTED.items() if item.family == kept
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
    code of a checkpoint's choice.

    onedl-mmengine answers a refusal by loading the file again with ``weights_only=False``, which
    runs whatever code the file holds; that fallback is taken out.

    Importing ``mmsniper.engine`` calls this, and so does a config that imports it.
    """
    import torch
    from mmengine.runner import checkpoint

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
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
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
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}
