"""Run the RPN over the training images and turn what fools it into a pool of negative chips."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmdet.datasets.transforms import FilterAnnotations, PackDetInputs
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import all_gather_object, broadcast, get_dist_info, is_main_process
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmsniper.chips import (
    MIN_PROPOSALS,
    NEGATIVE,
    AnnotationTable,
    ChipPlan,
    NegativeChipPool,
    ScalePyramid,
    plan_negative_chips,
)
from mmsniper.chips.negative_pool import describe, shown_images
from mmsniper.chips.pyramid import TOLERANCE
from mmsniper.chips.rectangles import expand
from mmsniper.chips.windows import LevelWindows
from mmsniper.datasets import Chip, ChipAwareSampler, ChipDataset, ChipIndex, ChipSampler
from mmsniper.datasets.proposal_files import ImageProposals
from mmsniper.datasets.wrappers import inner_datasets
from mmsniper.models.proposals import evaluating, proposal_head, propose

# What is mined is kept part by part, so that an interrupted mining goes on where it was. A part is
# a 64th of the work, or, of a large data set, this many windows.
_PART_WINDOWS = 192
# A batch may be larger than its windows together by this factor.
_MAX_PADDING = 1.1
# Images whose proposals are planned at a time: memory stays small, and progress shows.
_PART_IMAGES = 500
_META_KEYS = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'homography_matrix', 'chip')


@dataclass(frozen=True)
class Window:
    """A piece of an image that the network sees at once.

    Attributes:
        image: Index of the image in the data set.
        ordinal: Position of the image among those that are mined.
        chip: Level and window.
        core: Of the windows of a level this one answers for the proposals with their centre here,
            xyxy, original pixels.
        shape: Height and width in scaled pixels.
    """

    image: int
    ordinal: int
    chip: Chip
    core: tuple[float, float, float, float]
    shape: tuple[int, int]

    @property
    def pixels(self) -> int:
        """Scaled pixels."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class NegativeChipMiner:
    """Mines negative chips with a detector's RPN (SNIPER section 3.3).

    Every image is seen whole at the scale of every level; one that is larger than ``window_size``
    there is seen in overlapping windows. Kept are each window's best proposals among those whose
    size is in the level's valid range. What is found does not depend on the number of processes, to
    the last bit where each has as many threads (on CPUs torch rounds otherwise with others).

    Args:
        num_proposals (int): Proposals that are kept of a window. Defaults to 300, as in the
            authors' release.
        score_thr (float): Least score of a proposal. Defaults to 0.
        min_proposals, max_per_image: See :func:`~mmsniper.chips.plan_negative_chips`.
        empty_images (bool): Mine in images without objects, too. They must be in the data set
            (``filter_cfg=dict(filter_empty_gt=False)``). Defaults to True.
        window_size (int): Largest side of what the network sees at once, scaled pixels; more than
            the chip size. Defaults to 2048.
        batch_pixels (int | None): Scaled pixels of a batch, at most (but at least one window).
            Defaults to None, those of a training batch.
        num_workers (int | None): Processes that load images. Defaults to None, those of the
            training.

    Raises:
        ValueError: If a number is out of its range.
    """

    num_proposals: int = 300
    score_thr: float = 0.0
    min_proposals: int | Sequence[int] = MIN_PROPOSALS
    max_per_image: int | None = None
    empty_images: bool = True
    window_size: int = 2048
    batch_pixels: int | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ('num_proposals', 1),
            ('window_size', 1),
            ('batch_pixels', 1),
            ('num_workers', 0),
        ):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if value is not None and not (whole and value >= least):
                raise ValueError(
                    f'{name} must be a whole number of at least {least}, got {value!r}'
                )
        # Raises for what it does not like.
        one = ScalePyramid(1, ({'resize': {'factor': 1.0}, 'valid_range': (0, None)},))
        plan_negative_chips(
            AnnotationTable.from_images([]),
            ChipPlan.empty(),
            one,
            self.min_proposals,
            self.max_per_image,
        )

    def mine(
        self,
        model: nn.Module,
        sampler: ChipAwareSampler,
        *,
        batch_pixels: int,
        num_workers: int = 0,
        parts_dir: Path | None = None,
    ) -> NegativeChipPool:
        """Mine the images of a sampler's data set.

        With several ranks all of them must call it; each mines its share and all get the pool.

        Args:
            model (nn.Module): Detector with an RPN; the same weights on all ranks.
            sampler (ChipAwareSampler): Its data set is mined, around the positive chips of its
                current epoch.
            batch_pixels, num_workers (int): What counts where this miner's own are None.
            parts_dir (Path | None): Where parts are kept until all is done, for a mining that is
                interrupted to go on. Defaults to None, they are not kept.

        Raises:
            ValueError: If the detector has no RPN, or ``window_size`` is too small.
            RuntimeError: If an image cannot be read; the message names it. If the ranks' weights
                or positive chips differ.
        """
        check_minable(model, sampler, self)
        origin = self.origin(model, sampler)
        _check_ranks_agree(origin)
        parts = _Parts.of(self, sampler, self.batch_pixels or batch_pixels)
        mine, found = _share(parts, parts_dir, origin)
        _announce(parts, found)
        loader = DataLoader(
            _window_dataset(sampler.dataset, sampler.pyramid),
            batch_sampler=_ChipIndices(parts, mine),
            num_workers=num_workers if self.num_workers is None else self.num_workers,
            collate_fn=pseudo_collate,
            # Its own, so that mining leaves torch's random numbers alone.
            generator=torch.Generator(),
        )
        planner = _PartPlanner(
            self, sampler, origin, sampler.positives(), shown_images(len(parts.image))
        )
        bar = tqdm(
            total=int(parts.pixels[mine].sum()),
            unit='px',
            unit_scale=True,
            desc='mining negative chips',
            disable=not is_main_process(),
            mininterval=1 if sys.stderr.isatty() else 30,
        )
        with bar, evaluating(model), _same_kernels():
            data = iter(loader)
            for k in mine:
                proposals = []
                for batch in parts.batches(k):
                    boxes = self._propose(model, next(data), batch, sampler.pyramid)
                    proposals += zip(batch, boxes)
                    bar.update(sum(w.pixels for w in batch))
                found[k] = planner.plan_windows(proposals)
                if parts_dir is not None:
                    found[k].save(_part_file(parts_dir, k))
        everyone = [item for share in all_gather_object(found) for item in share.items()]
        pools = [pool for _, pool in sorted(everyone, key=lambda x: x[0])]
        return NegativeChipPool.joined([*pools, *planner.rest()])

    def plan(
        self, sampler: ChipAwareSampler, proposals: Sequence[ImageProposals]
    ) -> NegativeChipPool:
        """Plan a pool from proposals that are at hand, whatever detector has made them.

        Of this miner's options ``num_proposals`` and ``score_thr`` then count for an image, and
        those of the network's input do not count.

        Args:
            sampler (ChipAwareSampler): The pool is for its data set, around the positive chips of
                its current epoch.
            proposals (Sequence[ImageProposals]): Those of every image, in the order of the data
                set's indices.

        Raises:
            ValueError: If ``score_thr`` leaves none of the proposals.
        """
        images = self._images(sampler)
        boxes = [proposals[i].best(self.num_proposals, self.score_thr).boxes for i in images]
        if not any(map(len, boxes)):
            raise ValueError(
                f'no proposal of the {len(images)} images has a score of at least score_thr, '
                f'{self.score_thr}: lower it'
            )
        planner = _PartPlanner(
            self,
            sampler,
            self.origin(proposals, sampler),
            sampler.positives(),
            shown_images(len(images)),
        )
        bar = tqdm(
            total=len(images),
            unit=' images',
            desc='planning negative chips',
            delay=3,
            disable=not is_main_process(),
        )
        pools = []
        with bar:
            for some in np.array_split(np.arange(len(images)), -(-len(images) // _PART_IMAGES)):
                pools.append(
                    planner.plan(np.array(images)[some], some, [boxes[k] for k in some.tolist()])
                )
                bar.update(len(some))
        return NegativeChipPool.joined([*pools, *planner.rest()])

    def origin(
        self, source: nn.Module | Sequence[ImageProposals], sampler: ChipAwareSampler
    ) -> str:
        """What a pool would be mined from: equal names mean equal pools.

        Args:
            source (nn.Module | Sequence[ImageProposals]): The detector, or the proposals, whichever
                there is.
            sampler (ChipAwareSampler): As for :meth:`mine`.
        """
        positives, table = sampler.positives(), sampler.planner.table
        options = {k: v for k, v in asdict(self).items() if k != 'num_workers'}
        what = json.dumps([describe(sampler.pyramid), options], default=int)
        digest = hashlib.sha256(what.encode())
        images = np.array(self._images(sampler), np.int64)
        for array in (
            images,
            table.width,
            table.height,
            positives.image,
            positives.level,
            positives.box,
        ):
            digest.update(np.ascontiguousarray(array))
        digest.update('\n'.join(sampler.img_paths()).encode())
        for content in _contents(source):
            digest.update(content)
        return digest.hexdigest()[:16]

    def pixels(self, sampler: ChipAwareSampler) -> int:
        """Scaled pixels that :meth:`mine` shows the network."""
        return int(_Parts.of(self, sampler, batch_pixels=1).pixels.sum())

    def _images(self, sampler: ChipAwareSampler) -> list[int]:
        """The images that are mined, each file once."""
        first: dict[str, int] = {}
        for image, path in enumerate(sampler.img_paths()):
            first.setdefault(path, image)
        offset = sampler.planner.table.offset
        return [i for i in first.values() if self.empty_images or offset[i + 1] > offset[i]]

    def _propose(
        self, model: nn.Module, data: Any, batch: Sequence[Window], pyramid: ScalePyramid
    ) -> list[NDArray[np.float64]]:
        """Proposals in each window of a batch, xyxy in original pixels."""
        results = propose(model, data)
        return [
            self._select(result, sample.homography_matrix, window, pyramid)
            for result, sample, window in zip(results, data['data_samples'], batch)
        ]

    def _select(
        self, result: InstanceData, to_chip: NDArray, window: Window, pyramid: ScalePyramid
    ) -> NDArray[np.float64]:
        boxes = result.bboxes.detach().double().cpu().numpy().reshape(-1, 4)
        scores = result.scores.detach().cpu().numpy()
        boxes = (boxes - np.tile(to_chip[:2, 2], 2)) / np.tile(np.diag(to_chip)[:2], 2)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        x1, y1, x2, y2 = window.core
        sizes = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))
        keep = (
            (scores >= self.score_thr)
            & pyramid.in_range(sizes, window.chip.level)
            & (centre >= (x1, y1)).all(axis=1)
            & (centre < (x2, y2)).all(axis=1)
        )
        best = np.argsort(-scores[keep], kind='stable')[: self.num_proposals]
        return boxes[keep][best]


