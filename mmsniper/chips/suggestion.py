"""A pyramid for a data set, from the sizes of its boxes and images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.plan import AnnotationTable
from mmsniper.chips.positive import plan_positive_chips
from mmsniper.chips.pyramid import TOLERANCE, Level, ResizeRule, ScalePyramid

GOOD = (1 / 8, 1 / 2)
"""Sizes that are seen well, over the side of a chip. The paper's middle level on COCO shows objects
of 53 to 250 px in chips of 512. Above a half, a chip hardly shows what is around the object."""

MAX_CHIP = 512  # the paper's
MIN_CHIP = 128
_MULTIPLE = 32  # what networks shrink by
CHIPS_ALONG = 3
"""A chip is about this part of an image's longer side at the finest level: chips that show much
more cost as much as whole images do."""

MAX_FACTOR = 3.0  # the paper's; beyond it there is little left to see
VISIBLE = 16.0
"""Network px that the smallest objects are enlarged to, two cells of a typical finest feature map
with stride 8. Enlarging is paid for in pixels, and adds no information."""
AMPLE = 64.0
"""Network px that the smallest objects are not shrunk below (a quarter of a chip, if that is less).
Shrinking loses information."""
_AMPLE_OF_CHIP = 1 / 4
_SHRUNK = 32.0  # as AMPLE, where it saves all other levels

# Percentiles that the pyramid is made for: a few boxes of any data set are mistakes.
_SMALLEST, _LARGEST, _THINNEST = 2.0, 99.5, 99.0
ENOUGH = 0.99

# Sizes of this ratio count at two neighbouring levels (paper: 2.5 and 1.25).
OVERLAP = (1.5, 2.0)
_MIN_RATIO = 1.25  # of the scales of two levels
_NEAR = 1.2
"""Objects of up to this times as large as an end of a range, or as small, are near it. A level
ignores the objects beyond its range in training. Those near its end it reports at test time
nevertheless, badly, and with an error of this factor (two squares of IoU 0.7) in its range."""
_MOVE = 0.3
"""What must be gained, as `_Needs.near` counts, to move an overlap by a factor of 2. So it stays
where sizes are best, unless there is a clear valley of the distribution of sizes beside it."""
_FARTHEST = 2.0  # by which an overlap is moved down; upwards, objects must not get too large
_STEPS = 24  # places that are tried, from one size to its double

# By what pixels are multiplied for each level, as each is run on the whole image at test time, and
# for less overlap, as fewer objects are learned at two resolutions.
_LEVEL, _LESS_OVERLAP = 1.1, 1.2

# Boxes and images on which pyramids are compared, and boxes of an image.
_SAMPLE_BOXES, _SAMPLE_IMAGES, _IMAGE_BOXES = 3000, 200, 500


@dataclass(frozen=True)
class Suggestion:
    """A pyramid and what speaks for it.

    Attributes:
        pyramid: The pyramid.
        good: Fraction of the boxes that are learned at a good size, see :func:`good_sizes`.
        smallest, largest: Sizes (2nd and 99.5th percentile, original px) it is made for.
        notes: What a user should know: sentences.
    """

    pyramid: ScalePyramid
    good: float
    smallest: float
    largest: float
    notes: tuple[str, ...]


def suggest_pyramid(table: AnnotationTable, chip_size: int | None = None) -> Suggestion:
    """Propose chip size, levels and valid ranges for a data set.

    1. *Finest level.* A factor that enlarges the smallest objects (2nd percentile of sqrt(area))
       to 16 network px, by 3 at most. Objects that are larger than that are not enlarged, and
       not shrunk below 64 px.
    2. *Chip size*, unless given. A third of the longer side of the median image at the finest
       level, twice the median object if that is more; a multiple of 32 in 128..512.
    3. *Coarsest level.* Either a factor at which the largest objects (99.5th percentile) are half
       a chip, or ``long_side=chip_size``: the whole image in a chip, which any
       object fits into, whatever the image's size.
    4. *Between them* as few levels as let each show its objects at 1/8 to 1/2 of a chip while
       neighbours' ranges overlap by a factor of at least 1.5 (to less than 1/2 where objects are
       so long and thin that they would not fit). Scales are geometric, an object
       counts at the coarser level as soon as it is large enough there, and a level with no boxes
       is left out. If 1. and 3. nearly agree, one level is enough; so it is if 3. alone shows the
       smallest objects at 1/8 of a chip and 32 px.
    5. *Overlaps* are moved to a valley of the distribution of sizes, where there is one within a
       factor of 2 and sizes stay good: few objects should be near an end of a range. A level does
       not learn the objects beyond its range; what it reports of those near its end at test time
       is bad, and an error in size puts it into the range.
    6. Of the pyramids of both kinds of coarsest level, with overlaps of up to 2 and of 1.5: those
       with at least 99% of the boxes at a good size (or else with the most), and of these the one
       with the fewest pixels, where a further level counts as a tenth more and less overlap as
       a fifth more. Pixels are counted by planning a sample of the images.

    The result depends on the table and on ``chip_size`` only.

    Args:
        table (AnnotationTable): Image sizes and boxes.
        chip_size (int | None): Side of a chip, network px. Defaults to chosen as above.

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
    if not (~table.ignore).any():
        raise ValueError(
            f'there are no boxes to make a pyramid for: {len(table)} images, '
            f'{len(table.boxes)} boxes, all of them crowd or under 1 px'
        )
    needs = _Needs.of(table, chip_size)
    sample = _sample(table)
    rated = [
        (good_sizes(table, pyramid), pyramid, burden)
        for pyramid, burden in _candidates(needs, table)
    ]
    least = min(ENOUGH, max(good for good, *_ in rated))
    good, pyramid, _ = min(
        (entry for entry in rated if entry[0] >= least),
        key=lambda entry: _pixels(sample, entry[1]) * entry[2],
    )
    return Suggestion(
        pyramid, good, needs.smallest, needs.largest, tuple(_notes(needs, pyramid, good))
    )


