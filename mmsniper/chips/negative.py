"""Negative chips: windows in which a briefly trained RPN sees objects that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.cover import grid_greedy
from mmsniper.chips.plan import NEGATIVE, ChipPlan
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.rectangles import Floats, Ints, common, ordinal, run_lengths, run_starts
from mmsniper.chips.seeding import uniform
from mmsniper.chips.targets import ChipLookup, Targets, grid_lines, grid_origins, iter_targets
from mmsniper.utils.checks import check_whole_number

MIN_PROPOSALS = (25, 10)
"""What the authors' release asks of a chip: more than this many, finest level and others."""

COVERED = ('enclosed', 'touched')
"""What a positive chip does to a proposal that needs no negative chip."""

# Tell the draws of negative chips from those that place positive ones, and from each other.
_SALT, _SHIFT, _SLIDE = 2, 3, 4


@dataclass(frozen=True)
class NegativeStatistics:
    """Numbers about negative chips; sums over parts of a data set can be added up.

    Attributes:
        images: Images that were looked at.
        proposals: Proposals in them.
        valid: Pairs (proposal, level) that are valid and fit into a chip.
        covered: Pairs whose proposal a positive chip of the level covers.
        chips_per_level: Chips of the pool, fine to coarse.
        capped: Chips left out because their image has enough.
        images_with_chips: Images with a chip in the pool.
    """

    images: int
    proposals: int
    valid: int
    covered: int
    chips_per_level: tuple[int, ...]
    capped: int
    images_with_chips: int

    @property
    def chips(self) -> int:
        """Chips of the pool."""
        return sum(self.chips_per_level)

    def __add__(self, other: NegativeStatistics) -> NegativeStatistics:
        mine, theirs = vars(self), vars(other)
        total = {name: mine[name] + theirs[name] for name in mine}
        total['chips_per_level'] = tuple(map(add, self.chips_per_level, other.chips_per_level))
        return NegativeStatistics(**total)

    def __str__(self) -> str:
        share = self.covered / max(self.valid, 1)
        return (
            f'{self.chips} negative chips for {self.images_with_chips} of {self.images} images, '
            f'fine to coarse {list(self.chips_per_level)}. The RPN made {self.proposals} '
            f'proposals. Each counts once for every level that learns its size: {self.valid} in '
            f'all. Positive chips cover {share:.1%} of them; negative chips are for the others'
        )


@dataclass(frozen=True, eq=False)
class NegativeChips:
    """What :func:`plan_negative_chips` finds.

    Attributes:
        chips: The chips, ordered by image, level, and number of proposals.
        proposals_per_chip: Uncovered proposals in each chip and in none before it, int32, (n,).
        uncovered: The proposals that no positive chip covers, at the levels where they count.
        statistics: Numbers about them.
    """

    chips: ChipPlan
    proposals_per_chip: NDArray[np.int32]
    uncovered: Targets
    statistics: NegativeStatistics