@dataclass(frozen=True)
class _PartPlanner:
    """Plans the negative chips of the images of a part."""

    miner: NegativeChipMiner
    sampler: ChipAwareSampler
    origin: str
    positives: ChipPlan
    shown: NDArray[np.bool_]

    def plan_windows(
        self, proposals: Sequence[tuple[Window, NDArray[np.float64]]]
    ) -> NegativeChipPool:
        """The pool of some images, all of whose windows are given with their proposals."""
        boxes: dict[tuple[int, int], list[NDArray]] = {}
        for window, some in proposals:
            boxes.setdefault((window.ordinal, window.image), []).append(some)
        ordinal, image = np.array(sorted(boxes)).T
        return self.plan(image, ordinal, [np.concatenate(boxes[key]) for key in sorted(boxes)])

    def plan(
        self, image: NDArray[np.int64], ordinal: NDArray[np.int64], boxes: Sequence[NDArray]
    ) -> NegativeChipPool:
        """The pool of some images: their indices, ordinals (ascending) and proposals."""
        table, pyramid = self.sampler.planner.table, self.sampler.pyramid
        width, height = table.width[image], table.height[image]
        proposals = AnnotationTable.from_images(
            [(w, h, some, None) for w, h, some in zip(width, height, boxes)]
        )
        chips = plan_negative_chips(
            proposals,
            _of_images(self.positives, image),
            pyramid,
            self.miner.min_proposals,
            self.miner.max_per_image,
        )
        uncovered = chips.uncovered.take(self.shown[ordinal][chips.uncovered.image])
        paths = self.sampler.img_paths()
        return NegativeChipPool(
            pyramid=pyramid,
            img_path=np.array([paths[i] for i in image.tolist()]),
            width=width,
            height=height,
            chips=chips.chips,
            proposals_per_chip=chips.proposals_per_chip,
            statistics=chips.statistics,
            uncovered_image=uncovered.image.astype(np.int32),
            uncovered_level=uncovered.level.astype(np.int8),
            uncovered_box=uncovered.box.astype(np.float32),
            origin=self.origin,
        )

    def rest(self) -> list[NegativeChipPool]:
        """A pool without chips of the images that are not mined: those, too, are known."""
        mined = set(self.miner._images(self.sampler))
        everything = replace(self.miner, empty_images=True)._images(self.sampler)
        image = np.array([i for i in everything if i not in mined], np.int64)
        if not len(image):
            return []
        pool = self.plan(image, np.zeros_like(image), [np.zeros((0, 4))] * len(image))
        return [replace(pool, statistics=replace(pool.statistics, images=0))]