def good_sizes(table: AnnotationTable, pyramid: ScalePyramid) -> float:
    """Fraction of the boxes that some level where they are valid, and fit, shows at a good size.

    Good is 1/8 to 1/2 of a chip in network px. At the finest level no object is too small,
    as it is seen no larger anywhere; where a chip holds the whole image none is too large.

    Args:
        table (AnnotationTable): Image sizes and boxes; those to ignore do not count.
        pyramid (ScalePyramid): The scale pyramid.
    """
    boxes, width, height = _boxes(table)
    size, _ = _sizes(boxes)
    valid, fits = pyramid.valid_and_fits(boxes, width, height)
    scales = pyramid.scales(width, height)
    shown = size[:, None] * scales / pyramid.chip_size
    whole = scales * np.maximum(width, height)[:, None] <= pyramid.chip_size * (1 + TOLERANCE)
    large = shown >= GOOD[0]
    large[:, 0] = True
    good = valid & fits & large & ((shown <= GOOD[1]) | whole)
    return float(good.any(axis=1).mean())


def network_sizes(table: AnnotationTable, pyramid: ScalePyramid) -> list[NDArray[np.float64]]:
    """Sizes in network px at which each level shows the boxes that are valid and fit there.

    Returns:
        list[NDArray[np.float64]]: One array for each level, fine to coarse, in the order of the
        boxes.
    """
    boxes, width, height = _boxes(table)
    valid, fits = pyramid.valid_and_fits(boxes, width, height)
    shown = _sizes(boxes)[0][:, None] * pyramid.scales(width, height)
    return [shown[mask, level] for level, mask in enumerate((valid & fits).T)]


def pyramid_config(pyramid: ScalePyramid, comment: str = '') -> str:
    """A pyramid as a config file that others inherit.

    Test rules and ranges are written where they differ from those of training.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        comment (str): Lines to begin with.

    Returns:
        str: Python that mmengine's ``Config`` reads.
    """
    lines = [f'# {" ".join(line.split())}' for line in comment.splitlines()]
    lines += ['pyramid = dict(', f'    chip_size={int(pyramid.chip_size)},', '    levels=[']
    for level in pyramid.levels:
        entry = f'resize={_as_code(level.resize)}, valid_range={_as_code(level.valid_range)}'
        if level.test_resize != level.resize:
            entry += f', test_resize={_as_code(level.test_resize)}'
        if level.test_range != level.valid_range:
            entry += f', test_range={_as_code(level.test_range)}'
        lines.append(f'        dict({entry}),')
    lines.append('    ],')
    if pyramid.adopt_orphans:
        lines.append('    adopt_orphans=True,')
    return '\n'.join([*lines, ')', ''])