def plan_negative_chips(
    proposals: AnnotationTable,
    positives: ChipPlan,
    pyramid: ScalePyramid,
    min_proposals: int | Sequence[int] = MIN_PROPOSALS,
    max_per_image: int | None = None,
    stride: int = 32,
    covered: str = 'enclosed',
    key: tuple[int, int] | None = None,
) -> NegativeChips:
    """Find windows full of proposals that no positive chip covers (SNIPER section 3.3).

    At each level, the proposals that are valid there and that no positive chip covers are enclosed
    greedily, each time by the chip that encloses most of what is left: of chips at every ``stride``
    scaled pixels, and flush with the image's right and bottom edges.

    Args:
        proposals (AnnotationTable): Image sizes, and proposals as boxes, in any order.
        positives (ChipPlan): Positive chips of the same images.
        pyramid (ScalePyramid): The scale pyramid.
        min_proposals (int | Sequence[int]): A chip must enclose *more* than this many. One number,
            or one for each level, fine to coarse; the last is for all further levels. Defaults to
            (25, 10), as in the authors' release.
        max_per_image (int | None): Chips of an image to keep, those that enclose most. Defaults to
            None, all.
        stride (int): Stride of the candidates in scaled pixels. Defaults to 32.
        covered (str): A positive chip covers a proposal if the proposal lies whole in it,
            ``'enclosed'``, or if they have an area in common, ``'touched'``, as in the authors'
            release. Defaults to 'enclosed'.
        key (tuple[int, int] | None): Seed and epoch by which chips are placed at random: the grid
            of candidates is shifted, and each chip then slides as far as its proposals stay inside.
            Defaults to None, chips are on the grid that begins at the image's corner.

    Returns:
        NegativeChips: The chips, and what they were found from.

    Raises:
        ValueError: If an argument is out of its range, or the positive chips are of other images
            or levels.

    Example:
        >>> table = AnnotationTable.from_images([(200, 100, [[150, 40, 160, 50]] * 3, None)])
        >>> level = dict(resize=dict(factor=1.0), valid_range=(0, None))
        >>> pyramid = ScalePyramid.from_config(dict(chip_size=100, levels=[level]))
        >>> plan_negative_chips(table, ChipPlan.empty(), pyramid, 2).proposals_per_chip
        array([3], dtype=int32)
    """
    enough = _enough(min_proposals, pyramid.num_levels)
    check_whole_number('max_per_image', max_per_image, 1, optional=True)
    check_whole_number('stride', stride, 1)
    if covered not in COVERED:
        raise ValueError(f'covered must be one of {COVERED}, got {covered!r}')
    _check_positives(positives, len(proposals), pyramid.num_levels)
    positive_chips = ChipLookup.from_plan(positives, pyramid.num_levels)
    valid, parts, covers = 0, [], []
    for _, part in iter_targets(proposals, pyramid):
        valid += len(part.image)
        in_chips = positive_chips.touch if covered == 'touched' else positive_chips.enclose
        parts.append(part.take(~in_chips(part)))
        covers.append(_cover(parts[-1], pyramid.num_levels, enough, stride, key))
    uncovered = Targets.joined(parts)
    chips = ChipPlan.joined([chips for chips, _ in covers])
    counts = np.concatenate([counts for _, counts in covers])
    kept = np.arange(len(chips))
    if max_per_image is not None:
        fullest = np.lexsort((-counts, chips.image))
        kept = np.sort(fullest[ordinal(chips.image) < max_per_image])
    pool = chips.take(kept)
    return NegativeChips(
        pool,
        counts[kept],
        uncovered,
        NegativeStatistics(
            images=len(proposals),
            proposals=int((~proposals.ignore).sum()),
            valid=valid,
            covered=valid - len(uncovered.image),
            chips_per_level=tuple(pool.count_per_level(pyramid.num_levels).tolist()),
            capped=len(chips) - len(pool),
            images_with_chips=len(np.unique(pool.image)),
        ),
    )


def draw_negative_chips(pool: ChipPlan, per_image: int, seed: int, epoch: int) -> ChipPlan:
    """Draw an epoch's negative chips: up to ``per_image`` of each image, without replacement.

    Args:
        pool (ChipPlan): Negative chips, ascending by image.
        per_image (int): Chips of an image in an epoch; the authors' release takes at most 2.
        seed, epoch (int): What the draw depends on, together with the image.

    Returns:
        ChipPlan: The chosen chips, in the order of the pool.

    Raises:
        ValueError: If ``per_image`` is not a whole number, or negative.
    """
    check_whole_number('per_image', per_image, 0)
    number = ordinal(pool.image)
    draw = uniform(seed, epoch, pool.image, number, _SALT)
    order = np.lexsort((draw, pool.image))
    return pool.take(np.sort(order[number < per_image]))


@dataclass(frozen=True, eq=False)
class NegativeChipPlanner:
    """Plans the negative chips of a data set, epoch by epoch, from what was mined.

    Attributes:
        pyramid: The scale pyramid.
        chips: The windows that were mined, ascending by image.
        proposals: What the windows of each epoch are found from, anew; None: they are ``chips``.
        options: Arguments of :func:`plan_negative_chips` by which they are found.
    """

    pyramid: ScalePyramid
    chips: ChipPlan
    proposals: AnnotationTable | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, positives: ChipPlan, per_image: int, seed: int, epoch: int) -> ChipPlan:
        """Negative chips of an epoch, ascending by image.

        Args:
            positives (ChipPlan): The epoch's positive chips.
            per_image, seed, epoch (int): See :func:`draw_negative_chips`.
        """
        chips = self.chips
        if self.proposals is not None:
            chips = plan_negative_chips(
                self.proposals, positives, self.pyramid, **self.options, key=(seed, epoch)
            ).chips
        return draw_negative_chips(chips, per_image, seed, epoch)


