"""The order in which an epoch's chips come."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class EpochOrder(NamedTuple):
    """The chips of one rank in an epoch.

    Attributes:
        chip: Index of each chip in the plan, shape (n,).
        left: How many chips of its image are still to come in the same lane, shape (n,).
    """

    chip: NDArray[np.integer]
    left: NDArray[np.integer]


def any_order(chips: int, key: tuple[int, int] | None, rank: int, world_size: int) -> EpochOrder:
    """All chips shuffled, of which a rank takes every ``world_size``-th.

    Args:
        chips (int): How many there are.
        key (tuple[int, int] | None): Seed and epoch; None does not shuffle.
        rank (int): Whose chips.
        world_size (int): Number of ranks. Each gets equally many: some chips come again for it.
    """
    order: NDArray[np.int32] = np.arange(chips, dtype=np.int32)
    if key is not None:
        np.random.default_rng(key).shuffle(order)
    order = np.resize(order, -(-chips // world_size) * world_size)[rank::world_size].copy()
    return EpochOrder(order, np.zeros_like(order))


def image_by_image(
    image: NDArray[np.integer], lanes: int, key: tuple[int, int] | None, rank: int, world_size: int
) -> EpochOrder:
    """The chips of an image soon after each other, in the same worker, in different batches.

    There are as many lanes as the data loader has places: batch size times workers. Each lane works
    through images one after the other, and the lanes take turns, chip by chip. So place j of
    every batch of worker w is one lane: PyTorch's loader gives every ``workers``-th batch to the
    same worker. A batch shows as many images as it has chips, unless an image has more chips than
    a lane is long.

    Args:
        image (NDArray[np.integer]): Image of each chip of the plan, shape (chips,).
        lanes (int): Their number, at least 1.
        key (tuple[int, int] | None): Seed and epoch, by which images are shuffled, and the chips
            of each; None keeps their order.
        rank (int): Whose chips. Ranks have different images, but for those that a border divides.
        world_size (int): Number of ranks. Each gets equally many: some chips come again for it.
    """
    images, image = np.unique(image, return_inverse=True)
    place, within = np.arange(len(images)), np.arange(len(image), dtype=np.int32)
    if key is not None:
        rng = np.random.default_rng(key)
        rng.shuffle(place)
        rng.shuffle(within)
    image = image.astype(np.int32)
    order = np.argsort(place[image] * len(within) + within)
    share = -(-len(order) // world_size)
    order = np.resize(order, share * world_size)[rank * share :][:share]
    # The first lanes are one longer where the lengths differ, so that the last turn is theirs.
    lengths = share // lanes + (np.arange(lanes) < share % lanes)
    ends = np.cumsum(lengths)
    turn, lane = np.divmod(np.arange(share), lanes)
    at = ends[lane] - lengths[lane] + turn
    return EpochOrder(order[at], _left(image[order], ends)[at])


def _left(image: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal entries follow each, up to the next end."""
    last = np.append(image[1:] != image[:-1], [True] * (len(image) > 0))
    last[ends[ends > 0] - 1] = True
    stops = np.flatnonzero(last)
    here = np.arange(len(image))
    return stops[np.searchsorted(stops, here)] - here