def describe_rule(rule: ResizeRule) -> str:
    """A resize rule in words: 'factor 2.3', 'long side 512'."""
    if rule.factor is not None:
        return f'factor {rule.factor:g}'
    if rule.short_side is None:
        return f'long side {rule.long_side:g}'
    return f'short side {rule.short_side:g}, long side up to {rule.long_side:g}'


@dataclass(frozen=True)
class _Needs:
    """What a pyramid must do for a data set.

    Attributes:
        smallest, largest: Sizes, original px.
        most: Largest size that a level shows, over the side of a chip: a half, or less so that long
            thin boxes of that size fit, too.
        image: Longer side of the large images, original px.
        fine: Factor of the finest level.
        chip_size: Side of a chip.
        sizes: Of all boxes, original px, in ascending order.
    """

    smallest: float
    largest: float
    most: float
    image: float
    fine: float
    chip_size: int
    sizes: NDArray[np.float64]

    @classmethod
    def of(cls, table: AnnotationTable, chip_size: int | None) -> _Needs:
        size, longer = _sizes(_boxes(table)[0])
        smallest, median, largest = np.percentile(size, [_SMALLEST, 50, _LARGEST]).tolist()
        most = float(np.clip(1 / np.percentile(longer / size, _THINNEST), 2 * GOOD[0], GOOD[1]))
        images = np.maximum(table.width, table.height)[np.diff(table.offset) > 0]
        fine = _rounded(_finest(smallest, chip_size or MAX_CHIP))
        chip_size = chip_size or _chip_size(fine, float(np.median(images)), median)
        return cls(
            smallest,
            largest,
            most,
            float(np.percentile(images, 98)),
            fine,
            chip_size,
            np.sort(size),
        )

    @property
    def whole(self) -> float:
        """Scale at which a chip shows a large image whole."""
        return self.chip_size / self.image

    @property
    def coarse(self) -> float:
        """Factor at which the largest objects are no larger than is good."""
        return _rounded(self.chip_size * self.most / self.largest, down=True)

    def near(self, lo: float | NDArray, hi: float | NDArray) -> NDArray[np.float64]:
        """How many objects are near the ends of the overlap from ``lo`` to ``hi``, original px.

        Of the objects below ``hi`` the fraction near ``lo``, and of those above ``lo`` the
        fraction near ``hi``, added: a small group of objects counts as much as a large one.
        """
        lo, hi = np.asarray(lo), np.asarray(hi)
        near_lo, near_hi = (
            self._number(end * _NEAR) - self._number(end / _NEAR) for end in (lo, hi)
        )
        below, above = self._number(hi), len(self.sizes) - self._number(lo)
        return near_lo / np.maximum(below, 1) + near_hi / np.maximum(above, 1)

    def _number(self, size: float | NDArray) -> NDArray[np.int64]:
        """Number of objects smaller than that."""
        return np.searchsorted(self.sizes, size)


def _finest(smallest: float, chip_size: int) -> float:
    if smallest < VISIBLE:
        return min(VISIBLE / smallest, MAX_FACTOR)
    return min(min(AMPLE, _AMPLE_OF_CHIP * chip_size) / smallest, 1.0)


def _chip_size(fine: float, image: float, median: float) -> int:
    side = max(image * fine / CHIPS_ALONG, min(2 * median * fine, image * fine))
    return int(np.clip(math.ceil(side / _MULTIPLE) * _MULTIPLE, MIN_CHIP, MAX_CHIP))