def _enough(min_proposals: int | Sequence[int], levels: int) -> list[int]:
    """The smallest number of proposals that makes a chip, at each level."""
    given = min_proposals if isinstance(min_proposals, Sequence) else [min_proposals]
    if not given or not all(isinstance(n, (int, np.integer)) and n >= 0 for n in given):
        raise ValueError(
            f'min_proposals must be a number, or one for each level, not negative; got '
            f'{min_proposals!r}'
        )
    return [int(given[min(level, len(given) - 1)]) + 1 for level in range(levels)]


def _check_positives(positives: ChipPlan, images: int, levels: int) -> None:
    # A level too many would be taken for one of the next image.
    for name, limit in (('level', levels), ('image', images)):
        here = getattr(positives, name)
        wrong = here[(here < 0) | (here >= limit)]
        if len(wrong):
            raise ValueError(
                f'there is a positive chip of {name} {wrong[0]}, but there are {limit} {name}s: '
                f'plan the positive chips for these images with this pyramid'
            )


def _cover(
    part: Targets, levels: int, enough: Sequence[int], stride: int, key: tuple[int, int] | None
) -> tuple[ChipPlan, NDArray[np.int32]]:
    """Greedy chips over the targets, and how many targets each is the first to enclose."""
    step, edge = stride / part.scale, np.maximum(part.image_wh - part.side, 0)
    shift: Floats | float = 0.0
    if key is not None:
        shift = uniform(*key, part.image[:, None], part.level[:, None], np.arange(2), _SHIFT)
    first, last = grid_lines(part, step, edge, shift)
    group = part.group(levels)
    # Each target's chip, or -1; the first target of the group of each chip; its grid lines.
    chip = np.full(len(group), -1)
    target: list[int] = []
    lines: list[Ints] = [np.zeros((0, 2), np.int64)]
    for start, length in zip(run_starts(group).tolist(), run_lengths(group).tolist()):
        min_gain = enough[part.level[start]]
        if length < min_gain:
            continue
        stop = start + length
        chosen, points = _greedy(first[start:stop], last[start:stop], min_gain)
        chip[start:stop] = np.where(chosen >= 0, chosen + len(target), -1)
        target += [start] * len(points)
        lines.append(points)
    of_chip = part.take(np.array(target, np.int64))
    inside = chip >= 0
    if key is None:
        origin = grid_origins(np.concatenate(lines), *(x[target] for x in (step, edge)))
    else:
        lo, hi = part.origins()
        lo, hi = common(lo[inside], hi[inside], chip[inside])
        number = ordinal(of_chip.group(levels))[:, None]
        where = of_chip.image[:, None], of_chip.level[:, None], number, np.arange(2)
        origin = lo + uniform(*key, *where, _SLIDE) * np.maximum(hi - lo, 0)
    end = np.minimum(origin + of_chip.side, of_chip.image_wh)
    chips = ChipPlan.of_kind(
        NEGATIVE, of_chip.image, of_chip.level, np.concatenate([origin, end], axis=1)
    )
    return chips, np.bincount(chip[inside], minlength=len(target)).astype(np.int32)


def _greedy(first: Ints, last: Ints, min_gain: int) -> tuple[Ints, Ints]:
    """As :func:`grid_greedy`, on the grid lines at which rectangles begin, with the same result.

    Scenes of 20,000 px have more lines than proposals.
    """
    lines = [np.unique(column) for column in first.T]
    first = np.stack([np.searchsorted(x, c) for x, c in zip(lines, first.T)], axis=1)
    last = np.stack([np.searchsorted(x, c, 'right') - 1 for x, c in zip(lines, last.T)], axis=1)
    chosen, points = grid_greedy(first, last, min_gain=min_gain)
    return chosen, np.stack([x[c] for x, c in zip(lines, points.T)], axis=1)