def _contents(source: nn.Module | Sequence[ImageProposals]) -> Iterator[bytes | NDArray]:
    """All numbers of a detector, and how its RPN makes proposals; or all numbers of proposals."""
    if isinstance(source, nn.Module):
        settings = getattr(proposal_head(source), 'test_cfg', None)
        yield json.dumps(settings, default=str, sort_keys=True).encode()
        # Some buffers, such as the mean colour, are not in the state.
        for name, value in sorted({**dict(source.named_buffers()), **source.state_dict()}.items()):
            flat = value.detach().cpu().contiguous().reshape(-1)
            yield name.encode() + flat.view(torch.uint8).numpy().tobytes()
    else:
        yield np.array([len(boxes) for boxes, _ in source])
        for boxes, scores in source:
            yield np.ascontiguousarray(boxes)
            yield np.ascontiguousarray(scores)


def check_minable(
    model: nn.Module, sampler: ChipAwareSampler, miner: NegativeChipMiner | None = None
) -> None:
    """Check that negative chips can be mined, without mining.

    Raises:
        ValueError: If the detector has no RPN, the data set's pipelines have no ``ChipSampler``, or
            the miner's ``window_size`` is too small for the chips.
    """
    proposal_head(model)
    _window_dataset(sampler.dataset, sampler.pyramid)
    if miner is not None:
        LevelWindows.of(sampler.pyramid, [], [], miner.window_size)


