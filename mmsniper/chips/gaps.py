"""Whether boxes have sizes that are in no level's range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.pyramid import Range, ScalePyramid
from mmsniper.chips.pyramid_text import describe_range
from mmsniper.chips.statistics import boxes_of_sizes

_OVERLAP = (
    'let the {} of neighbouring levels overlap, begin that of the finest at 0 and end that of the '
    'coarsest with None (docs/howto/pyramid.md)'
)


class RangeGaps(NamedTuple):
    """Sizes that are in no level's range.

    Attributes:
        boxes: Boxes of these sizes.
        what: A sentence for the user: the sizes, how many boxes have them, and what comes of it.
        fix: What to do.
    """

    boxes: int
    what: str
    fix: str

    def __str__(self) -> str:
        return f'{self.what}: {self.fix}'


def range_gaps(pyramid: ScalePyramid, table: AnnotationTable) -> list[RangeGaps]:
    """The gaps of a pyramid's ranges, of training and of the test, and the boxes in them.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        table (AnnotationTable): Boxes; those to ignore do not count.

    Returns:
        list[RangeGaps]: One for training and the test if they have the same gaps, otherwise one
        for each that has any. Without gaps, none.

    Example:
        >>> levels = [dict(resize=dict(factor=2), valid_range=(0, 30)),
        ...           dict(resize=dict(factor=1), valid_range=(45, None))]
        >>> table = AnnotationTable.from_images([(640, 480, [[0, 0, 40, 40]], None)])
        >>> (found,) = range_gaps(ScalePyramid(160, levels), table)
        >>> found.boxes, found.what[:53]
        (1, "1 of 1 boxes has a size in no level's valid_range: 30")
    """
    return list(_gaps(pyramid, table))


def _gaps(pyramid: ScalePyramid, table: AnnotationTable) -> Iterator[RangeGaps]:
    training, test = pyramid.gaps(), pyramid.gaps(test=True)
    unlearned, dropped = 'no level learns them', 'detections of these sizes are dropped'
    if training == test:
        yield from _found(table, training, 'valid_range', f'{unlearned}, and {dropped}')
        return
    yield from _found(table, training, 'valid_range', unlearned, ', or set adopt_orphans=True')
    yield from _found(table, test, 'test_range', dropped)


def _found(
    table: AnnotationTable, gaps: Sequence[Range], name: str, result: str, or_else: str = ''
) -> Iterator[RangeGaps]:
    if gaps:
        boxes, sizes = boxes_of_sizes(table, gaps), ' and '.join(map(describe_range, gaps))
        yield RangeGaps(
            boxes,
            f"{boxes} of {(~table.ignore).sum()} boxes have a size in no level's {name}, {sizes} "
            f'(sqrt of area in the image), so that {result}',
            _OVERLAP.format(name) + or_else,
        )
