"""The pool of negative chips that epochs draw from, as a file that knows what it belongs to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.file_names import match_files
from mmsniper.chips.negative import NegativeChipPlanner, NegativeStatistics, plan_negative_chips
from mmsniper.chips.plan import NEGATIVE, ChipPlan
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.rectangles import expand, spread
from mmsniper.utils.files import replacing

FORMAT = 2  # a file of another one is refused
# Images whose uncovered proposals are kept, for pictures; of all of COCO they would be gigabytes.
_SHOWN = 1000
_SLIP = 0.01  # px, by which float32 may move boxes and windows of large images
# Types and shapes in a file; names stand for any number. ``held`` are the proposals per chip.
_ARRAYS: dict[str, tuple[type, tuple[str | int, ...]]] = {
    'format': (np.int64, ()),
    'pyramid': (np.str_, ()),
    'origin': (np.str_, ()),
    'statistics': (np.str_, ()),
    'img_path': (np.str_, ('images',)),
    'width': (np.int32, ('images',)),
    'height': (np.int32, ('images',)),
    'image': (np.int32, ('chips',)),
    'level': (np.int8, ('chips',)),
    'box': (np.float32, ('chips', 4)),
    'held': (np.int32, ('chips',)),
    'uncovered_image': (np.int32, ('uncovered',)),
    'uncovered_level': (np.int8, ('uncovered',)),
    'uncovered_box': (np.float32, ('uncovered', 4)),
    'options': (np.str_, ()),
    'proposal_image': (np.int32, ('proposals',)),
    'proposal_box': (np.float32, ('proposals', 4)),
}
_CHIPS = ('image', 'level', 'box')
_UNCOVERED = ('uncovered_image', 'uncovered_level', 'uncovered_box')
_PROPOSALS = ('proposal_image', 'proposal_box')


@dataclass(frozen=True, eq=False)
class NegativeChipPool:
    """Negative chips of a data set's images.

    Images are known by their files, so that a pool serves any data set whose images it has.

    Attributes:
        pyramid: The pyramid that the chips belong to.
        img_path: Files of the images that were looked at, each once, shape (num_images,).
        width, height: Of the images, in original pixels, int32, shape (num_images,).
        chips: The chips, ascending by image; ``chips.image`` indexes ``img_path``.
        proposals_per_chip: Uncovered proposals that each chip encloses, int32, shape (n,).
        statistics: Numbers about the mining.
        uncovered_image, uncovered_level, uncovered_box: For pictures, proposals of up to 1000
            images that no positive chip covers: int32 (m,), int8 (m,), float32 (m, 4).
        origin: What the pool was mined from. Defaults to ''.
        options: Arguments of :func:`plan_negative_chips`, by which every epoch finds chips anew.
            Defaults to None, an epoch's chips are of ``chips``.
        proposal_image, proposal_box: With options, what they are found from, ascending by image:
            int32 (k,), float32 (k, 4). Default to none.
    """

    pyramid: ScalePyramid
    img_path: NDArray[np.str_]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    chips: ChipPlan
    proposals_per_chip: NDArray[np.int32]
    statistics: NegativeStatistics
    uncovered_image: NDArray[np.int32]
    uncovered_level: NDArray[np.int8]
    uncovered_box: NDArray[np.float32]
    origin: str = ''
    options: Mapping[str, Any] | None = None
    proposal_image: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    proposal_box: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> NegativeChipPool:
        """Read a pool.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is cut short, or is not a pool; it says which.
        """
        arrays = _read(path)
        try:
            _check_arrays(arrays)
            pool = cls._from_arrays(arrays)
            _check_boxes(pool, 'chip', *(arrays[name] for name in _CHIPS))
            _check_boxes(pool, 'proposal', *(arrays[name] for name in _UNCOVERED))
            image, box = (arrays[name] for name in _PROPOSALS)
            _check_boxes(pool, 'proposal', image, np.zeros_like(image), box)
            _check_options(pool)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(
                f'{path} is not a pool of negative chips of format {FORMAT}: {error}. '
                f'tools/analysis_tools/mine_negatives.py makes one'
            ) from error
        return pool

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray]) -> NegativeChipPool:
        statistics = json.loads(str(arrays['statistics']))
        statistics['chips_per_level'] = tuple(statistics['chips_per_level'])
        return cls(
            pyramid=ScalePyramid.from_config(json.loads(str(arrays['pyramid']))),
            origin=str(arrays['origin']),
            statistics=NegativeStatistics(**statistics),
            chips=ChipPlan.of_kind(NEGATIVE, *(arrays[name] for name in _CHIPS)),
            proposals_per_chip=arrays['held'],
            options=json.loads(str(arrays['options'])),
            **{
                name: arrays[name]
                for name in ('img_path', 'width', 'height', *_UNCOVERED, *_PROPOSALS)
            },
        )

    @classmethod
    def joined(cls, pools: Sequence[NegativeChipPool]) -> NegativeChipPool:
        """The pools of several parts of a data set, at least one, as one.

        They have no image in common, and the same pyramid and origin.
        """
        first = np.cumsum([0, *(len(pool.img_path) for pool in pools)])[:-1].astype(np.int32)
        pools = [
            replace(
                pool,
                chips=replace(pool.chips, image=pool.chips.image + at),
                uncovered_image=pool.uncovered_image + at,
                proposal_image=pool.proposal_image + at,
            )
            for pool, at in zip(pools, first)
        ]
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(pool, name) for pool in pools])
            for name, value in vars(pools[0]).items()
            if isinstance(value, np.ndarray)
        }
        return replace(
            pools[0],
            chips=ChipPlan.joined([pool.chips for pool in pools]),
            statistics=reduce(add, (pool.statistics for pool in pools)),
            **arrays,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the pool; the file appears when it is whole, and holds no pickled objects."""
        content = {
            **vars(self),
            **vars(self.chips),
            'held': self.proposals_per_chip,
            'format': FORMAT,
            'options': json.dumps(self.options),
            'pyramid': json.dumps(describe(self.pyramid)),
            'statistics': json.dumps(asdict(self.statistics)),
        }
        arrays: dict[str, Any] = {
            name: np.asarray(content[name], type_) for name, (type_, _) in _ARRAYS.items()
        }
        with replacing(path) as temporary, open(temporary, 'wb') as file:
            np.savez_compressed(file, **arrays)

    def uncovered_in(self, img_path: str, level: int, box: ArrayLike) -> NDArray[np.float32]:
        """Uncovered proposals in a chip, as far as the pool has kept them.

        Args:
            img_path (str): File of the image, as it was when the pool was mined.
            level (int): Level of the chip.
            box (ArrayLike): Window of the chip (4,), xyxy, original pixels.

        Returns:
            NDArray[np.float32]: Boxes (n, 4), xyxy, original pixels, that lie whole in the chip.
        """
        here = np.isin(self.uncovered_image, np.flatnonzero(self.img_path == img_path))
        boxes = self.uncovered_box[here & (self.uncovered_level == level)]
        x1, y1, x2, y2 = np.asarray(box, np.float64)
        low, high = (x1 - _SLIP, y1 - _SLIP), (x2 + _SLIP, y2 + _SLIP)
        return boxes[((boxes[:, :2] >= low) & (boxes[:, 2:] <= high)).all(axis=1)]

    def check_pyramid(self, pyramid: ScalePyramid, name: str = 'the pool') -> None:
        """Check that the chips belong to a pyramid; what is for test time only may differ.

        Args:
            pyramid (ScalePyramid): The pyramid to train with.
            name (str): Name of the pool in the error, such as its file. Defaults to 'the pool'.

        Raises:
            ValueError: If they do not; it says what differs.
        """
        theirs, mine = describe(self.pyramid), describe(pyramid)
        for key in mine:
            if theirs[key] != mine[key]:
                raise ValueError(
                    f'{name} belongs to another pyramid: its {key} is {theirs[key]}, that of this '
                    f'config {mine[key]}. Mine the negative chips again with this config'
                )

    def chips_for(
        self, img_path: Sequence[str], width: ArrayLike, height: ArrayLike, name: str = 'the pool'
    ) -> ChipPlan:
        """The pool's chips for the images of a data set.

        Images are matched by the end of their paths, as much as tells them apart but at least the
        folder's name and their own, so that the data may have moved.

        Args:
            img_path (Sequence[str]): File of each image; a file may occur several times.
            width, height (ArrayLike): Of the images, in original pixels.
            name (str): As in :meth:`check_pyramid`. Defaults to 'the pool'.

        Returns:
            ChipPlan: Chips, ascending by image, whose ``image`` indexes ``img_path``.

        Raises:
            ValueError: If an image is not in the pool, or has another size there.
        """
        index = self._index(img_path, width, height, name)
        image, chip = _rows(self.chips.image, index)
        return replace(self.chips.take(chip), image=image.astype(np.int32))

    def planner_for(
        self, img_path: Sequence[str], width: ArrayLike, height: ArrayLike, name: str = 'the pool'
    ) -> NegativeChipPlanner:
        """What plans the negative chips of a data set's epochs, with arguments and errors as above.

        Raises:
            ValueError: If an image is not in the pool, or has another size there.
        """
        chips = self.chips_for(img_path, width, height, name)
        if self.options is None:
            return NegativeChipPlanner(self.pyramid, chips)
        index = self._index(img_path, width, height, name)
        image, row = _rows(self.proposal_image, index)
        offset = np.searchsorted(image, np.arange(len(index) + 1))
        boxes = self.proposal_box[row]
        ignore = np.zeros(len(boxes), bool)
        proposals = AnnotationTable.from_arrays(width, height, offset, boxes, ignore)
        return NegativeChipPlanner(self.pyramid, chips, proposals, self.options)

    def _index(
        self, img_path: Sequence[str], width: ArrayLike, height: ArrayLike, name: str
    ) -> NDArray[np.int64]:
        """Which image of the pool each image of a data set is."""
        index = _match(img_path, self.img_path.tolist(), name)
        wh = np.stack([width, height], axis=1)
        mined_wh = np.stack([self.width, self.height], axis=1)[index]
        wrong = np.flatnonzero((wh != mined_wh).any(axis=1))
        if len(wrong):
            i = wrong[0]
            raise ValueError(
                f'{name} belongs to other images: {img_path[i]} is '
                f'{wh[i, 0]}x{wh[i, 1]} px here and {mined_wh[i, 0]}x{mined_wh[i, 1]} px there. '
                f'Mine the negative chips of this data set'
            )
        return index


