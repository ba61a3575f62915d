"""What a training step does: its phases, its waits for the device, and where its host time goes."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

# Random weights must neither diverge nor learn: NaN would change what there is to compute.
HARMLESS_LR = 1e-6
OURS = 'mmsniper'
_PACKAGES = (OURS, 'mmdet', 'mmcv', 'mmengine')
# What these do, they do for whoever called them.
_TRANSPARENT = ('mmengine/structures/', 'mmengine/logging/', 'mmdet/structures/')

_ITEM, _MASK, _UPLOAD, _DOWNLOAD = 'one number', 'boolean index', 'host to device', 'device to host'
_OF_DATA = {'nonzero', 'masked_select', '_unique', '_unique2', 'unique_dim', 'unique_consecutive'}
_DOWNLOADS = (Tensor.cpu, Tensor.numpy, Tensor.tolist)


def now(device: str) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def train_step(
    model: nn.Module,
    optim_wrapper: OptimWrapper,
    batch: Mapping[str, Any],
    done: Callable[[str], None] = lambda phase: None,
) -> float | Tensor:
    """A training step as mmengine takes it; ``done`` is called with the name of each phase.

    Returns:
        Tensor: The loss.
    """
    with optim_wrapper.optim_context(model):
        data = model.data_preprocessor(batch, True)
        done('preprocessing')
        losses = model(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    done('forward')
    optim_wrapper.backward(optim_wrapper.scale_loss(loss))
    done('backward')
    optim_wrapper.step()
    optim_wrapper.zero_grad()
    done('optimizer')
    return loss


def source(code: CodeType, line: int | None = None) -> str | None:
    """``mmdet/models/x.py:12 name`` for code of MMDetection and friends, None for other code."""
    path = code.co_filename.replace('\\', '/')
    for package in _PACKAGES:
        start = path.rfind(f'/{package}/') + 1
        if start and not path.startswith(_TRANSPARENT, start):
            return f'{path[start:]}:{line or code.co_firstlineno} {code.co_name}'
    return None


class Synchronisations:
    """Counts where a step waits for the device, by the line that makes it wait.

    On a GPU PyTorch tells each wait. On a CPU there is none: what would be one is counted, but for
    those inside compiled operators (``nms``) and copies by ``.to(device)``.

    Args:
        device (str): ``'cuda'`` or ``'cpu'``.

    Attributes:
        counts (Counter): By line in MMDetection, mmcv, mmengine or mmsniper, and kind.
        via (dict[tuple[str, str], set[str]]): The nearest lines of ours that led there.
        ops (Counter): Tensor operations by line, those of the backward pass only on a CPU.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.counts: Counter[tuple[str, str]] = Counter()
        self.via: dict[tuple[str, str], set[str]] = {}
        self.ops: Counter[str] = Counter()

    def add(self, kind: str) -> None:
        """Count one, of whoever is calling."""
        found, ours = _callers()
        self.counts[found, kind] += 1
        if ours and ours != found:
            self.via.setdefault((found, kind), set()).add(ours)

    @contextmanager
    def counting(self) -> Iterator[Synchronisations]:
        """Count waits inside."""
        if self.device == 'cuda':
            with self._told():
                yield self
        else:
            with _Calls(self), _Operations(self, waits=True):
                yield self

    @contextmanager
    def counting_operations(self) -> Iterator[Synchronisations]:
        """Count tensor operations inside, which takes time."""
        with _Operations(self, waits=False):
            yield self

    @contextmanager
    def _told(self) -> Iterator[None]:
        def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if 'synchronizing CUDA operation' in str(message):
                self.add('wait')

        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter('always')
            warnings.showwarning = note
            torch.cuda.set_sync_debug_mode('warn')
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(mode)

    def table(self) -> list[dict[str, Any]]:
        """The counts, most first."""
        return [
            dict(source=found, kind=kind, count=count, via=sorted(self.via.get((found, kind), ())))
            for (found, kind), count in self.counts.most_common()
        ]


def _callers() -> tuple[str, str | None]:
    """The line of MMDetection or ours that is running, and the nearest of ours."""
    frame: FrameType | None = sys._getframe(2)
    found = ours = None
    while frame is not None and ours is None:
        here = source(frame.f_code, frame.f_lineno)
        found = found or here
        ours = here if here and here.startswith(f'{OURS}/') else None
        frame = frame.f_back
    return found or 'elsewhere', ours


class _Operations(TorchDispatchMode):
    """Counts operators, or those whose result the host has to know."""

    def __init__(self, found: Synchronisations, waits: bool) -> None:
        super().__init__()
        self.found, self.waits = found, waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.__name__.split('.')[0]
        if not self.waits:
            self.found.ops[_callers()[0]] += 1
        elif name == '_local_scalar_dense':
            self.found.add(_ITEM)
        elif name in _OF_DATA:
            self.found.add(name)
        elif name in ('index', 'index_put', 'index_put_', '_index_put_impl_'):
            masked = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            # One value for all that is masked is filled in without counting.
            if masked and (name == 'index' or args[2].numel() != 1):
                self.found.add(_MASK)
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Counts copies from and to Python."""

    def __init__(self, found: Synchronisations) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        made = func in (torch.tensor, torch.as_tensor) and (kwargs or {}).get('device') is not None
        if made or func == Tensor.new_tensor:
            self.found.add(_UPLOAD)
        elif func in _DOWNLOADS:
            self.found.add(_DOWNLOAD)
        return func(*args, **(kwargs or {}))


class HostTime:
    """Seconds of the host, by the function of MMDetection, mmcv or ours that spends them.

    What libraries below them do, PyTorch's operators and waits among it, counts as theirs. Python's
    profiling makes short functions look longer than they are.

    Attributes:
        seconds (Counter): By function, ``'elsewhere'`` for what none of them has called.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._names: dict[CodeType, str | None] = {}
        self._stack = ['elsewhere']
        self._since = 0.0

    @contextmanager
    def measuring(self) -> Iterator[HostTime]:
        """Measure what happens inside."""
        self._since = time.perf_counter()
        sys.setprofile(self._event)
        try:
            yield self
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ('call', 'return'):
            return
        self.seconds[self._stack[-1]] += time.perf_counter() - self._since
        if event == 'call':
            code = frame.f_code
            if code not in self._names:
                self._names[code] = source(code)
            self._stack.append(self._names[code] or self._stack[-1])
        elif len(self._stack) > 1:
            self._stack.pop()
        self._since = time.perf_counter()

    def by_file(self) -> Counter[str]:
        """The seconds of each file."""
        files: Counter[str] = Counter()
        for name, seconds in self.seconds.items():
            files[name.split(':')[0]] += seconds
        return files

    def share(self, package: str = OURS) -> float:
        """The share of all seconds that functions of a package spend."""
        own = sum(s for name, s in self.seconds.items() if name.startswith(f'{package}/'))
        return own / max(sum(self.seconds.values()), 1e-12)


def device_activity(step: Callable[[], Any]) -> dict[str, float]:
    """What a GPU is asked for in a step: launches, waits, and the seconds that it is busy."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    launches = waits = downloads = 0
    busy = 0.0
    for event in profiler.profiler.kineto_results.events():
        name = event.name()
        launches += name.startswith(('cudaLaunchKernel', 'cuLaunchKernel'))
        waits += name in ('cudaStreamSynchronize', 'cudaEventSynchronize')
        downloads += name.startswith('Memcpy DtoH')
        if event.device_type() == torch.autograd.DeviceType.CUDA:
            busy += event.duration_ns() / 1e9
    return dict(launches=launches, waits=waits, downloads=downloads, busy_seconds=busy)