def _candidates(needs: _Needs, table: AnnotationTable) -> Iterator[tuple[ScalePyramid, float]]:
    """Pyramids, and by what their pixels are multiplied when they are compared."""
    fine, coarse, whole = needs.fine, needs.coarse, needs.whole
    whole_image = ResizeRule(long_side=needs.chip_size)
    least = max(_SHRUNK, GOOD[0] * needs.chip_size) / needs.smallest
    if whole >= fine / _MIN_RATIO:
        yield _pyramid(needs, [whole_image], [whole]), 1.0
    if coarse >= min(least, fine / _MIN_RATIO):
        yield _pyramid(needs, [ResizeRule(factor=min(fine, coarse))], [min(fine, coarse)]), 1.0
    elif coarse > whole:
        yield from _ladders(needs, ResizeRule(factor=coarse), coarse, table)
    if whole < fine / _MIN_RATIO:
        yield from _ladders(needs, whole_image, whole, table)


def _ladders(
    needs: _Needs, last: ResizeRule, scale: float, table: AnnotationTable
) -> Iterator[tuple[ScalePyramid, float]]:
    """The fewest levels from the finest to the given coarsest, less those without boxes."""
    widest = needs.most / GOOD[0] / OVERLAP[0]
    steps = max(math.ceil(math.log(needs.fine / scale) / math.log(widest) - 0.01), 1)
    ratio = (needs.fine / scale) ** (1 / steps)
    scales = [needs.fine, *(_rounded(needs.fine / ratio**i) for i in range(1, steps)), scale]
    rules = [*(ResizeRule(factor=s) for s in scales[:-1]), last]
    for overlap in OVERLAP:
        pyramid = _used(needs, rules, scales, overlap, table)
        yield (
            pyramid,
            (_LEVEL ** (pyramid.num_levels - 1) * (_LESS_OVERLAP if overlap < max(OVERLAP) else 1)),
        )


def _used(
    needs: _Needs,
    rules: list[ResizeRule],
    scales: list[float],
    overlap: float,
    table: AnnotationTable,
    sparse: bool = False,
) -> ScalePyramid:
    """The pyramid less the levels without boxes, except for the finest.

    They are left out before overlaps are moved: a level that is of no use could get a few boxes.
    """
    pyramid = _pyramid(needs, rules, scales, overlap, sparse)
    used = [i for i, shown in enumerate(network_sizes(table, pyramid)) if i == 0 or len(shown)]
    if sparse and len(used) == len(rules):
        return pyramid
    sparse = len(used) == len(rules)  # else overlaps are elsewhere without those levels
    return _used(needs, [rules[i] for i in used], [scales[i] for i in used], overlap, table, sparse)


def _pyramid(
    needs: _Needs,
    rules: list[ResizeRule],
    scales: list[float],
    overlap: float = OVERLAP[0],
    sparse: bool = False,
) -> ScalePyramid:
    """Ranges such that each level shows its objects at a good size."""
    links = [_link(needs, a, b, overlap) for a, b in zip(scales, scales[1:])]
    bounds = [_whole(*link) for link in (_sparse(needs, links, scales) if sparse else links)]
    lows, highs = [0, *(lo for lo, _ in bounds)], [*(hi for _, hi in bounds), None]
    return ScalePyramid(
        needs.chip_size, tuple(Level(rule, (lo, hi)) for rule, lo, hi in zip(rules, lows, highs))
    )


def _link(needs: _Needs, fine: float, coarse: float, overlap: float) -> tuple[float, float]:
    """The overlap of two levels where sizes are best."""
    lo, most = GOOD[0] * needs.chip_size / coarse, needs.most * needs.chip_size / fine
    if most < OVERLAP[0] * lo:  # scales were rounded, or a level between them had no boxes
        middle, half = math.sqrt(lo * most), math.sqrt(OVERLAP[0])
        lo, most = middle / half, middle * half
    return lo, min(most, overlap * lo)


