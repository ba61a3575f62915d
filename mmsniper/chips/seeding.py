"""Random numbers that depend on nothing but their key: (seed, epoch, image, ...).

So any rank can make any chip of any epoch, in any order, after any resume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): all bits affect all bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(*key: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each (broadcast) tuple of integers in ``key``.

    Args:
        key (ArrayLike): Integers or arrays of them, e.g. seed, epoch, image index.

    Returns:
        NDArray[np.float64]: Of the broadcast shape.
    """
    with np.errstate(over='ignore'):
        state: NDArray[np.uint64] = np.zeros((), np.uint64)
        for part in key:
            state = _mix(state ^ np.asarray(part, np.int64).view(np.uint64))
    return (state >> np.uint64(11)) * np.float64(2.0**-53)
