"""The work of mining in parts: how it is cut, shared among ranks, and kept to go on later."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.dist import all_gather_object, get_dist_info
from numpy.typing import NDArray

from mmsniper.chips import NegativeChipPool
from mmsniper.chips.coarse_to_fine import CoarseToFineWindows
from mmsniper.chips.windows import LevelWindows, Window, window_batches
from mmsniper.datasets import ChipAwareSampler

# An interruption costs a part at most: a 64th of the work, and of a large data set no more than 192
# windows, while each part still has windows for several batches. Of millions of images it is a
# 2000th: each part is a file.
_PARTS = 64
_PART_WINDOWS = 192
_MOST_PARTS = 2000
# A batch may have this many times the pixels of its windows: images of a data set differ by a few
# pixels, and would else be seen one by one.
_MAX_PADDING = 1.1


def mined_images(sampler: ChipAwareSampler, empty_images: bool = True) -> NDArray[np.int64]:
    """The images of a sampler's data set that are mined, each file once.

    Args:
        sampler (ChipAwareSampler): The sampler.
        empty_images (bool): Also images without objects. Defaults to True.

    Returns:
        NDArray[np.int64]: Indices in the data set, ascending.
    """
    first: dict[str, int] = {}
    for image, path in enumerate(sampler.img_paths()):
        first.setdefault(path, image)
    images = np.array(list(first.values()), np.int64)
    offset = sampler.planner.table.offset
    return images if empty_images else images[offset[images + 1] > offset[images]]


@dataclass
class Found:
    """The proposals of an image, as its windows come: xyxy in original pixels, and scores.

    Attributes:
        boxes, scores: All of each window, shapes (n, 4) and (n,).
        kept: Those of which negative chips are planned, shape (m, 4).
    """

    boxes: list[NDArray[np.float64]] = field(default_factory=lambda: [np.zeros((0, 4))])
    scores: list[NDArray[np.float64]] = field(default_factory=lambda: [np.zeros(0)])
    kept: list[NDArray[np.float64]] = field(default_factory=lambda: [np.zeros((0, 4))])

    def add(
        self, boxes: NDArray[np.float64], scores: NDArray[np.float64], kept: NDArray[np.float64]
    ) -> None:
        """Take over what was found in a window."""
        self.boxes.append(boxes)
        self.scores.append(scores)
        self.kept.append(kept)

    def joined(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Boxes (n, 4) and scores (n,) of all windows so far."""
        return np.concatenate(self.boxes), np.concatenate(self.scores)


class Parts:
    """The windows of the images that are mined, in parts of whole images.

    Windows are made when they are needed: those of a million images would take gigabytes.

    Args:
        windows (LevelWindows | CoarseToFineWindows): The windows of the images that are mined,
            which are ascending.
        paths (Sequence[str]): Files of these images.
        batch_pixels (int): Pixels of a batch, at most.
    """

    def __init__(
        self, windows: LevelWindows | CoarseToFineWindows, paths: Sequence[str], batch_pixels: int
    ) -> None:
        self.windows = windows
        self.batch_pixels = batch_pixels
        self._paths = list(paths)
        self._starts = part_starts(self.windows.count.sum(axis=1))

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels of the windows of each part, at their levels."""
        return np.add.reduceat(self.windows.pixels, np.array(self._starts, np.int64))

    def images(self, k: int) -> NDArray[np.int64]:
        """Indices of the images of a part."""
        return self.windows.image[self._slice(k)]

    def img_paths(self, k: int) -> list[str]:
        """The files of a part."""
        return self._paths[self._slice(k)]

    def rounds(self, k: int, found: Mapping[int, Found]) -> Iterator[list[list[Window]]]:
        """The windows of a part, in batches of about the same shape.

        Whole levels are one round. Coarse to fine each level is one, of windows that depend on what
        was found in the rounds before.

        Args:
            k (int): The part.
            found (Mapping[int, Found]): Proposals of each of its images.
        """
        windows, positions = self.windows, range(len(self.windows))[self._slice(k)]
        if isinstance(windows, LevelWindows):
            yield self._batches([window for i in positions for window in windows.of_image(i)])
            return
        for level in reversed(range(windows.pyramid.num_levels)):
            yield self._batches(
                [
                    window
                    for i in positions
                    for window in windows.of_level(i, level, *found[int(windows.image[i])].joined())
                ]
            )

    def _batches(self, windows: Sequence[Window]) -> list[list[Window]]:
        return list(window_batches(windows, self.batch_pixels, max_padding=_MAX_PADDING))

    def _slice(self, k: int) -> slice:
        return slice(self._starts[k], [*self._starts, None][k + 1])


def part_starts(window_counts: NDArray[np.int64]) -> list[int]:
    """Position of the first image of each part, given the number of windows of each image.

    It depends on nothing else, so that any number of ranks has the same parts.
    """
    total = int(window_counts.sum())
    few = max(_PART_WINDOWS, math.ceil(total / _MOST_PARTS))
    limit = min(math.ceil(total / _PARTS), few)
    starts: list[int] = []
    filled = 0
    for i, count in enumerate(window_counts.tolist()):
        if not starts or filled + count > limit:
            starts.append(i)
            filled = 0
        filled += count
    return starts


def part_file(folder: Path, k: int) -> Path:
    """The file that keeps the pool of a part."""
    return folder / f'{k:05d}.npz'


def stored_pool(path: Path, origin: str) -> NegativeChipPool | None:
    """The pool in a file, None if there is none or it was mined from something else."""
    try:
        pool = NegativeChipPool.from_file(path)
    except (FileNotFoundError, ValueError):
        return None
    return pool if pool.origin == origin else None


def share_parts(
    parts: Parts, folder: Path | None, origin: str
) -> tuple[list[int], dict[int, NegativeChipPool]]:
    """Share the parts that are not mined yet among the ranks; all of them must call it.

    Args:
        parts (Parts): The parts.
        folder (Path | None): Where this rank finds the pools of parts that were mined before.
        origin (str): What pools must have been mined from to be used.

    Returns:
        tuple[list[int], dict[int, NegativeChipPool]]: The parts that this rank is to mine, and the
        pools of those that it has from before. A pool that several ranks find is the first one's.
    """
    stored: dict[int, NegativeChipPool] = {}
    if folder is not None:
        for k in range(len(parts)):
            pool = stored_pool(part_file(folder, k), origin)
            # Another version may have cut the work into other parts.
            if pool is not None and pool.img_path.tolist() == parts.img_paths(k):
                stored[k] = pool
    rank, ranks = get_dist_info()
    found = all_gather_object(set(stored))
    missing = sorted(set(range(len(parts))).difference(*found))
    others = set().union(*found[:rank])
    return missing[rank::ranks], {k: pool for k, pool in stored.items() if k not in others}


def check_ranks_agree(origin: str) -> None:
    """Check that all ranks mine from the same; a mixed pool could not be mined again.

    Raises:
        RuntimeError: If another rank's origin is not this rank's.
    """
    origins = all_gather_object(origin)
    if len(set(origins)) > 1:
        raise RuntimeError(
            f'the ranks would mine from different things ({", ".join(origins)}): do all of them '
            f'have the same weights, annotations and options? Buffers such as those of BatchNorm '
            f'differ in distributed training: call share_buffers(model) before'
        )
