"""What a pool of negative chips is mined from, as a digest by which it is recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmsniper.chips.negative_pool import describe
from mmsniper.datasets import ChipAwareSampler
from mmsniper.datasets.proposal_files import ImageProposals
from mmsniper.models.proposals import proposal_head


def origin_digest(
    source: nn.Module | Sequence[ImageProposals],
    sampler: ChipAwareSampler,
    images: NDArray[np.int64],
    options: Mapping[str, Any],
) -> str:
    """What a pool would be mined from: equal digests mean equal pools.

    Args:
        source (nn.Module | Sequence[ImageProposals]): The detector, or the proposals.
        sampler (ChipAwareSampler): Its data set is mined, around the positive chips of its current
            epoch.
        images (NDArray[np.int64]): Indices of the images that are mined.
        options (dict): Whatever else the pool depends on.

    Returns:
        str: 16 hexadecimal digits.
    """
    positives, table = sampler.positives(), sampler.planner.table
    what = json.dumps([describe(sampler.pyramid), options], default=int)
    digest = hashlib.sha256(what.encode())
    chips = positives.image, positives.level, positives.box
    for array in (images, table.width, table.height, *chips):
        digest.update(np.ascontiguousarray(array).data)
    digest.update('\n'.join(sampler.img_paths()).encode())
    for content in _contents(source):
        digest.update(content)
    return digest.hexdigest()[:16]


def _contents(source: nn.Module | Sequence[ImageProposals]) -> Iterator[bytes | memoryview]:
    """All numbers of a detector, and how its RPN makes proposals; or all numbers of proposals."""
    if isinstance(source, nn.Module):
        settings = getattr(proposal_head(source), 'test_cfg', None)
        yield json.dumps(settings, default=str, sort_keys=True).encode()
        # Some buffers, such as the mean colour, are not in the state.
        for name, value in sorted({**dict(source.named_buffers()), **source.state_dict()}.items()):
            flat = value.detach().cpu().contiguous().reshape(-1)
            yield name.encode() + flat.view(torch.uint8).numpy().tobytes()
    else:
        yield np.array([len(boxes) for boxes, _ in source]).data
        for boxes, scores in source:
            yield np.ascontiguousarray(boxes).data
            yield np.ascontiguousarray(scores).data
