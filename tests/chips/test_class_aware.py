"""Class-aware epochs: which chips show a class, and of all classes equally many chips."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsniper.chips import AnnotationTable, PositiveChipPlanner, ScalePyramid
from mmsniper.chips.class_aware import ChipsOfClasses

# Chips show 32 and 64 original pixels.
PYRAMID = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 16)),
            dict(resize=dict(factor=1.0), valid_range=(12, 48)),
        ],
    )
)
SIZE = 300


def labelled(*images):
    """A table of images of boxes (x, y, side, label)."""
    table = AnnotationTable.from_images(
        [(SIZE, SIZE, [[x, y, x + s, y + s] for x, y, s, _ in boxes], None) for boxes in images]
    )
    return replace(table, label=np.array([box[3] for boxes in images for box in boxes], np.int32))


def found(table, strategy='minimum'):
    planner = PositiveChipPlanner(table, PYRAMID, strategy)
    return planner, ChipsOfClasses.find(
        table, PYRAMID, planner.certain() if strategy == 'minimum' else planner.plan()
    )


def chips_by_class(classes):
    return {
        label: classes.chip[classes.offset[i] : classes.offset[i + 1]].tolist()
        for i, label in enumerate(classes.label.tolist())
    }


@st.composite
def tables(draw):
    box = st.tuples(*[st.integers(0, 220)] * 2, st.integers(2, 70), st.integers(-1, 5))
    return labelled(*draw(st.lists(st.lists(box, max_size=12), min_size=1, max_size=4)))


def of_classes(sizes):
    """Classes 0, 1, ... with so many chips each, none of them in common."""
    return ChipsOfClasses(
        np.arange(len(sizes)),
        np.cumsum([0, *sizes]),
        np.arange(sum(sizes), dtype=np.int32),
        sum(sizes),
    )


# --- which chips show a class ---------------------------------------------------------------------


def test_a_chip_has_the_classes_of_the_objects_that_are_valid_and_whole_in_it():
    table = labelled(
        [(10, 10, 8, 4), (20, 20, 8, 1), (200, 200, 14, 4)],  # level 0; one chip for both; 0 and 1
        [],
        [(100, 100, 30, 9), (110, 110, 8, 2), (10, 200, 60, 7)],  # level 1, level 0, none
    )
    planner, classes = found(table)
    assert list(zip(planner.chips.image.tolist(), planner.chips.level.tolist())) == [
        *((0, 0), (0, 0), (0, 1)),
        *((2, 0), (2, 1)),
    ]
    of = chips_by_class(classes)
    assert of == {1: of[1], 2: [3], 4: [0, 1, 2], 9: [4]}
    assert of[1] in ([0], [1])
    assert classes.num_chips == 5


def test_ignored_boxes_and_labels_below_0_are_no_objects():
    table = labelled([(10, 10, 8, 0), (100, 100, 8, 1), (200, 200, 8, -1)])
    ignored = replace(table, ignore=np.array([False, True, False]))
    assert list(chips_by_class(found(ignored)[1])) == [0]
    with pytest.raises(ValueError, match='the boxes have no labels'):
        found(replace(table, label=None))


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 3))
def test_by_brute_force_wherever_an_epoch_places_the_chips(table, epoch):
    """Each class has the chips in which an object of it is certainly whole, and no other class."""
    planner, classes = found(table)
    chips, window = planner.plan(epoch), planner.certain().box
    valid, fits = PYRAMID.valid_and_fits(table.boxes, table.width[table.image], SIZE)
    expected = {}
    for j in np.flatnonzero(~table.ignore & (table.label >= 0)):
        for level in np.flatnonzero((valid & fits)[j]):
            mine = (chips.image == table.image[j]) & (chips.level == level)
            for shown, allowed in ((chips.box, False), (window, True)):
                inside = (shown[:, :2] <= table.boxes[j, :2] + 1e-3).all(axis=1)
                inside &= (shown[:, 2:] >= table.boxes[j, 2:] - 1e-3).all(axis=1) & mine
                assert inside.any(), 'it is enclosed'
                if allowed:
                    expected.setdefault(table.label[j], set()).update(np.flatnonzero(inside))
    assert {k: set(v) for k, v in chips_by_class(classes).items()} == expected
    assert (chips.box[:, :2] <= window[:, :2] + 1e-3).all()
    assert (chips.box[:, 2:] >= window[:, 2:] - 1e-3).all()


def test_a_grids_chips_are_where_the_plan_has_them():
    table = labelled([(10, 10, 8, 4), (20, 20, 8, 1)], [(200, 200, 30, 2)])
    planner, classes = found(table, 'grid')
    assert set(chips_by_class(classes)) == {1, 2, 4}
    assert classes.num_chips == len(planner.plan())


# --- how often ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(0, 300),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_classes_come_equally_often_and_so_do_the_chips_of_each(sizes, total, each, epoch):
    """As MMDetection's rotation: numbers of classes differ by one turn at most."""
    classes = of_classes(sizes)
    times = classes.times(total, each, (3, epoch))
    of_class = np.add.reduceat(times, classes.offset[:-1])
    assert times.sum() == of_class.sum() == total
    assert of_class.max() - of_class.min() <= each
    assert np.sum(of_class % each != 0) <= 1, 'only the last turn is cut off'
    for i in range(len(sizes)):
        chips = times[classes.offset[i] : classes.offset[i + 1]]
        assert chips.max() - chips.min() <= 1


