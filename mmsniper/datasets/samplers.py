"""Which chips an epoch consists of, and which rank processes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import ClassBalancedDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmsniper.chips import AnnotationTable, ChipPlan, PositiveChipPlanner, ScalePyramid
from mmsniper.datasets.chip_dataset import Chip, ChipDataset, ChipIndex, ChipIndexTable


@DATA_SAMPLERS.register_module()
class ChipAwareSampler(Sampler):
    """Plan the chips of every epoch, shuffle them and share them out to the ranks.

    An epoch is every positive chip of every image, drawn anew from (seed, epoch). Each rank takes
    every world_size-th chip of the same shuffled plan, so that the ranks' chips are disjoint and
    together are the plan. What is yielded are :class:`ChipIndex` values, for a data set that has a
    :class:`ChipDataset` in it.

    Args:
        dataset: The data loader's data set.
        pyramid: The scale pyramid, or its config.
        strategy: ``'minimum'``, the fewest chips, or ``'grid'``, the paper's greedy choice from a
            regular grid. Default: 'minimum'.
        stride: Stride of ``'grid'`` in scaled pixels, or a range (lo, hi) to draw it from anew in
            each epoch. Default: 32.
        shuffle: Shuffle the chips. Default: True.
        seed: Seed, the same on all ranks. The runner passes its own. Default: None, which
            synchronises a random one.
        round_up: Repeat chips from the start of the epoch so that every rank has equally many, as
            ``DefaultSampler`` does. Where the number of chips divides by that of the ranks nothing
            is repeated. Default: True.

    Raises:
        TypeError: If there is no :class:`ChipDataset` in ``dataset``.
        ValueError: If an image has no size, or no image has a chip.
    """

    def __init__(
        self,
        dataset: Any,
        pyramid: ScalePyramid | Mapping[str, Any],
        strategy: str = 'minimum',
        stride: int | tuple[int, int] = 32,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.pyramid = ScalePyramid.from_config(pyramid)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.round_up = round_up
        self.epoch = 0
        _let_chips_through(dataset)
        table = read_annotations(dataset)
        self.planner = PositiveChipPlanner(
            table, self.pyramid, strategy=strategy, stride=stride, seed=self.seed
        )
        self._plan: ChipPlan | None = None
        self._log(table)

    @property
    def plan(self) -> ChipPlan:
        """The chips of the current epoch, of all ranks, in the order of the images."""
        if self._plan is None:
            self._plan = self.planner.plan(self.epoch)
        return self._plan

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is for."""
        if epoch != self.epoch:
            self.epoch, self._plan = epoch, None

    def __len__(self) -> int:
        """Number of chips of this rank in the current epoch."""
        chips = len(self.plan)
        if self.round_up:
            return math.ceil(chips / self.world_size)
        return len(range(self.rank, chips, self.world_size))

    def __iter__(self) -> Iterator[ChipIndex]:
        plan = self.plan
        order = np.arange(len(plan))
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        if self.round_up:
            order = np.resize(order, len(self) * self.world_size)
        for i in order[self.rank::self.world_size].tolist():
            chip = Chip(int(plan.level[i]), tuple(plan.box[i].tolist()), int(plan.kind[i]))
            yield ChipIndex(int(plan.image[i]), chip)

    def _log(self, table: AnnotationTable) -> None:
        if len(self.plan) == 0:
            raise ValueError(
                f'no box of the {len(table)} images is valid at any level and fits into a chip of '
                f'{self.pyramid.chip_size} px there, so there is nothing to train on: check the '
                f'valid ranges (original pixels) of the pyramid against the sizes of your boxes'
            )
        per_level = self.plan.count_per_level(self.pyramid.num_levels).tolist()
        print_log(
            f'{len(self.plan)} chips for {len(table)} images, fine to coarse {per_level}',
            logger='current',
        )


def read_annotations(dataset: Any) -> AnnotationTable:
    """Image sizes and boxes of any MMDetection data set, in the order of its indices.

    Args:
        dataset: Anything with ``get_data_info``, wrappers included.

    Raises:
        ValueError: If an image has no ``width`` and ``height``.
    """
    return AnnotationTable.from_images(
        _image_annotations(dataset.get_data_info(i)) for i in range(len(dataset))
    )


def _image_annotations(info: Mapping[str, Any]) -> tuple[int, int, Sequence, list[bool]]:
    if not (info.get('width') and info.get('height')):
        raise ValueError(
            f'the annotations of {info.get("img_path")} give no width and height; chips are '
            f'planned without opening the images, so add both to the annotation file'
        )
    instances = info.get('instances', [])
    return (
        info['width'],
        info['height'],
        [instance['bbox'] for instance in instances],
        [bool(instance.get('ignore_flag', 0)) for instance in instances],
    )


def _let_chips_through(dataset: Any) -> None:
    """Check that chip indices reach a ChipDataset, and clear the way for them."""
    if isinstance(dataset, ChipDataset):
        return
    if isinstance(dataset, ClassBalancedDataset):
        # It looks images up in this list, in which an index would lose its chip.
        dataset.repeat_indices = ChipIndexTable(dataset.repeat_indices)
    below = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if below == [None]:
        raise TypeError(
            f'ChipAwareSampler yields chips, which {type(dataset).__name__} cannot cut out: wrap '
            f'it, dataset=dict(type=\'ChipDataset\', dataset=..., pipeline=...)'
        )
    for inner in below:
        _let_chips_through(inner)
