"""Which chips an epoch consists of, and which rank processes them."""

from __future__ import annotations

import logging
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import scipy
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import ClassBalancedDataset
from mmengine.dist import all_gather_object, get_dist_info, sync_random_seed
from mmengine.logging import print_log
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

from mmsniper.chips import (
    NEGATIVE,
    AnnotationTable,
    ChipPlan,
    NegativeChipPlanner,
    NegativeChipPool,
    PositiveChipPlanner,
    ScalePyramid,
    plan_statistics,
    range_gaps,
    scale_disagreement,
)
from mmsniper.chips.annotations import corners_of_masks
from mmsniper.chips.class_aware import ChipsOfClasses
from mmsniper.chips.drawn_chips import drawn_chips
from mmsniper.chips.positive import FoundChips
from mmsniper.chips.rectangles import ordinal
from mmsniper.chips.statistics import what_levels_learn
from mmsniper.datasets.chip_dataset import Chip, ChipDataset, ChipIndex, ChipIndexTable
from mmsniper.datasets.epoch_order import EpochOrder, any_order, image_by_image
from mmsniper.datasets.scale_transforms import rescaling
from mmsniper.datasets.wrappers import all_datasets, all_transforms, inner_datasets, type_name
from mmsniper.utils.checks import check_whole_number
from mmsniper.utils.command_line import progress
from mmsniper.utils.image_header import image_size
from mmsniper.utils.made_once import made_once
from mmsniper.utils.missing_files import missing_file
from mmsniper.utils.words import numbered

_BLOCK = 1 << 12  # chips that are looked at together, in 1 MB as Python objects


