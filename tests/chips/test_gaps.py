"""Sizes that are in no level's range: which, how many boxes have them, and what is said of it."""

from pathlib import Path

import pytest

from mmsniper.chips import AnnotationTable, ScalePyramid, range_gaps

ROOT = Path(__file__).resolve().parents[2]


def table(*sizes, crowd=()):
    """One image with squares."""
    boxes = [[0, 0, size, size] for size in (*sizes, *crowd)]
    return AnnotationTable.from_images(
        [(640, 480, boxes, [False] * len(sizes) + [True] * len(crowd))]
    )


def pyramid(fine=(0, 30), coarse=(45, None), test=(None, None), **kwargs):
    levels = [
        dict(resize=dict(factor=factor), valid_range=valid, test_range=of_test)
        for factor, valid, of_test in zip((2.0, 1.0), (fine, coarse), test)
    ]
    return ScalePyramid.from_config(dict(chip_size=160, levels=levels, **kwargs))


def test_a_gap_of_training_and_test_is_told_once_with_the_number_of_its_boxes():
    (found,) = range_gaps(pyramid(), table(10, 30, 40, 44, 45, 90, crowd=[40]))
    assert found.boxes == 3
    assert str(found) == (
        "3 of 6 boxes have a size in no level's valid_range, 30 to 45 px (sqrt of area in the "
        'image), so that no level learns them, and detections of these sizes are dropped: let the '
        'valid_range of neighbouring levels overlap, begin that of the finest at 0 and end that of '
        'the coarsest with None (docs/howto/pyramid.md)'
    )


def test_sizes_below_and_above_all_ranges_are_told_too():
    (found,) = range_gaps(pyramid((8, 50), (30, 100)), table(5, 20, 200, 300))
    assert found.boxes == 3
    assert "no level's valid_range, 0 to 8 px and 100 px and more (sqrt" in found.what


def test_a_gap_of_training_only_may_be_closed_by_adopting_orphans():
    gap = pyramid(test=((0, 40), (35, None)))
    (found,) = range_gaps(gap, table(40))
    assert found.what.endswith('so that no level learns them')
    assert found.fix.endswith('or set adopt_orphans=True')
    adopting = pyramid(test=((0, 40), (35, None)), adopt_orphans=True)
    assert range_gaps(adopting, table(40)) == []


@pytest.mark.parametrize(
    'gap',
    [
        pyramid((0, 50), (30, None), test=((0, 30), (45, None))),
        pyramid(adopt_orphans=True),  # learns these objects
    ],
)
def test_a_gap_of_the_test_only(gap):
    (found,) = range_gaps(gap, table(40, 100))
    assert found.boxes == 1
    assert "no level's test_range, 30 to 45 px" in found.what
    assert found.what.endswith('so that detections of these sizes are dropped')
    assert found.fix.startswith('let the test_range of neighbouring levels overlap')


def test_different_gaps_of_training_and_test_are_told_one_by_one():
    found = range_gaps(pyramid(test=((0, 20), (45, None))), table(10, 25, 40))
    assert [gaps.boxes for gaps in found] == [1, 2]
    assert 'valid_range, 30 to 45 px' in found[0].what
    assert 'test_range, 20 to 45 px' in found[1].what


def test_without_gaps_there_is_nothing_to_tell_and_without_boxes_there_the_number_is_0():
    assert range_gaps(pyramid(coarse=(20, None)), table(40)) == []
    (found,) = range_gaps(pyramid(), table(10, 100))
    assert found.boxes == 0


def test_the_page_that_it_names_is_there():
    (found,) = range_gaps(pyramid(), table(40))
    page = ROOT / found.fix.partition('(')[2].partition(')')[0]
    assert 'the ranges have a gap' in page.read_text()
