"""The scale pyramid: which resolution an image is seen at, and which objects count there."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.utils.checks import check_box_shape

TOLERANCE = 1e-9
"""A box may exceed a chip by this, relatively: without it the rounding of chip_size / width * width
would keep some boxes as wide as their image from fitting at a level made to hold the image."""
# Levels whose scales differ by less than this (relative) show an image at the same resolution.
# Rounding a chip's window to whole pixels changes its scale by 2 * scale / chip_size, 1.2% at the
# paper's finest level.
_SAME_SCALE = 0.02


@dataclass(frozen=True)
class ResizeRule:
    """How a level turns an image's width and height into a scale factor.

    By one of three forms (SNIPER section 3 and the authors' release): ``factor``; ``long_side``; or
    both sides, as in MMDetection's ``Resize(scale=..., keep_ratio=True)``.

    Args:
        factor (float | None): Scaled pixels per original pixel. Defaults to None.
        short_side (float | None): Length of the shorter side, scaled pixels. Defaults to None.
        long_side (float | None): Length of the longer side, or its limit if ``short_side`` is
            given. Defaults to None.

    Raises:
        ValueError: If the fields form none of the three rules or are not positive numbers.
    """

    factor: float | None = None
    short_side: float | None = None
    long_side: float | None = None

    def __post_init__(self) -> None:
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None}
        if given not in ({'factor'}, {'long_side'}, {'short_side', 'long_side'}):
            raise ValueError(
                f'a resize rule has either factor, or long_side, or short_side and long_side; '
                f'got {sorted(given) or "none of them"}'
            )
        for name in given:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise ValueError(f'resize rule: {name} must be a number, got {value!r}')
            if not 0 < value <= sys.float_info.max:  # not NaN, and no integer beyond floats
                raise ValueError(f'resize rule: {name} must be positive and finite, got {value!r}')
        short, long = self.short_side, self.long_side
        if short is not None and long is not None and short > long:
            raise ValueError(
                f'resize rule: short_side {short} exceeds long_side {long}; did you swap them?'
            )

    def scale(self, width: ArrayLike, height: ArrayLike) -> NDArray[np.float64]:
        """Scaled px per original px for images of the given widths and heights, of any shape."""
        width, height = np.asarray(width, np.float64), np.asarray(height, np.float64)
        if self.factor is not None:
            return np.full(np.broadcast(width, height).shape, float(self.factor))
        by_long = self.long_side / np.maximum(width, height)
        if self.short_side is None:
            return by_long
        return np.minimum(self.short_side / np.minimum(width, height), by_long)

    def finer_than(self, other: ResizeRule) -> bool | None:
        """Whether this rule never gives a smaller scale than ``other``; None if not comparable."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        if any((a is None) != (b is None) for a, b in pairs):
            return None
        return self != other and all(a >= b for a, b in pairs if a is not None)


Range = tuple[float, float]
_AS_IN_TRAINING: Any = None  # replaced when a level is made: its users read rules and ranges


def _as_range(value: Any, name: str) -> Range:
    try:
        lo, hi = value
        lo, hi = float(lo), math.inf if hi is None else float(hi)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f'{name} must be a pair (lo, hi) of numbers in original pixels, with hi=None for '
            f'no upper bound; got {value!r}'
        ) from None
    if not 0 <= lo < hi:
        raise ValueError(f'{name} [{lo:g}, {hi:g}) is empty or negative; it needs 0 <= lo < hi')
    return lo, hi


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Args:
        resize (ResizeRule): Rule for the training scale.
        valid_range (Range): Objects learned at this level: ``[lo, hi)`` of sqrt(box area), original
            pixels. ``hi=None`` means unbounded.
        test_resize (ResizeRule | None): The rule at test time. Defaults to ``resize``.
        test_range (Range | None): Detections kept at test time. Defaults to ``valid_range``.

    Raises:
        ValueError: If a range is empty or a rule is malformed.
    """

    resize: ResizeRule
    valid_range: Range
    test_resize: ResizeRule = _AS_IN_TRAINING
    test_range: Range = _AS_IN_TRAINING

    def __post_init__(self) -> None:
        for name, at_test in (('resize', 'test_resize'), ('valid_range', 'test_range')):
            if getattr(self, at_test) is None:
                object.__setattr__(self, at_test, getattr(self, name))
        for name in ('resize', 'test_resize'):
            object.__setattr__(self, name, _build(ResizeRule, getattr(self, name), name))
        for name in ('valid_range', 'test_range'):
            object.__setattr__(self, name, _as_range(getattr(self, name), name))


class Difference(NamedTuple):
    """A value in which two pyramids differ."""

    name: str
    mine: Any
    theirs: Any


@dataclass(frozen=True)
class ScalePyramid:
    """Chip size and levels, ordered from fine to coarse (SNIPER section 3, SNIP section 5).

    Args:
        chip_size (int): Side of a chip in scaled pixels.
        levels (tuple[Level, ...]): The levels, finest first.
        adopt_orphans (bool): Whether a box that fits into a chip at no level where it is valid
            (long thin objects) is valid at the finest level where it fits. Defaults to False, as in
            the paper.

    Raises:
        ValueError: If a value is malformed or the levels are not ordered from fine to coarse.
    """

    chip_size: int
    levels: tuple[Level, ...]
    adopt_orphans: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.chip_size, bool) or not isinstance(self.chip_size, (int, np.integer)):
            raise ValueError(f'chip_size must be an integer, got {self.chip_size!r}')
        if self.chip_size <= 0:
            raise ValueError(f'chip_size must be positive, got {self.chip_size}')
        if self.chip_size >= 2**31:
            raise ValueError(f'chip_size is {self.chip_size} px, more than any image has')
        if isinstance(self.levels, (str, Mapping)) or not isinstance(self.levels, Sequence):
            raise ValueError(f'levels must be a list of levels, got {self.levels!r}')
        if not self.levels:
            raise ValueError('a pyramid needs at least one level')
        if not isinstance(self.adopt_orphans, bool):
            raise ValueError(f'adopt_orphans must be True or False, got {self.adopt_orphans!r}')
        levels = []
        for i, level in enumerate(self.levels):
            try:
                levels.append(_build(Level, level, 'level'))
            except ValueError as error:
                raise ValueError(f'pyramid level {i}: {error}') from None
        object.__setattr__(self, 'levels', tuple(levels))
        for i, (fine, coarse) in enumerate(zip(self.levels, self.levels[1:])):
            _check_order(i, fine, coarse)

    @classmethod
    def from_config(cls, config: ScalePyramid | Mapping[str, Any]) -> ScalePyramid:
        """Build from a config's ``pyramid`` dict; a built pyramid is returned as it is.

        Example:
            >>> pyramid = ScalePyramid.from_config(dict(chip_size=512, levels=[
            ...     dict(resize=dict(factor=3.0), valid_range=(0, 80)),
            ...     dict(resize=dict(long_side=512), valid_range=(60, None))]))
            >>> pyramid.scales(1024, 768)
            array([3. , 0.5])
        """
        return _build(cls, config, 'pyramid')

    def differences(self, other: ScalePyramid) -> list[Difference]:
        """Values in which the pyramids differ, such as ``('chip_size', 64, 96)``."""
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        if len(self.levels) == len(other.levels):
            pairs = [pair for pair in pairs if pair[0] != 'levels']
            for i, (mine, theirs) in enumerate(zip(self.levels, other.levels)):
                pairs += [
                    (f'levels[{i}].{f.name}', getattr(mine, f.name), getattr(theirs, f.name))
                    for f in fields(mine)
                ]
        return [Difference(name, a, b) for name, a, b in pairs if a != b]

    @property
    def num_levels(self) -> int:
        return len(self.levels)

    def scales(
        self, width: ArrayLike, height: ArrayLike, *, test: bool = False
    ) -> NDArray[np.float64]:
        """:meth:`ResizeRule.scale` of every level.

        Args:
            width, height (ArrayLike): Original pixels, shape (...).
            test (bool): Use the test rules. Defaults to False.

        Returns:
            NDArray[np.float64]: Scale factors, shape (..., num_levels), fine to coarse.
        """
        rules = [lv.test_resize if test else lv.resize for lv in self.levels]
        return np.stack([rule.scale(width, height) for rule in rules], axis=-1)

    def ranges(self, *, test: bool = False) -> NDArray[np.float64]:
        """Valid ranges, shape (num_levels, 2), in original pixels."""
        return np.array([lv.test_range if test else lv.valid_range for lv in self.levels])

    def levels_at(
        self, scale: float, image_wh: tuple[float, float], *, test: bool = False
    ) -> tuple[int, ...]:
        """The level nearest in log scale, and all that show the image at the same resolution.

        A 512x512 image has the same scale under ``factor=1`` and ``long_side=512``.

        Args:
            scale (float): Pixels of the network's input per original pixel.
            image_wh (tuple[float, float]): Width and height of the whole image, original pixels.
            test (bool): Use the test rules. Defaults to False.

        Returns:
            tuple[int, ...]: Level indices, at least one.
        """
        scales = np.log(self.scales(*image_wh, test=test))
        nearest = scales[np.argmin(np.abs(scales - math.log(scale)))]
        return tuple(np.flatnonzero(np.abs(scales - nearest) < _SAME_SCALE).tolist())

    def in_range(
        self, sizes: ArrayLike, levels: int | Sequence[int], *, test: bool = False
    ) -> NDArray[np.bool_]:
        """Whether sizes are in the valid range of any of ``levels``.

        Args:
            sizes (ArrayLike): Sqrt of area, original pixels, shape (n,).
            levels (int | Sequence[int]): A level index, or several.
            test (bool): Use the test ranges. Defaults to False.

        Returns:
            NDArray[np.bool_]: Shape (n,).
        """
        sizes = np.asarray(sizes)
        lo, hi = self.ranges(test=test)[np.atleast_1d(levels)].T
        return ((sizes[..., None] >= lo) & (sizes[..., None] < hi)).any(axis=-1)

    def valid_and_fits(
        self,
        boxes: NDArray[np.floating],
        width: ArrayLike,
        height: ArrayLike,
        sizes: NDArray[np.floating] | None = None,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """At which levels each box is valid, and at which it fits into a chip.

        Args:
            boxes (NDArray[np.floating]): Shape (n, 4), xyxy, original pixels.
            width, height (ArrayLike): Of the images, original pixels, scalars or shape (n,).
            sizes (NDArray[np.floating] | None): Sizes, shape (n,), where they are not those of the
                boxes: of rotated boxes, which ``boxes`` enclose. Defaults to None.

        Returns:
            tuple[NDArray[np.bool_], NDArray[np.bool_]]: Masks, shape (n, num_levels). A box is
            valid where its size is in range, or where ``adopt_orphans`` makes it.

        Raises:
            ValueError: If boxes have another shape, such as that of rotated boxes.
        """
        boxes = as_boxes(boxes)
        wh = boxes[:, 2:] - boxes[:, :2]
        scales = self.scales(*(np.broadcast_to(side, len(boxes)) for side in (width, height)))
        size = np.asarray(box_sizes(boxes) if sizes is None else sizes)[:, None]
        lo, hi = self.ranges().T
        valid = (size >= lo) & (size < hi)
        fits = wh.max(axis=1, initial=0)[:, None] * scales <= self.chip_size * (1 + TOLERANCE)
        if self.adopt_orphans:
            orphan = fits.any(axis=1) & ~(valid & fits).any(axis=1)
            valid[orphan, fits[orphan].argmax(axis=1)] = True
        return valid, fits


def as_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    """Boxes (n, 4), xyxy, as an array; of none, the shape does not matter.

    Raises:
        ValueError: If they have another shape, such as that of rotated boxes.
    """
    array: NDArray[np.float64] = np.asarray(boxes, np.float64)
    if array.shape == (0,):  # an empty list
        array = array.reshape(0, 4)
    check_box_shape(array.shape)
    return array


def box_sizes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sizes, sqrt of width times height, of boxes (n, 4), xyxy; 0 of what is no box."""
    boxes = as_boxes(boxes)
    return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def _build(cls: type, config: Any, what: str) -> Any:
    """An instance from a config's dict; one that is built is returned as it is."""
    if isinstance(config, cls):
        return config
    if not isinstance(config, Mapping):
        raise ValueError(f'{what} must be a dict, got {config!r}')
    known = [field.name for field in fields(cls)]
    unknown = sorted(map(str, set(config) - set(known)))
    if unknown:
        raise ValueError(f'{what} has unknown keys {unknown}; it may have {known}')
    try:
        return cls(**config)
    except TypeError as error:  # a required key is missing
        raise ValueError(f'{what}: {error}') from None


def _check_order(i: int, fine: Level, coarse: Level) -> None:
    for rule, range_ in (('resize', 'valid_range'), ('test_resize', 'test_range')):
        prefix = 'pyramid levels must be ordered from fine to coarse, but'
        a, b = getattr(fine, rule), getattr(coarse, rule)
        if a.finer_than(b) is False:
            raise ValueError(
                f'{prefix} {rule} of level {i} ({a}) is not finer than that of level {i + 1} ({b})'
            )
        (lo_a, hi_a), (lo_b, hi_b) = getattr(fine, range_), getattr(coarse, range_)
        if lo_a > lo_b or hi_a > hi_b:
            raise ValueError(
                f'{prefix} {range_} [{lo_a:g}, {hi_a:g}) of level {i} is for larger objects than '
                f'[{lo_b:g}, {hi_b:g}) of level {i + 1}'
            )