@DATA_SAMPLERS.register_module()
class ChipAwareSampler(Sampler):
    """Plan the chips of every epoch, shuffle them and share them out to the ranks.

    An epoch is every positive chip of every image, drawn anew from (seed, epoch), and up to
    ``negatives_per_image`` negative chips of every image, drawn from a pool, if there is one: a
    file, or what :class:`~mmsniper.engine.NegativeChipHook` has mined. With ``background`` it also
    has chips at random places. Each rank takes every
    world_size-th chip of the same shuffled plan. Yields :class:`ChipIndex` values, for a data set
    that has a :class:`ChipDataset` in it.

    With ``num_sample_class`` it is MMDetection's ``ClassAwareSampler``, of chips: as many positive
    chips as else, but of every class equally many, those in which an object of it is whole and
    valid. A chip that comes again is placed anew. Negative chips are those of any epoch.

    Args:
        dataset (Any): The data loader's data set.
        pyramid (ScalePyramid | dict): The scale pyramid, or its config.
        strategy (str): ``'minimum'``, the fewest chips, or ``'grid'``, the paper's greedy choice
            from a regular grid. Defaults to 'minimum'.
        stride (int | tuple[int, int]): Stride of ``'grid'`` in scaled pixels, or a range (lo, hi)
            to draw it from anew in each epoch. Defaults to 32.
        shuffle (bool): Shuffle the chips. Defaults to True.
        seed (int | None): Seed, the same on all ranks. The runner passes its own. Defaults to None,
            which synchronises a random one.
        round_up (bool): Repeat chips from the start of the epoch, if need be, so that every rank
            has equally many, as ``DefaultSampler`` does. Only one process can do without. Defaults
            to True.
        negatives (str | None): File with a pool of negative chips, which
            ``tools/analysis_tools/mine_negatives.py`` makes. Defaults to None.
        negatives_per_image (int): Negative chips that an epoch takes of an image, at most. Defaults
            to 2, as in the authors' release.
        background (float): Share of the pyramid's pixels that every epoch shows beside, in chips at
            random places where it has no positive chip. Defaults to 0.
        lanes (int): Batch size times workers of the data loader, at least 1 worker: then the chips
            of an image come soon after each other and to the same worker, which can keep the image
            (``ChipDataset(cache_mb=...)``). A batch is still of as many images as it has chips.
            Defaults to 0, chips in any order.
        num_sample_class (int | None): Chips that each class has in its turn, for class-aware
            epochs. Defaults to None, every positive chip comes once.

    Raises:
        TypeError: If there is no :class:`ChipDataset` in ``dataset``.
        ValueError: If an image has no size, no image has a chip, the pool belongs to other
            images or another pyramid, several ranks have ``round_up=False``, or ``background`` is
            no share.
        RuntimeError: If the ranks' plans differ.
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
        negatives: str | None = None,
        negatives_per_image: int = 2,
        background: float = 0.0,
        lanes: int = 0,
        num_sample_class: int | None = None,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        if not round_up and self.world_size > 1:
            raise ValueError(
                f'round_up=False of ChipAwareSampler would give some of the {self.world_size} '
                f'processes a batch less, for which the others wait for ever: remove it from '
                f'train_dataloader.sampler (or sniper.sampler); then an epoch repeats up to '
                f'{self.world_size - 1} chips'
            )
        self.dataset = dataset
        self.pyramid = ScalePyramid.from_config(pyramid)
        if not 0 <= background <= 1:
            raise ValueError(
                f"background must be from 0 to 1, a share of the pyramid's pixels, got "
                f'{background!r}'
            )
        check_whole_number('lanes', lanes, 0)
        check_whole_number('num_sample_class', num_sample_class, 1, optional=True)
        self.shuffle = shuffle
        self.lanes = lanes
        self.num_sample_class = num_sample_class
        self.background = background
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        _let_chips_through(dataset)
        _check_one_pyramid(dataset, self.pyramid)
        labels = num_sample_class is not None
        table = made_once(
            AnnotationTable.joined, lambda *share: read_annotations(dataset, share, labels)
        )
        self.planner = PositiveChipPlanner(table, self.pyramid, strategy, stride, self.seed)
        if strategy == 'minimum':
            self.planner.found = made_once(FoundChips.joined, self._find)
        self._by_class: ChipsOfClasses | None = None
        if labels and strategy == 'minimum':  # those of a grid are others in each epoch
            self._by_class = made_once(lambda: self._find_classes(self.planner.certain()))
        self._plan: ChipPlan | None = None
        self._img_paths: list[str] | None = None
        self._negatives: NegativeChipPlanner | None = None
        self.negatives_per_image = negatives_per_image
        self._check_ranks_agree()
        self._check_and_log()
        if negatives is not None:
            pool = partial(NegativeChipPool.from_file, negatives)
            self._set_negatives(pool, negatives_per_image, str(negatives))

    def _find(self, k: int, n: int) -> FoundChips:
        """Share k of n of the positive chips."""
        with progress(what='planning chips', total=len(self.planner.table)) as bar:
            self.planner.progress = lambda done, total: bar.update(done - bar.n)
            found = self.planner.find((k, n))
        self.planner.progress = None
        return found

    @property
    def plan(self) -> ChipPlan:
        """The chips of the current epoch, of all ranks, in the order of the images."""
        if self._plan is None:
            chips = self.positives()
            parts = [chips if self.num_sample_class is None else self._class_aware(chips)]
            if self.background:
                parts.append(self._background(chips))
            if self._negatives is not None:
                per_image, seed, epoch = self.negatives_per_image, self.seed, self.epoch
                parts.append(self._negatives.plan(chips, per_image, seed, epoch))
            plan = parts[0]
            if len(parts) > 1:
                plan = ChipPlan.joined(parts)
                plan = plan.take(np.argsort(plan.image, kind='stable'))
            self._plan = plan
        return self._plan

    def _class_aware(self, chips: ChipPlan) -> ChipPlan:
        """The positive chips of a class-aware epoch, of all that there are."""
        by_class = self._by_class or self._find_classes(chips)
        key = self.seed, self.epoch
        times = by_class.times(len(chips), self.num_sample_class or 1, key)
        drawn = np.repeat(np.arange(len(chips), dtype=np.int32), times)
        if self.planner.strategy == 'grid':  # where chips have one place
            return chips.take(drawn)
        return self.planner.plan(self.epoch, drawn, ordinal(drawn))

    def _find_classes(self, chips: ChipPlan) -> ChipsOfClasses:
        return ChipsOfClasses.find(self.planner.table, self.pyramid, chips)

    def _count(self) -> int:
        """Number of chips of the current epoch, of all ranks."""
        return len(self.planner.chips if self._placed_late else self.plan)

    def _chips(self, index: NDArray[np.integer]) -> ChipPlan:
        """Those of the current epoch's chips that are at some positions of the plan."""
        if self._placed_late:
            return self.planner.plan(self.epoch, index)
        return self.plan.take(index)

    @property
    def _placed_late(self) -> bool:
        """Whether chips get their places when they are wanted: a rank needs no others."""
        more = self._plan is not None or self.background or self._negatives is not None
        own = type(self).positives is not ChipAwareSampler.positives
        drawn = self.num_sample_class is not None
        return self.planner.strategy == 'minimum' and not (more or own or drawn)

    def positives(self) -> ChipPlan:
        """The positive chips of the current epoch, of all ranks, in the order of the images.

        The one method to override for another choice: what it returns is trained, mined around and
        drawn. It must be the same on all ranks, so random numbers are to come from seed and epoch.
        """
        return self.planner.plan(self.epoch)

    def _background(self, positives: ChipPlan) -> ChipPlan:
        """Chips at random places of the current epoch, where it has no positive chip."""
        table, key = self.planner.table, (self.seed, self.epoch)
        sizes = self.pyramid, table.width, table.height
        return drawn_chips(*sizes, self.background, positives, key)

    def img_paths(self) -> list[str]:
        """File of every image, in the order of the data set's indices."""
        if self._img_paths is None:
            images = progress(range(len(self.dataset)), 'reading file names')
            self._img_paths = [self.dataset.get_data_info(i)['img_path'] for i in images]
        return self._img_paths

    def set_negatives(
        self, pool: NegativeChipPool, per_image: int | None = None, name: str = 'the pool'
    ) -> None:
        """Take negative chips from a pool, from the next iteration over this sampler on.

        All ranks must call it.

        Args:
            pool (NegativeChipPool): The pool; it replaces that of an earlier call.
            per_image (int | None): New value of ``negatives_per_image``. Defaults to None, as it
                was.
            name (str): What errors call the pool, such as its file. Defaults to 'the pool'.

        Raises:
            ValueError: If the pool belongs to other images or another pyramid.
            RuntimeError: If the ranks' plans differ.
        """
        self._set_negatives(lambda: pool, per_image, name)

    def _set_negatives(
        self, read: Callable[[], NegativeChipPool], per_image: int | None, name: str
    ) -> None:
        def make() -> NegativeChipPlanner:
            pool, table = read(), self.planner.table
            pool.check_pyramid(self.pyramid, name)
            return pool.planner_for(self.img_paths(), table.width, table.height, name)

        planner = made_once(make)
        if per_image is not None:
            self.negatives_per_image = per_image
        if not self.negatives_per_image >= 0:
            raise ValueError(
                f'negatives_per_image must not be negative, got {self.negatives_per_image!r}'
            )
        self._negatives, self._plan = planner, None
        self._check_ranks_agree()
        drawn = int((self.plan.kind == NEGATIVE).sum())
        print_log(
            f'{len(planner.chips)} negative chips in the pool; an epoch takes up to '
            f'{self.negatives_per_image} of an image, {drawn} in all, beside '
            f'{len(self.plan) - drawn} positive chips',
            logger='current',
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is for."""
        if epoch != self.epoch:
            self.epoch, self._plan = epoch, None

    def __len__(self) -> int:
        """Number of chips of this rank in the current epoch."""
        return len(range(0, self._count(), self.world_size))

    def __iter__(self) -> Iterator[ChipIndex]:
        order = self._order()
        for first in range(0, len(order.chip), _BLOCK):
            block = slice(first, first + _BLOCK)
            chips, left = self._chips(order.chip[block]), order.left[block].tolist()
            columns = (chips.image, chips.level, chips.box, chips.kind)
            for image, level, box, kind, more in zip(*(c.tolist() for c in columns), left):
                yield ChipIndex(image, Chip(level, tuple(box), kind), more)

    def _order(self) -> EpochOrder:
        key = (self.seed, self.epoch) if self.shuffle else None
        ranks = self.rank, self.world_size
        if self.lanes:
            chips = self.planner.chips if self._placed_late else self.plan
            return image_by_image(chips.image, self.lanes, key, *ranks)
        return any_order(self._count(), key, *ranks)

    def _check_ranks_agree(self) -> None:
        """Ranks with different plans would wait for each other for ever at the end of the epoch."""
        count, digest = self._count(), 0
        for first in range(0, count, _BLOCK):
            chips = self._chips(np.arange(first, min(first + _BLOCK, count)))
            for column in (chips.image, chips.level, chips.box, chips.kind):
                digest = zlib.crc32(column.tobytes(), digest)
        all_ = all_gather_object((count, digest))
        if len(set(all_)) == 1:
            return
        facts = all_gather_object(_facts(self.planner.table, self.seed))
        differing = [
            f'{name}: {values}'
            for name in facts[0]
            if len(set(values := [of_rank[name] for of_rank in facts])) > 1
        ]
        raise RuntimeError(
            f'the ranks have planned different chips (numbers of chips: {[n for n, _ in all_]}). '
            f'{"; ".join(differing) or "They have read the same"}. Do all of them read the same '
            f'annotation file, with the same versions of numpy and scipy?'
        )

    def _check_and_log(self) -> None:
        table = self.planner.table
        if self.rank == 0:
            self._warn_of_nan(table)
        if self._count() == 0:
            raise ValueError(_nothing_valid(table, self.pyramid))
        if self.rank:
            return
        differing = scale_disagreement(self.pyramid, table.width, table.height).message
        if differing:
            print_log(differing, logger='current', level=logging.WARNING)
        for gaps in range_gaps(self.pyramid, table):
            level = logging.WARNING if gaps.boxes else logging.INFO
            print_log(str(gaps) if gaps.boxes else gaps.what, logger='current', level=level)
        stats = plan_statistics(table, self.pyramid, self.positives())
        all_levels = (
            f'{numbered(stats.chips, "chip")} for {numbered(stats.images, "image")}, fine to '
            f'coarse {stats.chips_per_level}; they cover {stats.coverage:.1%} of the valid boxes; '
            f'{numbered(stats.orphans, "orphan")} (learned at no level)'
        )
        if stats.in_no_range:
            all_levels += f", {stats.in_no_range} of them in no level's range"
        lines = [all_levels, *what_levels_learn(stats, table, self.pyramid)]
        if self.num_sample_class is not None:
            by_class = self._by_class or self._find_classes(self.positives())
            names = self.dataset.metainfo.get('classes') or ()
            lines.append(f'class-aware: {by_class.told(table, names)}')
        print_log('\n  '.join(lines), logger='current')

    def _warn_of_nan(self, table: AnnotationTable) -> None:
        nan = np.flatnonzero(np.isnan(table.boxes).any(axis=1))
        if len(nan):
            path = self.dataset.get_data_info(int(table.image[nan[0]])).get('img_path')
            print_log(
                f'{len(nan)} boxes have NaN coordinates and are left out, the first of them is one '
                f'of {path}: correct the annotation file',
                logger='current',
                level=logging.WARNING,
            )


def _facts(table: AnnotationTable, seed: int) -> dict[str, Any]:
    """What a plan depends on."""
    boxes = zlib.crc32(table.boxes.tobytes(), zlib.crc32(table.ignore.tobytes()))
    boxes = zlib.crc32(b'' if table.corners is None else table.corners.tobytes(), boxes)
    return {
        'images': len(table),
        'boxes': len(table.boxes),
        'digest of the boxes': f'{boxes:08x}',
        'seed': seed,
        'numpy': np.__version__,
        'scipy': scipy.__version__,
    }


def _nothing_valid(table: AnnotationTable, pyramid: ScalePyramid) -> str:
    boxes = table.boxes[~table.ignore].astype(np.float64)
    if not len(boxes):
        if len(table.ignore):
            why = (
                f'all {len(table.ignore)} boxes are crowd (iscrowd), difficult, or less than a '
                f'pixel wide. Set iscrowd (in VOC: difficult) to 0 where it is one object'
            )
        else:
            why = 'do the classes in metainfo have the names of those in the annotation file?'
        return f'none of the {len(table)} images has a box to learn from: {why}'
    sizes = table.sizes_of(~table.ignore)
    ranges = ', '.join(f'[{lo:g}, {hi:g})' for lo, hi in pyramid.ranges())
    return (
        f'no box is valid at a level where it fits into a chip of {pyramid.chip_size} px, so there '
        f'is nothing to train on: the {len(boxes)} boxes of {len(table)} images have sizes '
        f'(sqrt of area, original px) from {sizes.min():.1f} to {sizes.max():.1f}, the valid '
        f'ranges are {ranges}. Change the valid ranges or the resize rules of the pyramid'
    )


def read_annotations(
    dataset: Any, share: tuple[int, int] = (0, 1), labels: bool = False
) -> AnnotationTable:
    """Image sizes and boxes of any MMDetection data set, in the order of its indices.

    Where the pipeline makes rotated boxes of polygons (:func:`has_mask_boxes`), they are those.

    Args:
        dataset (Any): Anything with ``get_data_info``, wrappers included.
        share (tuple[int, int]): k and n: the images of share k of n. Defaults to (0, 1), all.
        labels (bool): Also keep the boxes' labels. Defaults to False.

    Returns:
        AnnotationTable: The annotations, in original pixels.

    Raises:
        ValueError: If the size of an image is neither there nor in its file's header, boxes are
            not numbers, or a polygon is missing; the message names its file.
    """
    info: Mapping[str, Any] = {}
    of_masks = has_mask_boxes(dataset)
    label = array('i')

    def annotations() -> Iterator[tuple[int, int, ArrayLike, list[bool]]]:
        nonlocal info
        (k, n), images = share, len(dataset)
        mine = range(k * images // n, (k + 1) * images // n)
        for i in progress(mine, 'reading annotations'):
            info = dataset.get_data_info(i)
            if labels:
                label.extend(instance['bbox_label'] for instance in info.get('instances', ()))
            yield _image_annotations(info, of_masks)

    try:
        table = AnnotationTable.from_images(annotations())
        return replace(table, label=np.array(label, np.int32)) if labels else table
    except ValueError as error:
        raise ValueError(f'the annotations of {info.get("img_path")}: {error}') from None


def has_mask_boxes(dataset: Any) -> bool:
    """Whether the boxes of a data set, or its config, are made of polygons (MMRotate)."""
    return any(
        type_name(transform) == 'ConvertMask2BoxType'
        for part in all_datasets(dataset)
        for transform in all_transforms(_pipeline(part))
    )


def _pipeline(part: Any) -> Any:
    return part.get('pipeline') if isinstance(part, Mapping) else getattr(part, 'pipeline', None)


def _image_annotations(
    info: Mapping[str, Any], of_masks: bool
) -> tuple[int, int, ArrayLike, list[bool]]:
    width, height = info.get('width'), info.get('height')
    if not (width and height):  # DOTA's annotations have no sizes
        try:
            width, height = image_size(info['img_path'])
        except FileNotFoundError:
            where = "data_root, data_prefix or, for DOTA's, img_suffix"
            raise ValueError(
                f'there is no such file, whose header would tell the size. '
                f'{missing_file(info["img_path"], where)}'
            ) from None
        except OSError as error:
            raise ValueError(
                f'no width and height, and the header of the image does not tell them ({error}): '
                f'add both to the annotation file'
            ) from None
    instances = info.get('instances', [])
    boxes: ArrayLike = [instance['bbox'] for instance in instances]
    # DOTA's have no masks: their boxes are corners already.
    if of_masks and any(len(instance['bbox']) == 4 for instance in instances):
        boxes = corners_of_masks([instance.get('mask') for instance in instances])
    return (width, height, boxes, [bool(instance.get('ignore_flag', 0)) for instance in instances])


def _check_one_pyramid(dataset: Any, pyramid: ScalePyramid) -> None:
    """Refuse transforms that would judge the sampler's chips by another pyramid."""
    for part in all_datasets(dataset):
        for transform in all_transforms(getattr(part, 'pipeline', None)):
            other = getattr(transform, 'pyramid', None)
            different = pyramid.differences(other) if isinstance(other, ScalePyramid) else []
            if different:
                name, mine, theirs = different[0]
                raise ValueError(
                    f'there are two pyramids: {name} is {mine} in that of ChipAwareSampler, and '
                    f'{theirs} in that of {type(transform).__name__}, which is in the pipeline of '
                    f'{type(part).__name__}. Give both the same: pyramid=pyramid'
                )


def _let_chips_through(dataset: Any) -> None:
    """Check that chip indices reach a ChipDataset, and clear the way for them."""
    if isinstance(dataset, ChipDataset):
        return
    if type(dataset).__name__ == '_SlicedDataset':  # mmengine's, for num_batch_per_epoch
        raise TypeError(
            'num_batch_per_epoch counts images, of which ChipAwareSampler makes several chips '
            'each: remove it from the data loader, and for a shorter epoch give the data set '
            'fewer images, indices=100 for example'
        )
    if isinstance(dataset, ClassBalancedDataset):
        # It looks images up in this list, in which an index would lose its chip.
        dataset.full_init()
        dataset.repeat_indices = ChipIndexTable(dataset.repeat_indices)
    below = inner_datasets(dataset)
    if not below or not hasattr(dataset, 'get_data_info'):
        raise TypeError(
            f'ChipAwareSampler yields chips, which {type(dataset).__name__} cannot cut out or '
            f"pass on: wrap it, dataset=dict(type='ChipDataset', dataset=..., pipeline=...)"
        )
    mixing = rescaling(getattr(dataset, 'pipeline', ()))
    if mixing:
        raise ValueError(
            f'{type(dataset).__name__} around a ChipDataset has {", ".join(mixing)}, which would '
            f'mix chips of different levels or change their scale: drop it, and put the other '
            f'transforms into the pipeline of ChipDataset'
        )
    for inner in below:
        _let_chips_through(inner)
