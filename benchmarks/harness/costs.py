"""What a piece of work costs: time, and the memory that it takes beyond what there is."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar('T')


@dataclass(frozen=True)
class Cost:
    """What a piece of work has cost.

    Attributes:
        seconds: By the clock, when the device has done all.
        cpu_seconds: Of processor time, of all threads.
        peak_bytes: The most memory beyond what the process had; None if it cannot be told.
        device_bytes: The most memory of the GPU, weights included; None without one.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    device_bytes: int | None


def cost_of(work: Callable[[], T], device: str) -> tuple[T, Cost]:
    """Do some work and measure it.

    Memory is the process's largest resident set (Linux only), counted from what is resident when
    all that is free has been given back.

    Args:
        work (Callable): The work.
        device (str): Such as ``'cuda:0'``, which is waited for.
    """
    on_gpu = device.startswith('cuda')
    gc.collect()
    before = _begin_peak()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    if on_gpu:
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = None if before is None else memory('VmHWM') - before
    return result, Cost(seconds, cpu, peak, torch.cuda.max_memory_allocated() if on_gpu else None)


def memory(name: str) -> int:
    """This process's memory in bytes: VmRSS what it has, VmHWM the most that it has had."""
    found = re.search(rf'^{name}:\s*(\d+) kB', Path('/proc/self/status').read_text('utf-8'), re.M)
    return int(found[1]) * 1024


def _begin_peak() -> int | None:
    """Give back what is free and forget the peak so far; returns what is resident."""
    if not sys.platform.startswith('linux'):
        return None
    with suppress(OSError, AttributeError):  # what another C library keeps counts as resident
        ctypes.CDLL('libc.so.6').malloc_trim(0)
    try:
        Path('/proc/self/clear_refs').write_text('5', 'utf-8')
    except OSError:
        return None
    return memory('VmRSS')