def _check_ranks_agree(origin: str) -> None:
    """Parts that are mined from different things would make a pool that no one can mine again."""
    origins = all_gather_object(origin)
    if len(set(origins)) > 1:
        raise RuntimeError(
            f'the ranks would mine from different things ({", ".join(origins)}): do all of them '
            f'have the same weights, annotations and options? Buffers such as those of BatchNorm '
            f'differ in distributed training: call share_buffers(model) before'
        )


@contextmanager
def _same_kernels() -> Iterator[None]:
    """Let cuDNN choose its kernels by the shapes, not by how fast each is on this rank today.

    Sizes of images vary, so that trying them out would not be worth it either.
    """
    tries = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tries


def share_buffers(model: nn.Module) -> None:
    """Give all ranks the buffers of rank 0, those that its checkpoints hold.

    In distributed training every rank has BatchNorm statistics of its own.
    """
    for buffer in model.buffers():
        broadcast(buffer)


def _of_images(plan: ChipPlan, image: NDArray) -> ChipPlan:
    """The chips of some images, ascending as the plan is, as chips of images 0, 1, ..."""
    start, stop = (np.searchsorted(plan.image, image, side) for side in ('left', 'right'))
    position, chip = expand(start, stop)
    return replace(plan.take(chip), image=position.astype(np.int32))


