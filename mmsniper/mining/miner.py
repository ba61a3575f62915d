"""Run the RPN over the training images and turn what fools it into a pool of negative chips."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, broadcast, get_dist_info
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import DataLoader

from mmsniper.chips import MIN_PROPOSALS, NegativeChipPool, ScalePyramid
from mmsniper.chips.coarse_to_fine import CoarseToFineWindows
from mmsniper.chips.pyramid import box_sizes
from mmsniper.chips.rectangles import Floats, Ints
from mmsniper.chips.windows import WINDOW_SIZE, LevelWindows, Window, check_window_size
from mmsniper.datasets import ChipAwareSampler
from mmsniper.datasets.proposal_files import ImageProposals
from mmsniper.mining.origin import origin_digest
from mmsniper.mining.parts import (
    Found,
    Parts,
    check_ranks_agree,
    mined_images,
    part_file,
    share_parts,
)
from mmsniper.mining.planning import PoolPlanner, check_options, chips_of_images
from mmsniper.mining.window_dataset import window_dataset, window_index
from mmsniper.models.proposals import evaluating, proposal_head, propose
from mmsniper.utils.checks import check_whole_number
from mmsniper.utils.command_line import progress

# Images whose given proposals are planned at a time: memory stays small, and progress shows.
_IMAGES_AT_A_TIME = 500


@dataclass(frozen=True)
class NegativeChipMiner:
    """Mines negative chips with a detector's RPN (SNIPER section 3.3).

    With ``share`` 1 every image is seen whole at the scale of every level, or in overlapping
    windows where it is larger than ``window_size``. With less, only the coarsest level is, and of
    the others windows of a chip's size, where the RPN has found most at the coarser levels and the
    epoch has no positive chip: :class:`~mmsniper.chips.coarse_to_fine.CoarseToFineWindows`. Of each
    window the best proposals are kept, among those whose size is in the level's valid range. The
    number of processes changes no
    bit of what is found, as long as the number of threads of each, by which torch rounds on CPUs,
    stays the same.

    Args:
        share (float): Pixels that are looked at, of each level but the coarsest, as a share of the
            finest level's; 1 is all of all levels. Defaults to 0.1.
        num_proposals (int): Proposals to keep of a window. Defaults to 300, as in the authors'
            release.
        score_thr (float): Least score of a proposal. Defaults to 0.
        min_proposals, max_per_image, covered: See :func:`~mmsniper.chips.plan_negative_chips`.
        placed (str): ``'fixed'``, epochs draw from the windows that were mined, or ``'anew'``, as
            in the authors' release: each epoch finds windows anew in the same proposals, around its
            own positive chips, at places that are drawn. The pool then keeps all proposals.
            Defaults to 'fixed'.
        empty_images (bool): Mine in images without objects, too, if they are in the data set
            (``filter_cfg=dict(filter_empty_gt=False)``). Defaults to True.
        window_size (int): Longest side of what the network sees at once, pixels of the level; more
            than the chip size. Defaults to 2048.
        batch_pixels (int | None): Pixels of a batch, at their levels, at most (but at least one
            window). Defaults to None, those of a training batch.
        num_workers (int | None): Processes that load images. Defaults to None, those of the
            training.

    Raises:
        ValueError: If a number is out of its range.
    """

    share: float = 0.1
    num_proposals: int = 300
    score_thr: float = 0.0
    min_proposals: int | Sequence[int] = MIN_PROPOSALS
    max_per_image: int | None = None
    covered: str = 'enclosed'
    placed: str = 'fixed'
    empty_images: bool = True
    window_size: int = WINDOW_SIZE
    batch_pixels: int | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        minima = dict(num_proposals=1, window_size=1, batch_pixels=1, num_workers=0)
        for name, minimum in minima.items():
            check_whole_number(name, getattr(self, name), minimum, optional=True)
        if not 0 < self.share <= 1:
            raise ValueError(
                f'share must be more than 0 and at most 1, a share of the finest level, '
                f'got {self.share!r}; to mine nothing, leave NegativeChipHook out (sniper = '
                f'dict(negative_chips=None))'
            )
        check_options(self._planning, self.placed)

    @property
    def _planning(self) -> dict[str, Any]:
        """Arguments of ``plan_negative_chips``."""
        return {name: getattr(self, name) for name in ('min_proposals', 'max_per_image', 'covered')}

    def check(self, model: nn.Module, sampler: ChipAwareSampler) -> None:
        """Check that :meth:`mine` can mine, without mining.

        Raises:
            ValueError: If the detector has no RPN, the data set's pipelines have no
                ``ChipSampler``, or ``window_size`` is too small for the chips.
        """
        proposal_head(model)
        window_dataset(sampler.dataset, sampler.pyramid)
        check_window_size(self.window_size, sampler.pyramid)

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
            batch_pixels, num_workers (int): Used where this miner's own are None.
            parts_dir (Path | None): Folder that keeps finished parts, so that an interrupted mining
                can go on. Defaults to None, they are not kept.

        Returns:
            NegativeChipPool: The pool of all images.

        Raises:
            ValueError: If the detector has no RPN, or ``window_size`` is too small.
            RuntimeError: If an image cannot be read; the message names it. If the ranks' weights
                or positive chips differ.
        """
        self.check(model, sampler)
        origin = self.origin(model, sampler)
        check_ranks_agree(origin)
        parts = self._parts(sampler, self.batch_pixels or batch_pixels)
        mine, pools = share_parts(parts, parts_dir, origin)
        windows = parts.windows
        done = f'; {len(pools)} of {len(parts)} parts are there from before' if pools else ''
        print_log(
            f'mining negative chips in {len(windows)} images: {windows.count.sum()} windows, '
            f'{windows.pixels.sum() / 1e6:.0f} million pixels, by {get_dist_info()[1]} '
            f'processes{done}',
            logger='current',
            level=logging.INFO,
        )
        planner = self._planner(sampler, origin)
        batches = _Batches()
        num_workers = num_workers if self.num_workers is None else self.num_workers
        loader = DataLoader(
            window_dataset(sampler.dataset, sampler.pyramid),
            batch_sampler=batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=pseudo_collate,
            # Its own, so that mining leaves torch's random numbers alone.
            generator=torch.Generator(),
        )
        pixels = int(parts.pixels[mine].sum())
        bar = progress(None, 'mining negative chips', pixels, unit='px', unit_scale=True)
        with bar, evaluating(model), _deterministic_kernels():
            for k in mine:
                found = {image: Found() for image in parts.images(k).tolist()}
                for batches.windows in parts.rounds(k, found):
                    for data, batch in zip(loader, batches.windows, strict=True):
                        proposals = self._propose(model, data, batch, sampler.pyramid)
                        for window, (boxes, scores, best) in zip(batch, proposals):
                            found[window.image].add(boxes, scores, boxes[best])
                        bar.update(sum(window.pixels for window in batch))
                kept = [np.concatenate(image.kept) for image in found.values()]
                pools[k] = planner.plan(parts.images(k), kept)
                if parts_dir is not None:
                    pools[k].save(part_file(parts_dir, k))
        everyone = {k: pool for share in all_gather_object(pools) for k, pool in share.items()}
        return planner.joined([everyone[k] for k in sorted(everyone)])

    def plan(
        self, sampler: ChipAwareSampler, proposals: Sequence[ImageProposals]
    ) -> NegativeChipPool:
        """Plan a pool from given proposals, whatever detector has made them.

        ``num_proposals`` and ``score_thr`` then count for an image, and the options of the
        network's input do not count.

        Args:
            sampler (ChipAwareSampler): As for :meth:`mine`.
            proposals (Sequence[ImageProposals]): Those of every image of the data set, in order.

        Returns:
            NegativeChipPool: The pool of all images.

        Raises:
            ValueError: If ``score_thr`` leaves none of the proposals.
        """
        images = mined_images(sampler, self.empty_images)
        boxes = [proposals[i].best(self.num_proposals, self.score_thr).boxes for i in images]
        if not any(map(len, boxes)):
            raise ValueError(
                f'no proposal of the {len(images)} images has a score of at least score_thr, '
                f'{self.score_thr}: lower it'
            )
        planner = self._planner(sampler, self.origin(proposals, sampler))
        bar = progress(None, 'planning negative chips', len(images))
        pools = []
        with bar:
            for first in range(0, len(images), _IMAGES_AT_A_TIME):
                some = slice(first, first + _IMAGES_AT_A_TIME)
                pools.append(planner.plan(images[some], boxes[some]))
                bar.update(len(images[some]))
        return planner.joined(pools)

    def origin(
        self, source: nn.Module | Sequence[ImageProposals], sampler: ChipAwareSampler
    ) -> str:
        """What :meth:`mine` or :meth:`plan` would make a pool from: equal digests, equal pools.

        Args:
            source (nn.Module | Sequence[ImageProposals]): The detector, or the proposals.
            sampler (ChipAwareSampler): As for :meth:`mine`.

        Returns:
            str: 16 hexadecimal digits.
        """
        options = {k: v for k, v in asdict(self).items() if k != 'num_workers'}
        if self.share < 1 and isinstance(source, nn.Module):
            options['drawn'] = _key(sampler)
        return origin_digest(source, sampler, mined_images(sampler, self.empty_images), options)

    def pixels(self, sampler: ChipAwareSampler) -> int:
        """Pixels that :meth:`mine` shows the network."""
        return int(self._parts(sampler, batch_pixels=1).pixels.sum())

    def _parts(self, sampler: ChipAwareSampler, batch_pixels: int) -> Parts:
        images = mined_images(sampler, self.empty_images)
        table, paths = sampler.planner.table, sampler.img_paths()
        sizes = sampler.pyramid, table.width[images], table.height[images]
        windows: CoarseToFineWindows | LevelWindows
        if self.share < 1:
            seen = chips_of_images(sampler.positives(), images)
            windows = CoarseToFineWindows(
                *sizes, self.share, self.window_size, seen, _key(sampler), images
            )
        else:
            windows = LevelWindows(*sizes, self.window_size, images)
        return Parts(windows, [paths[i] for i in images.tolist()], batch_pixels)

    def _planner(self, sampler: ChipAwareSampler, origin: str) -> PoolPlanner:
        images = mined_images(sampler, self.empty_images)
        return PoolPlanner(sampler, images, origin, self._planning, self.placed)

    def _propose(
        self, model: nn.Module, data: Any, batch: Sequence[Window], pyramid: ScalePyramid
    ) -> list[tuple[Floats, Floats, Ints]]:
        """What each window of a batch owns of its proposals.

        Returns:
            list[tuple[Floats, Floats, Ints]]: Boxes, xyxy in original pixels, shape (n, 4), scores,
            shape (n,), and which of them are kept, the best first.
        """
        found = []
        for result, sample, window in zip(propose(model, data), data['data_samples'], batch):
            boxes = result.bboxes.double().cpu().numpy().reshape(-1, 4)
            to_window = sample.homography_matrix
            boxes = (boxes - np.tile(to_window[:2, 2], 2)) / np.tile(np.diag(to_window)[:2], 2)
            height, width = sample.ori_shape
            owned = window.owns(boxes, width, height)
            boxes, scores = boxes[owned], result.scores.double().cpu().numpy()[owned]
            keep = (scores >= self.score_thr) & pyramid.in_range(box_sizes(boxes), window.level)
            best = np.argsort(-np.where(keep, scores, -np.inf), kind='stable')
            found.append((boxes, scores, best[: min(keep.sum(), self.num_proposals)]))
        return found


class _Batches:
    """The batches of a round, for a loader whose workers stay from round to round."""

    windows: Sequence[Sequence[Window]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.windows:
            yield [window_index(window) for window in batch]


def _key(sampler: ChipAwareSampler) -> tuple[int, int]:
    """What windows are drawn by."""
    return sampler.seed, sampler.epoch


def share_buffers(model: nn.Module) -> None:
    """Give all ranks the buffers of rank 0, such as BatchNorm's, which differ in training."""
    for buffer in model.buffers():
        broadcast(buffer)


@contextmanager
def _deterministic_kernels() -> Iterator[None]:
    """Let cuDNN choose its kernels by the shapes, not by how fast each is on this rank today."""
    tries = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tries