def _rows(image: NDArray, index: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """For each of some images its rows of a column that ascends; positions in ``index``, rows."""
    return expand(*(np.searchsorted(image, index, side) for side in ('left', 'right')))


def shown_images(images: int) -> NDArray[np.bool_]:
    """Which of so many images keep their uncovered proposals for pictures: up to 1000, spread."""
    shown = np.zeros(images, bool)
    shown[spread(images, _SHOWN)] = True
    return shown


def describe(pyramid: ScalePyramid) -> dict[str, Any]:
    """A pyramid as a config without what is for test time only."""
    levels = []
    for level in pyramid.levels:
        resize = {key: float(v) for key, v in vars(level.resize).items() if v is not None}
        lo, hi = level.valid_range
        levels.append({'resize': resize, 'valid_range': [lo, hi if math.isfinite(hi) else None]})
    return dict(
        chip_size=int(pyramid.chip_size), levels=levels, adopt_orphans=pyramid.adopt_orphans
    )


def _read(path: str | os.PathLike) -> dict[str, NDArray]:
    """Those arrays of a file that a pool has."""
    try:
        with open(path, 'rb') as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise ValueError('it is a single array')
            return {name: content[name] for name in _ARRAYS if name in content}
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no pool of negative chips {path}') from None
    except (PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged files
        raise ValueError(
            f'{path} is not a whole .npz file, it may have been cut short or be of another kind '
            f'({error}): mine the negative chips again'
        ) from error


def _check_arrays(arrays: Mapping[str, NDArray]) -> None:
    """Check that all arrays are there and fit together, images occur once, chips in their order."""
    format_ = arrays['format'].tolist() if 'format' in arrays else FORMAT
    if format_ != FORMAT:
        raise ValueError(f'it is of format {format_}')
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f'it has no {", ".join(missing)}')
    number: dict[str | int, int] = {4: 4}
    for name, (type_, shape) in _ARRAYS.items():
        array = arrays[name]
        if not issubclass(array.dtype.type, type_):
            raise ValueError(f'{name} holds {array.dtype}, not {type_.__name__}')
        expected = tuple(number.setdefault(n, here) for n, here in zip(shape, array.shape))
        if array.ndim != len(shape) or array.shape != expected:
            wanted = tuple(number.get(n, n) for n in shape)
            raise ValueError(f'{name} has the shape {array.shape}, expected {wanted}')
    if len(np.unique(arrays['img_path'])) < number['images']:
        raise ValueError('it has an image twice')
    if (arrays['width'] < 1).any() or (arrays['height'] < 1).any():
        raise ValueError('it has an image without a size')
    for name, what in (('image', 'chips'), ('proposal_image', 'proposals')):
        if (np.diff(arrays[name]) < 0).any():
            raise ValueError(f'its {what} are not in the order of its images')


def _check_boxes(
    pool: NegativeChipPool, what: str, image: NDArray, level: NDArray, box: NDArray
) -> None:
    """Check that chips, or proposals, are of the pool's images and levels."""
    for name, index, count in (
        ('image', image, len(pool.img_path)),
        ('level', level, pool.pyramid.num_levels),
    ):
        wrong = index[(index < 0) | (index >= count)]
        if len(wrong):
            raise ValueError(f'it has a {what} of {name} {wrong[0]}, of {count} {name}s')
    wh = np.stack([pool.width, pool.height], axis=1)[image]
    inside = (box[:, :2] >= 0) & (box[:, :2] < box[:, 2:]) & (box[:, 2:] <= wh + _SLIP)
    wrong = np.flatnonzero(~inside.all(axis=1))  # NaN is not inside either
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f'it has a {what} at {box[i].tolist()}, outside {pool.img_path[image[i]]} of '
            f'{wh[i, 0]}x{wh[i, 1]} px'
        )