@dataclass(frozen=True, eq=False)
class _Parts:
    """The windows of the images that are mined, in parts of whole images.

    They are made when they are needed: those of a million images would take gigabytes.

    Attributes:
        image: Index in the data set of the image with each ordinal, ascending, shape (n,).
        path: Files of these images.
        windows: Windows of these images.
        first: Ordinal of the first image of each part.
        batch_pixels: Scaled pixels of a batch, at most.
    """

    image: NDArray[np.int64]
    path: list[str]
    windows: LevelWindows
    first: list[int]
    batch_pixels: int

    @classmethod
    def of(cls, miner: NegativeChipMiner, sampler: ChipAwareSampler, batch_pixels: int) -> _Parts:
        image, table = np.array(miner._images(sampler), np.int64), sampler.planner.table
        windows = LevelWindows.of(
            sampler.pyramid, table.width[image], table.height[image], miner.window_size
        )
        path = [sampler.img_paths()[i] for i in image.tolist()]
        return cls(image, path, windows, _cut(windows.count.sum(axis=1)), batch_pixels)

    def __len__(self) -> int:
        return len(self.first)

    def ordinals(self, k: int) -> range:
        """The ordinals of the images of a part."""
        return range(self.first[k], [*self.first, len(self.image)][k + 1])

    def paths(self, k: int) -> list[str]:
        """The files of a part."""
        return [self.path[i] for i in self.ordinals(k)]

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Scaled pixels of each part."""
        return np.add.reduceat(self.windows.pixels, np.array(self.first, np.int64))

    def batches(self, k: int) -> list[list[Window]]:
        """The windows of a part in batches of about the same shape."""
        batches: list[list[Window]] = []
        windows = [window for ordinal in self.ordinals(k) for window in self._windows(ordinal)]
        for window in sorted(windows, key=lambda w: (w.chip.level, w.shape, w.image)):
            if not batches or not self._go_together([*batches[-1], window]):
                batches.append([])
            batches[-1].append(window)
        return batches

    def _windows(self, ordinal: int) -> Iterator[Window]:
        for level, box, core in self.windows.of_image(ordinal):
            height, width = self.windows.shape[ordinal, level].tolist()
            chip = Chip(level, box, NEGATIVE)
            yield Window(int(self.image[ordinal]), ordinal, chip, core, (height, width))

    def _go_together(self, batch: Sequence[Window]) -> bool:
        """Whether windows make a batch: not too large, and little of it padding."""
        height, width = (max(column) for column in zip(*(w.shape for w in batch)))
        padded, own = len(batch) * height * width, sum(w.pixels for w in batch)
        return padded <= self.batch_pixels and padded <= _MAX_PADDING * own


@dataclass(frozen=True)
class _ChipIndices:
    """What a data loader is to load for some parts: the indices of each batch."""

    parts: _Parts
    mine: Sequence[int]

    def __iter__(self) -> Iterator[list[ChipIndex]]:
        for k in self.mine:
            for batch in self.parts.batches(k):
                yield [ChipIndex(window.image, window.chip) for window in batch]


def _cut(windows: NDArray[np.int64]) -> list[int]:
    """Where parts begin, given the number of windows of each image; nothing else matters."""
    size = min(max(math.ceil(windows.sum() / 64), 1), _PART_WINDOWS)
    first: list[int] = []
    filled = 0
    for ordinal, count in enumerate(windows.tolist()):
        if not first or filled + count > size:
            first.append(ordinal)
            filled = 0
        filled += count
    return first


def _part_file(folder: Path, k: int) -> Path:
    return folder / f'{k:05d}.npz'


def _share(
    parts: _Parts, folder: Path | None, origin: str
) -> tuple[list[int], dict[int, NegativeChipPool]]:
    """Which parts this rank is to mine, and those that it has from before."""
    here: dict[int, NegativeChipPool] = {}
    for k in range(len(parts) if folder is not None else 0):
        pool = stored_pool(_part_file(folder, k), origin)
        # Another version may have cut the work into other parts.
        if pool is not None and pool.img_path.tolist() == parts.paths(k):
            here[k] = pool
    rank, ranks = get_dist_info()
    owner: dict[int, int] = {}
    for other, known in enumerate(all_gather_object(sorted(here))):
        for k in known:
            owner.setdefault(k, other)
    missing = [k for k in range(len(parts)) if k not in owner]
    found = {k: pool for k, pool in here.items() if owner[k] == rank}
    return missing[rank::ranks], found


def stored_pool(path: Path, origin: str) -> NegativeChipPool | None:
    """The pool in a file, None if there is none or it was mined from something else."""
    try:
        pool = NegativeChipPool.from_file(path)
    except (FileNotFoundError, ValueError):
        return None
    return pool if pool.origin == origin else None


def _announce(parts: _Parts, found: dict[int, NegativeChipPool]) -> None:
    done = f'; {len(found)} of {len(parts)} parts are there from before' if found else ''
    windows = parts.windows
    print_log(
        f'mining negative chips in {len(windows)} images: {windows.count.sum()} windows, '
        f'{windows.pixels.sum() / 1e6:.0f} million pixels, by {get_dist_info()[1]} processes{done}',
        logger='current',
        level=logging.INFO,
    )


def _window_dataset(dataset: Any, pyramid: ScalePyramid) -> Any:
    """The data set with pipelines that give windows of it instead of chips to learn from."""
    seen = copy.copy(dataset)
    if isinstance(dataset, ChipDataset):
        seen.pipeline = _window_pipeline(dataset.pipeline.transforms, pyramid)
    elif getattr(dataset, 'datasets', None):
        seen.datasets = [_window_dataset(d, pyramid) for d in inner_datasets(dataset)]
    else:
        seen.dataset = _window_dataset(dataset.dataset, pyramid)
    return seen


def _window_pipeline(transforms: Sequence[Any], pyramid: ScalePyramid) -> Compose:
    """Load an image as the training does, cut a window out, and pack it."""
    cut = next((i for i, t in enumerate(transforms) if isinstance(t, ChipSampler)), None)
    if cut is None:
        raise ValueError(
            f'the pipeline of the ChipDataset has no ChipSampler to cut windows out with; it has '
            f'{[type(t).__name__ for t in transforms]}'
        )
    load = [t for t in transforms[:cut] if not isinstance(t, (LoadAnnotations, FilterAnnotations))]
    return _WindowPipeline(
        [*load, _WindowSampler(transforms[cut], pyramid), PackDetInputs(meta_keys=_META_KEYS)]
    )


class _WindowPipeline(Compose):
    """Transforms that must give the window: a data set would try another image instead."""

    def __call__(self, data: dict) -> dict:
        sample = super().__call__(data)
        if sample is None:
            raise ValueError('a transform returned None, so the image cannot be mined')
        return sample


class _WindowSampler:
    """Cuts windows out with a ``ChipSampler``, to which each is a chip of its size."""

    def __init__(self, sampler: ChipSampler, pyramid: ScalePyramid) -> None:
        self.sampler = copy.copy(sampler)
        self.pyramid = pyramid

    def __call__(self, results: dict) -> dict | None:
        height, width = results['img'].shape[:2]
        level, (x1, y1, x2, y2), _ = results['chip']
        side = max(x2 - x1, y2 - y1) * self.pyramid.scales(width, height)[level]
        chip_size = math.ceil(side * (1 - TOLERANCE))
        self.sampler.pyramid = replace(self.pyramid, chip_size=chip_size)
        return self.sampler(results)