def test_over_epochs_all_chips_and_all_classes_have_the_same_chance():
    """Five classes share 12 chips in turns of 1: two of them, at random, have one more."""
    classes, epochs = of_classes([1, 2, 3, 10, 40]), 2000
    times = np.stack([classes.times(12, 1, (0, epoch)) for epoch in range(epochs)])
    of_class = np.add.reduceat(times, classes.offset[:-1], axis=1)
    # A mean of 2.4, with a variance of 0.24: 5 standard errors are 0.055.
    assert np.abs(of_class.mean(axis=0) - 2.4).max() < 0.055
    expected = np.repeat(2.4 / np.diff(classes.offset), np.diff(classes.offset))
    # Each chip is a draw without replacement, of a variance below its mean.
    assert (np.abs(times.mean(axis=0) - expected) < 5 * np.sqrt(expected / epochs)).all()


def test_the_draw_depends_on_its_key_only():
    classes = of_classes([3, 50, 9])
    draw = [classes.times(30, 1, key).tolist() for key in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert draw[0] == draw[1]
    assert len({str(times) for times in draw}) == 3


@pytest.mark.parametrize('each', [0, 1.5, True])
def test_says_what_num_sample_class_must_be(each):
    with pytest.raises(ValueError, match='num_sample_class must be a whole number of at least 1'):
        of_classes([3]).times(3, each)


# --- a chip that comes again ----------------------------------------------------------------------


def test_a_chip_that_comes_again_is_placed_anew_with_its_boxes_inside():
    table = labelled([(100, 100, 8, 0)], [(50, 60, 8, 0), (200, 200, 8, 0)])
    planner = PositiveChipPlanner(table, PYRAMID)
    index, again = np.array([0, 1, 1, 1, 2]), np.array([0, 0, 1, 2, 0])
    plan, once = planner.plan(3, index, again), planner.plan(3)
    assert plan.image.tolist() == [0, 1, 1, 1, 1]
    assert plan.box[again == 0].tolist() == once.box.tolist()
    boxes = np.array([[50, 60, 58, 68], [200, 200, 208, 208]])
    box = boxes[0] if once.box[1, 0] < 100 else boxes[1]
    windows = plan.box[1:4]
    assert len(np.unique(windows, axis=0)) == 3
    assert (windows[:, :2] <= box[:2]).all()
    assert (windows[:, 2:] >= box[2:]).all()
    parts = [planner.plan(3, index[k : k + 1], again[k : k + 1]).box[0] for k in range(5)]
    assert np.array(parts).tolist() == plan.box.tolist()


# --- what is said of it ---------------------------------------------------------------------------


def test_tells_how_many_chips_classes_have_and_which_have_none():
    spots = [(10, 10, 8, 0), (100, 100, 8, 0), (200, 200, 8, 1), (10, 200, 60, 2), (200, 10, 9, -1)]
    table = labelled(spots)
    told = found(table)[1].told
    start = 'an epoch has about 2 chips of each of 2 classes, of which there are 1 to 2 different'
    assert told(table, ('cup', 'cat', 'ship')) == (
        f'{start} ones; no chip has a whole and valid object of ship'
    )
    many = replace(table, label=np.array([0, 1, 2, 3, 4], np.int32))
    of_first = replace(many, ignore=np.array([False, True, True, True, True]))
    assert found(of_first)[1].told(many).endswith('object of 1, 2, 3, 4')
    assert '; ' not in found(of_first)[1].told(of_first)