def _check_options(pool: NegativeChipPool) -> None:
    """Check that an epoch's chips can be found, by planning for no image."""
    if not isinstance(pool.options, (dict, type(None))):
        raise ValueError(f'its options are {pool.options!r}, no dict')
    nothing = AnnotationTable.from_images([])
    plan_negative_chips(nothing, ChipPlan.empty(), pool.pyramid, **(pool.options or {}))


def _match(paths: Sequence[str], pool: Sequence[str], name: str) -> NDArray[np.int64]:
    """Position in ``pool`` of the file that each path means."""
    index = match_files(paths, pool)
    missing = {path for path, i in zip(paths, index.tolist()) if i < 0}
    if missing:
        raise ValueError(
            f'{name} belongs to other images: {len(missing)} of the {len(set(paths))} images of '
            f'this data set are not among the {len(pool)} that were mined, such as '
            f'{min(missing)}. Mine the negative chips of this data set'
        )
    # Data sets that number their images alike, and videos, have the same file names.
    for path, i in dict(zip(paths, index.tolist())).items():
        here, there = PurePath(path).parent.name, PurePath(pool[i]).parent.name
        if here and there and here != there:
            raise ValueError(
                f'{name} belongs to other images: this data set has {path}, mined was {pool[i]}. '
                f'Mine the negative chips of this data set, or, if these are the same images in a '
                f'folder that was renamed, give it its name back'
            )
    return index