def _sparse(
    needs: _Needs, links: list[tuple[float, float]], scales: list[float]
) -> Iterator[tuple[float, float]]:
    """The overlaps, each moved to where few objects are near its ends, original px.

    The smallest objects stay below it, and two overlaps do not change places.
    """
    gaps = [min(b / a for a, b in zip(*pair)) for pair in zip(links, links[1:])]
    for (lo, hi), fine, before, after in zip(links, scales, [math.inf, *gaps], [*gaps, math.inf]):
        most = max(needs.most * needs.chip_size / fine, hi)
        down = min(_FARTHEST, math.sqrt(before), max(lo / needs.smallest, 1))
        up = min(most / hi, math.sqrt(after))
        first, last = (math.floor(_STEPS * math.log2(by) + 1e-9) for by in (down, up))
        octaves = np.arange(-first, last + 1) / _STEPS
        near = needs.near(lo * 2**octaves, hi * 2**octaves)
        move = 2 ** float(octaves[np.argmin(near + _MOVE * np.abs(octaves))])
        yield lo * move, hi * move


def _whole(lo: float, hi: float) -> tuple[float, float]:
    """Rounded inwards, to tenths below 10."""
    step = 1 if lo >= 10 else 0.1
    return round(math.ceil(lo / step) * step, 1), round(math.floor(hi / step) * step, 1)


def _pixels(sample: AnnotationTable, pyramid: ScalePyramid) -> int:
    return len(plan_positive_chips(sample, pyramid)) * pyramid.chip_size**2


def _notes(needs: _Needs, pyramid: ScalePyramid, good: float) -> Iterator[str]:
    if pyramid.num_levels == 1:
        yield (
            'One level is enough: it shows the objects, of all sizes that occur, large enough '
            'and fits them into its chips.'
        )
    finest = float(pyramid.scales(needs.image, needs.image)[0])
    if finest * needs.image <= pyramid.chip_size * (1 + TOLERANCE):
        yield (
            'A chip holds the whole image at every level: this is training on whole images of '
            'that size.'
        )
    if needs.smallest * MAX_FACTOR < VISIBLE:
        yield (
            f'The smallest objects ({needs.smallest:.3g} px) stay under {VISIBLE:g} px even '
            f'enlarged by {MAX_FACTOR:g}, where enlarging stops.'
        )
    if good < ENOUGH:
        yield (
            f'Only {good:.1%} of the boxes are learned at a good size; another chip size may do '
            f'better, and adopt_orphans=True where long thin ones fit into no chip.'
        )


def _boxes(table: AnnotationTable) -> tuple[NDArray[np.float64], NDArray, NDArray]:
    """Boxes that are not to be ignored and the width and height of their images."""
    image = table.image[~table.ignore]
    return table.boxes[~table.ignore].astype(np.float64), table.width[image], table.height[image]


def _sizes(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size and longer side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.sqrt(sides.prod(axis=1)), sides.max(axis=1)


def _sample(table: AnnotationTable) -> AnnotationTable:
    """Images spread over the data set; of crowded ones a strip at the left edge."""
    counts = np.minimum(np.diff(table.offset), _IMAGE_BOXES)
    images = np.flatnonzero(counts)
    number = int(np.clip(_SAMPLE_BOXES / counts[images].mean(), 1, _SAMPLE_IMAGES))
    images = images[np.unique(np.linspace(0, len(images) - 1, number).astype(int))]
    index = []
    for first, last in zip(table.offset[images], table.offset[images + 1]):
        order = np.argsort(table.boxes[first:last, 0], kind='stable')
        index.append(first + order[:_IMAGE_BOXES])
    index = np.concatenate(index)
    return AnnotationTable.from_arrays(
        table.width[images],
        table.height[images],
        np.cumsum([0, *counts[images]]),
        table.boxes[index],
        table.ignore[index],
    )


def _rounded(value: float, down: bool = False) -> float:
    """To two meaningful digits."""
    digits = 1 - math.floor(math.log10(value))
    units = value * 10.0**digits
    return round((math.floor(units + 1e-9) if down else round(units)) / 10.0**digits, digits)


def _as_code(value: ResizeRule | tuple[float, float]) -> str:
    if isinstance(value, ResizeRule):
        given = ((name, getattr(value, name)) for name in ('factor', 'short_side', 'long_side'))
        return f'dict({", ".join(f"{name}={v!r}" for name, v in given if v is not None)})'
    return f'({", ".join("None" if math.isinf(v) else f"{v:g}" for v in value)})'
