"""A pyramid for a data set, from the sizes of its boxes, in original px unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.positive import plan_positive_chips
from mmsniper.chips.pyramid import TOLERANCE, Level, ResizeRule, ScalePyramid
from mmsniper.chips.rectangles import spread

GOOD_SIZE_RANGE = (1 / 8, 1 / 2)
"""Sizes that are seen well, over the side of a chip. The paper's middle level on COCO shows objects
of 53 to 250 px in chips of 512. Above a half, a chip hardly shows what is around the object."""

_MIN_CHIP = 128  # a dozen of them already have the pixels of a photograph
_MAX_CHIP = 512  # the paper's
_MULTIPLE = 32  # what networks shrink by
# Chips along an image's longer side at the finest level. Larger chips cost as much as whole images.
_CHIPS_ALONG = 3

# The smallest chips that are sought: the smallest that were trained here (docs/benchmarks.md).
_MIN_SOUGHT = 160
# A chip that is sought has at least so many times the side of the median object as shown: in the
# middle of the chip there is 1.5 times its width around it. Where sizes vary widely, smaller chips
# come below that, and show the objects smaller.
_SURROUNDINGS = 4
# What `_Rated.cost` is multiplied by for each halving of the chip's side, as borders cut more
# objects and less is seen around them; and what it may then be at most, over that of the larger
# chip. HIT-UAV has 0.80 with 160 px instead of 320, the toy scenes 0.83 with 224 instead of 512. No
# smaller chip has less than 0.95 on parts of coco_tiny, or than 1.05 on BCCD.
_SMALLER_CHIP, _CLEARLY_LESS = 1.5, 0.85

_MAX_FACTOR = 3.0  # the paper's; beyond it there is little left to see
# Network px that the smallest objects are enlarged to: two cells of stride 8, a typical finest
# feature map's. Enlarging more costs pixels and adds no information.
_VISIBLE = 16.0
# Network px that the smallest objects are not shrunk below, an eighth of the largest chip, as
# shrinking loses information. In smaller chips, a quarter of the chip, the middle of good sizes.
_AMPLE, _AMPLE_OF_CHIP = 64.0, 1 / 4

# Percentiles that the pyramid is made for. Every data set has a few mistakes: most are too small;
# one box that is too large, or too thin, costs a coarser level or many chips.
_SMALLEST, _LARGEST, _THINNEST, _LARGEST_IMAGE = 2.0, 99.5, 99.0, 98.0
_ENOUGH = 0.99  # fraction of the boxes at a good size; the rest has long thin boxes and mistakes

# Sizes of this ratio count at two neighbouring levels; the paper's have 2.5 and 1.25.
_OVERLAPS = (1.5, 2.0)
# What pixels are multiplied by for each further level, as each runs on the whole image at test
# time, and for the smaller overlap, as fewer objects are learned at two resolutions. The larger one
# costs coco_tiny 9% more pixels, and is taken; BCCD it would cost 66% and a level, and is not.
_LEVEL, _LESS_OVERLAP = 1.1, 1.2
_MIN_RATIO = 1.25  # levels whose scales are nearer than this show nearly the same: one will do

# An object is near an end of a range if its size differs by up to this factor: that of two squares
# with an IoU of 0.7, by which detections err.
_NEAR = 1.2
# What must be gained, as `_Needs.near` counts, to move an overlap by a factor of 2: it moves only
# to a clear valley of the sizes. 0.3 moves that of BCCD from 60..89 to 52..77 px, below its red
# cells, which is worth 0.04 AP (docs/benchmarks.md); coco_tiny has no valley, and nothing moves.
_MOVE = 0.3
_STEPS = 24  # places that are tried from one size to its double: 3% apart

# Pyramids are compared on so many boxes, 200 to 400 images of COCO, in some 10 ms each; of an image
# on as many as get a cover that is proven minimal, which takes seconds with thousands.
_SAMPLE_BOXES, _IMAGE_BOXES = 3000, 500


class SizeShares(NamedTuple):
    """Shares of the boxes by the size at which a pyramid shows them.

    A box counts once, in the first of these that is true at a level where it is valid and fits.

    Attributes:
        good: 1/8 to 1/2 of a chip, in network px.
        smaller: Less than that at the finest level, which enlarges as far as is of use.
        larger: More than that in a chip that shows the whole image.
    """

    good: float
    smaller: float
    larger: float

    @property
    def well(self) -> float:
        """All three: the share of the boxes that no further level would show better."""
        return self.good + self.smaller + self.larger


@dataclass(frozen=True)
class Suggestion:
    """A pyramid and what speaks for it.

    Attributes:
        pyramid: The pyramid.
        shares: Its :func:`size_shares`.
        smallest, largest: Sizes that it is made for, the 2nd and 99.5th percentile.
        notes: Sentences that a user should know.
    """

    pyramid: ScalePyramid
    shares: SizeShares
    smallest: float
    largest: float
    notes: tuple[str, ...]


def suggest_pyramid(table: AnnotationTable, chip_size: int | None = None) -> Suggestion:
    """Propose chip size, levels and valid ranges for a data set.

    1. *Finest level.* It enlarges the smallest objects (2nd percentile) to 16 network px, by 3 at
       most. Larger ones are not enlarged, and not shrunk below 64 px.
    2. *Chip size*, unless given. A third of the longer side of the median image at the finest
       level, or twice the median object if that is more; a multiple of 32 in 128..512. See 7.
    3. *Coarsest level.* The largest objects (99.5th percentile) are half a chip, or a chip holds
       the whole image.
    4. *Between them* as few levels as show each object at 1/8 to 1/2 of a chip (less where long
       thin objects would not fit) with neighbours' ranges overlapping by a factor of 1.5 or more.
       Scales are geometric; a level without boxes is left out. One level if 1. and 3. agree.
    5. *Overlaps* move to a valley of the distribution of sizes, if one is near: a level does not
       learn objects beyond its range, so what it reports of those just beyond an end is bad, and a
       small error in size puts it into the range.
    6. Of both kinds of coarsest level with overlaps of up to 2 and of 1.5: the pyramid with the
       fewest pixels among those that show 99% of the boxes well (or else the most), see
       :class:`SizeShares`. Pixels are counted on a sample of the images; a further level counts as
       a tenth more, less overlap as a fifth more.
    7. *Smaller chips*, unless the size is given, down to 160 px and to 4 times the median object as
       shown, where it is shown largest. They are taken if they have clearly fewer pixels for
       objects that are shown as large: pixels over the squared size, a geometric mean. A halving
       of the side counts as half as many pixels more, and 15% must be saved beyond that.

    The result depends on the table and on ``chip_size`` only.

    Args:
        table (AnnotationTable): Widths and heights of the images, and boxes.
        chip_size (int | None): Side of a chip, network px. Defaults to None, chosen as above.

    Returns:
        Suggestion: The pyramid, and what speaks for it.

    Raises:
        ValueError: If there are no boxes, or chips of that size are no chips.

    Example:
        >>> table = AnnotationTable.from_images([(4000, 3000, [[50, 50, 70, 70]], None)])
        >>> suggest_pyramid(table).pyramid.levels[0].resize
        ResizeRule(factor=1.0, short_side=None, long_side=None)
    """
    if chip_size is not None and (isinstance(chip_size, bool) or not chip_size >= _MULTIPLE):
        raise ValueError(
            f'chip_size must be at least {_MULTIPLE} px, the stride of common '
            f'networks; got {chip_size}'
        )
    if table.ignore.all():
        raise ValueError(
            f'there are no boxes to make a pyramid for: {len(table)} images, '
            f'{len(table.boxes)} boxes, all of them crowd or under 1 px'
        )
    needs, sample = _Needs.from_table(table, chip_size), _sample(table)
    first = best = _best(needs, table, sample)
    if chip_size is None:
        chip_size = _chip_size(needs, sample)
        if chip_size != needs.chip_size:
            best = _best(needs.for_chips(chip_size), table, sample)
    return Suggestion(
        best.pyramid, best.shares, needs.smallest, needs.largest, tuple(_notes(needs, best, first))
    )


def size_shares(table: AnnotationTable, pyramid: ScalePyramid) -> SizeShares:
    """Which shares of the boxes a pyramid shows at a good size, smaller and larger.

    Boxes to ignore do not count.
    """
    boxes, sizes, width, height = _boxes(table)
    valid, fits = pyramid.valid_and_fits(boxes, width, height, sizes)
    scales = pyramid.scales(width, height)
    shown = sizes[:, None] * scales / pyramid.chip_size
    whole = scales * np.maximum(width, height)[:, None] <= pyramid.chip_size * (1 + TOLERANCE)
    small, large = shown < GOOD_SIZE_RANGE[0], shown > GOOD_SIZE_RANGE[1]
    learned = valid & fits
    good = (learned & ~small & ~large).any(axis=1)
    smaller = (learned & small)[:, 0] & ~good
    larger = (learned & large & whole).any(axis=1) & ~good & ~smaller
    return SizeShares(*(float(mask.mean()) for mask in (good, smaller, larger)))


def network_sizes(table: AnnotationTable, pyramid: ScalePyramid) -> list[NDArray[np.float64]]:
    """For each level, sizes in network px at which it shows the boxes that are valid and fit."""
    boxes, sizes, width, height = _boxes(table)
    valid, fits = pyramid.valid_and_fits(boxes, width, height, sizes)
    shown = sizes[:, None] * pyramid.scales(width, height)
    return [shown[mask, level] for level, mask in enumerate((valid & fits).T)]


@dataclass(frozen=True)
class _Needs:
    """What a pyramid must do for a data set whose boxes have these ``sizes``, ascending."""

    smallest: float
    largest: float
    max_ratio: float  # largest object that a level shows, over chip_size
    image: float  # longer side of the large images, original px
    sizes: NDArray[np.float64]
    fine: float  # factor of the finest level
    chip_size: int

    @classmethod
    def from_table(cls, table: AnnotationTable, chip_size: int | None) -> _Needs:
        boxes, sizes, _, _ = _boxes(table)
        smallest, median, largest = np.percentile(sizes, [_SMALLEST, 50, _LARGEST]).tolist()
        # A half, or less, so that long thin boxes of the largest size fit.
        thinnest = np.percentile((boxes[:, 2:] - boxes[:, :2]).max(axis=1) / sizes, _THINNEST)
        max_ratio = float(np.clip(1 / thinnest, 2 * GOOD_SIZE_RANGE[0], GOOD_SIZE_RANGE[1]))
        images = np.maximum(table.width, table.height)[np.diff(table.offset) > 0]
        image = float(np.percentile(images, _LARGEST_IMAGE))
        if chip_size is None:
            fine = _finest(smallest, _MAX_CHIP)
            shown = float(np.median(images)) * fine
            side = max(shown / _CHIPS_ALONG, min(2 * median * fine, shown))
            side = math.ceil(side / _MULTIPLE) * _MULTIPLE
            chip_size = int(np.clip(side, _MIN_CHIP, _MAX_CHIP))
        else:
            fine = _finest(smallest, chip_size)
        return cls(smallest, largest, max_ratio, image, np.sort(sizes), fine, chip_size)

    def for_chips(self, chip_size: int) -> _Needs:
        """The same with chips of another size."""
        return replace(self, fine=_finest(self.smallest, chip_size), chip_size=chip_size)

    def scale(self, rule: ResizeRule) -> float:
        """Scale at which a rule shows large images."""
        return float(rule.scale(self.image, self.image))

    def near(self, lo: NDArray, hi: NDArray) -> NDArray[np.float64]:
        """Objects near ``lo``, as a fraction of those below ``hi``, plus objects near ``hi``, as a
        fraction of those above ``lo``: a small group of objects counts as much as a large one."""
        near_lo, near_hi = (
            np.searchsorted(self.sizes, end * _NEAR) - np.searchsorted(self.sizes, end / _NEAR)
            for end in (lo, hi)
        )
        below = np.searchsorted(self.sizes, hi)
        above = len(self.sizes) - np.searchsorted(self.sizes, lo)
        return near_lo / np.maximum(below, 1) + near_hi / np.maximum(above, 1)


@dataclass(frozen=True)
class _Rated:
    """A pyramid, what it shows, and what it costs."""

    pyramid: ScalePyramid
    shares: SizeShares
    pixels: float  # network px of all chips of the sample
    shown: NDArray[np.float64]  # network px of its objects, at the level that shows them largest

    @classmethod
    def of(cls, pyramid: ScalePyramid, table: AnnotationTable, sample: AnnotationTable) -> _Rated:
        pixels = len(plan_positive_chips(sample, pyramid)) * pyramid.chip_size**2
        return cls(pyramid, size_shares(table, pyramid), pixels, _largest_shown(sample, pyramid))

    @property
    def effort(self) -> float:
        """Pixels, where a further level counts as a tenth more."""
        return self.pixels * _LEVEL ** (self.pyramid.num_levels - 1)

    @property
    def size(self) -> float:
        """Network px at which objects are shown, the geometric mean; 0 if none is shown."""
        return float(np.exp(np.log(self.shown).mean())) if len(self.shown) else 0.0

    @property
    def cost(self) -> float:
        """Effort for objects of one network pixel.

        Without the division the smallest chips would always win: they save pixels by showing the
        objects smaller, which is not what chips are for.
        """
        return self.effort / self.size**2 if self.size else math.inf


def _best(needs: _Needs, table: AnnotationTable, sample: AnnotationTable) -> _Rated:
    """Of the pyramids with this chip size the one with the fewest pixels that shows enough well."""
    rated = [(_Rated.of(p, table, sample), weight) for p, weight in _candidates(needs, table)]
    enough = min(_ENOUGH, max(of.shares.well for of, _ in rated))
    return min(
        (entry for entry in rated if entry[0].shares.well >= enough),
        key=lambda entry: entry[0].effort * entry[1],
    )[0]


def _chip_size(needs: _Needs, sample: AnnotationTable) -> int:
    """The size of smaller chips if they are clearly better on a sample, else that of ``needs``."""
    first = _best(needs, sample, sample)
    best, least = needs.chip_size, _CLEARLY_LESS * first.cost
    enough = min(_ENOUGH, first.shares.well)
    for chip_size in range(needs.chip_size - _MULTIPLE, _MIN_SOUGHT - 1, -_MULTIPLE):
        rated = _best(needs.for_chips(chip_size), sample, sample)
        halvings = math.log2(needs.chip_size / chip_size)
        cost = rated.cost * _SMALLER_CHIP**halvings
        if (
            cost < least
            and rated.shares.well >= enough
            and chip_size >= _SURROUNDINGS * np.median(rated.shown)
        ):
            best, least = chip_size, cost
    return best


def _candidates(needs: _Needs, table: AnnotationTable) -> Iterator[tuple[ScalePyramid, float]]:
    """Pyramids, and what their pixels are multiplied by when they are compared."""
    # The whole image is in a chip, or the largest objects are at most half a chip.
    coarse = _rounded(needs.chip_size * needs.max_ratio / needs.largest, down=True)
    whole_image = ResizeRule(long_side=needs.chip_size)
    largest_objects = ResizeRule(factor=min(coarse, needs.fine))
    coarsest = []
    if needs.scale(whole_image) >= needs.fine / _MIN_RATIO:
        yield _pyramid(needs, [whole_image]), 1.0
    else:
        coarsest.append(whole_image)
    if coarse >= needs.fine / _MIN_RATIO:
        yield _pyramid(needs, [largest_objects]), 1.0
    elif coarse > needs.scale(whole_image):
        coarsest.insert(0, largest_objects)
    for rule in coarsest:
        for overlap in _OVERLAPS:
            weight = _LESS_OVERLAP if overlap < max(_OVERLAPS) else 1.0
            yield _ladder(needs, rule, overlap, table), weight


def _ladder(
    needs: _Needs, last: ResizeRule, overlap: float, table: AnnotationTable
) -> ScalePyramid:
    """The fewest levels from the finest to the given coarsest, less those without boxes.

    Levels are left out before overlaps are moved: one that is of no use could get a few boxes.
    """
    widest = needs.max_ratio / GOOD_SIZE_RANGE[0] / _OVERLAPS[0]
    zoom = needs.fine / needs.scale(last)
    steps = max(math.ceil(math.log(zoom) / math.log(widest) - 0.01), 1)  # 1% is no reason for one
    factors = [needs.fine, *(_rounded(needs.fine / zoom ** (i / steps)) for i in range(1, steps))]
    rules, moved = [*(ResizeRule(factor=factor) for factor in factors), last], False
    while True:
        pyramid = _pyramid(needs, rules, overlap, moved)
        shown = network_sizes(table, pyramid)
        used = [rule for i, rule in enumerate(rules) if i == 0 or len(shown[i])]
        if len(used) == len(rules) and moved:
            return pyramid
        rules, moved = used, len(used) == len(rules)


def _pyramid(
    needs: _Needs, rules: list[ResizeRule], overlap: float = 0.0, moved: bool = False
) -> ScalePyramid:
    """Ranges such that each level shows its objects at a good size."""
    scales = [needs.scale(rule) for rule in rules]
    overlaps = [_overlap(needs, *pair, overlap) for pair in zip(scales, scales[1:])]
    if moved:
        overlaps = list(_moved(needs, overlaps, scales))
    lows = [0, *(_rounded_end(lo, math.ceil) for lo, _ in overlaps)]
    highs = [*(_rounded_end(hi, math.floor) for _, hi in overlaps), math.inf]
    return ScalePyramid(
        needs.chip_size, tuple(Level(rule, (lo, hi)) for rule, lo, hi in zip(rules, lows, highs))
    )


def _overlap(needs: _Needs, fine: float, coarse: float, ratio: float) -> tuple[float, float]:
    """The sizes that two levels have in common, where they are best."""
    lo = GOOD_SIZE_RANGE[0] * needs.chip_size / coarse
    hi = needs.max_ratio * needs.chip_size / fine
    if hi < _OVERLAPS[0] * lo:  # scales were rounded, or a level between them had no boxes
        middle, half = math.sqrt(lo * hi), math.sqrt(_OVERLAPS[0])
        lo, hi = middle / half, middle * half
    return lo, min(hi, ratio * lo)


def _moved(
    needs: _Needs, overlaps: list[tuple[float, float]], scales: list[float]
) -> Iterator[tuple[float, float]]:
    """The overlaps, each moved to where few objects are near its ends.

    The smallest objects stay below it, and two overlaps do not change places.
    """
    gaps = [min(b / a for a, b in zip(*pair)) for pair in zip(overlaps, overlaps[1:])]
    for (lo, hi), fine, before, after in zip(
        overlaps, scales, [math.inf, *gaps], [*gaps, math.inf]
    ):
        max_hi = max(needs.max_ratio * needs.chip_size / fine, hi)
        down = min(math.sqrt(before), max(lo / needs.smallest, 1))
        up = min(max_hi / hi, math.sqrt(after))
        first, last = (math.floor(_STEPS * math.log2(by) + 1e-9) for by in (down, up))
        octaves = np.arange(-first, last + 1) / _STEPS
        near = needs.near(lo * 2**octaves, hi * 2**octaves)
        move = 2 ** float(octaves[np.argmin(near + _MOVE * np.abs(octaves))])
        yield lo * move, hi * move


def _finest(smallest: float, chip_size: int) -> float:
    """Factor of the finest level, by the size of the smallest objects."""
    if smallest < _VISIBLE:
        return _rounded(min(_VISIBLE / smallest, _MAX_FACTOR))
    ample = min(_AMPLE, _AMPLE_OF_CHIP * chip_size)
    return _rounded(min(ample / smallest, 1.0))


def _rounded_end(end: float, to_whole: Callable[[float], int]) -> float:
    """To a whole number, below 10 to tenths."""
    step = 1 if end >= 10 else 0.1
    return round(to_whole(end / step) * step, 1)


def _rounded(value: float, down: bool = False) -> float:
    """To two meaningful digits."""
    digits = 1 - math.floor(math.log10(value))
    units = value * 10.0**digits
    return round((math.floor(units + 1e-9) if down else round(units)) / 10.0**digits, digits)


def _notes(needs: _Needs, best: _Rated, first: _Rated) -> Iterator[str]:
    pyramid = best.pyramid
    if best is not first:
        yield (
            f'Smaller chips pay: those of {pyramid.chip_size} px have '
            f'{best.pixels / first.pixels:.2f} of the pixels of chips of '
            f'{first.pyramid.chip_size} px, and show the objects at {best.size:.0f} px where those '
            f'show them at {first.size:.0f} px (geometric mean). --chip-size sets another size.'
        )
    if pyramid.num_levels == 1:
        yield (
            'One level is enough: it shows the objects, of all sizes that occur, large enough '
            'and fits them into its chips.'
        )
    if needs.scale(pyramid.levels[0].resize) * needs.image <= pyramid.chip_size * (1 + TOLERANCE):
        yield (
            'A chip holds the whole image at every level: this is training on whole images of '
            'that size.'
        )
    if needs.smallest * _MAX_FACTOR < _VISIBLE:
        yield (
            f'The smallest objects ({needs.smallest:.3g} px) stay under {_VISIBLE:g} px even '
            f'enlarged by {_MAX_FACTOR:g}, where enlarging stops.'
        )
    if best.shares.well < _ENOUGH:
        yield (
            f'Only {best.shares.well:.1%} of the boxes are shown well; another chip size may do '
            f'better, and adopt_orphans=True where long thin ones fit into no chip.'
        )


def _largest_shown(table: AnnotationTable, pyramid: ScalePyramid) -> NDArray[np.float64]:
    """Network px of the boxes that are learned, at the level that shows them largest."""
    boxes, sizes, width, height = _boxes(table)
    valid, fits = pyramid.valid_and_fits(boxes, width, height, sizes)
    shown = sizes[:, None] * pyramid.scales(width, height)
    largest = shown.max(axis=1, where=valid & fits, initial=0)
    return largest[largest > 0]


def _boxes(table: AnnotationTable) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Boxes that are not to be ignored, their sizes, and their images' widths and heights."""
    boxes = table.boxes[~table.ignore].astype(np.float64)
    image = table.image[~table.ignore]
    return boxes, table.sizes_of(~table.ignore), table.width[image], table.height[image]


def _sample(table: AnnotationTable) -> AnnotationTable:
    """Images spread over the data set; of crowded ones a strip at the left edge."""
    counts = np.minimum(np.diff(table.offset), _IMAGE_BOXES)
    images = np.flatnonzero(counts)
    images = images[spread(len(images), max(int(_SAMPLE_BOXES / counts[images].mean()), 1))]
    index = np.concatenate(
        [
            first + np.argsort(table.boxes[first:last, 0], kind='stable')[:_IMAGE_BOXES]
            for first, last in zip(table.offset[images], table.offset[images + 1])
        ]
    )
    return AnnotationTable.from_arrays(
        table.width[images],
        table.height[images],
        np.cumsum([0, *counts[images]]),
        table.boxes[index],
        table.ignore[index],
        None if table.corners is None else table.corners[index],
    )
