"""Python's search for garbage: a third of the time that large annotations take to read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Do not search for reference cycles meanwhile, among millions of dicts that have none.

    What nobody refers to any more is freed as always.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
