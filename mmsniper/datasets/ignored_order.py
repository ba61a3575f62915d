"""Invalid objects before ignore regions, so that a model need not look at labels on a GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.structures import DetDataSample

INVALID_FIRST = 'invalid_first'
"""Metainfo of ``ignored_instances`` that were sorted: a :class:`SortedAs`."""


class SortedAs(NamedTuple):
    """How many ignored instances there were when they were sorted.

    Attributes:
        invalid: Invalid objects, labels >= 0, which come first.
        total: All. If there are others by now, some were taken out, and the order tells nothing.
    """

    invalid: int
    total: int


def sort_ignored(sample: DetDataSample) -> None:
    """Sort a sample's ``ignored_instances`` and note it in their metainfo; changed in place.

    The order among invalid objects, and among regions, is kept.
    """
    ignored = sample.get('ignored_instances')
    labels = None if ignored is None else ignored.get('labels')
    if not isinstance(labels, torch.Tensor):
        return
    order = (labels < 0).int().sort(stable=True)
    if not torch.equal(order.indices, torch.arange(len(labels))):
        ignored = sample.ignored_instances = ignored[order.indices]
    counts = SortedAs(int((labels >= 0).sum()), len(labels))
    ignored.set_metainfo({INVALID_FIRST: counts})
