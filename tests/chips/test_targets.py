"""Targets: which boxes count at which levels, and which chips enclose them."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsniper.chips import NEGATIVE, AnnotationTable, ChipPlan, ScalePyramid, rectangles
from mmsniper.chips import targets as module
from mmsniper.chips.targets import ChipLookup, Targets, grid_lines, grid_origins, iter_targets

# Chips of 32 and 64 original pixels.
TWO = ScalePyramid.from_config(
    dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=2.0), valid_range=(0, 20)),
            dict(resize=dict(factor=1.0), valid_range=(10, None)),
        ],
    )
)


@st.composite
def tables(draw):
    """Images of up to 120 px, some smaller than a chip, and boxes in whole pixels."""
    images = []
    for _ in range(draw(st.integers(1, 4))):
        width, height = draw(st.integers(1, 120)), draw(st.integers(1, 120))
        corner, side = st.integers(0, 119), st.integers(1, 80)
        boxes = [
            (x, y, x + w, y + h)
            for x, y, w, h in draw(st.lists(st.tuples(corner, corner, side, side), max_size=6))
        ]
        images.append((width, height, boxes, [draw(st.booleans()) for _ in boxes]))
    return AnnotationTable.from_images(images)


def all_targets(table, pyramid=TWO):
    return Targets.joined([part for _, part in iter_targets(table, pyramid)])


@settings(max_examples=60)
@given(tables())
def test_targets_are_the_boxes_that_are_valid_and_fit_and_are_not_ignored(table):
    expected = []
    for image in range(len(table)):
        for level, (lo, hi, side) in enumerate([(0, 20, 32), (10, np.inf, 64)]):
            for row in range(table.offset[image], table.offset[image + 1]):
                w, h = table.boxes[row, 2:] - table.boxes[row, :2]
                if lo <= (w * h) ** 0.5 < hi and max(w, h) <= side and not table.ignore[row]:
                    expected.append((image, level, row))
    part = all_targets(table)
    assert list(zip(part.image.tolist(), part.level.tolist(), part.index.tolist())) == expected
    np.testing.assert_array_equal(part.box, table.boxes[part.index])
    np.testing.assert_array_equal(
        part.image_wh, np.stack([table.width, table.height], axis=1)[part.image]
    )
    assert part.scale[:, 0].tolist() == [[2, 1][level] for level in part.level]
    assert part.side[:, 0].tolist() == [[32, 64][level] for level in part.level]


def test_chunks_are_of_whole_images_and_together_are_all(monkeypatch):
    box = [10, 10, 20, 20]
    table = AnnotationTable.from_images([(90, 90, [box] * n, None) for n in (0, 3, 1, 9, 0, 2, 0)])
    whole = all_targets(table)
    monkeypatch.setattr(module, '_BOXES', 4)
    chunks = list(iter_targets(table, TWO))
    assert [i for images, _ in chunks for i in images] == list(range(7))
    assert len(chunks) > 2
    for images, part in chunks:
        assert set(part.image.tolist()) <= set(images)
    joined = Targets.joined([part for _, part in chunks])
    for field in fields(Targets):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))


@pytest.mark.parametrize('images', [[], [(50, 50, [], None)] * 3])
def test_where_there_is_no_box_there_is_no_target(images):
    table = AnnotationTable.from_images(images)
    assert [i for images, _ in iter_targets(table, TWO) for i in images] == list(range(len(images)))
    assert all_targets(table).box.shape == (0, 4)
    assert all_targets(table).side.shape == (0, 1)


@settings(max_examples=100)
@given(tables(), st.integers(1, 40))
def test_grid_lines_are_those_with_which_a_chip_encloses_the_box(table, stride):
    part = all_targets(table)
    step, edge = np.full((len(part.image), 1), stride), np.maximum(part.image_wh - part.side, 0)
    first, last = grid_lines(part, step, edge)
    for k in range(len(part.image)):
        for axis in (0, 1):
            lines = [*range(0, int(edge[k, axis]), stride), int(edge[k, axis])]
            lo, hi = part.box[k, axis], part.box[k, axis + 2]
            good = [i for i, x in enumerate(lines) if x <= lo and hi <= x + part.side[k, 0]]
            assert list(range(first[k, axis], last[k, axis] + 1)) == good


@settings(max_examples=100)
@given(tables(), st.integers(1, 40), st.integers(0, 99))
def test_lines_of_a_shifted_grid_are_where_they_are_said_to_be(table, stride, hundredths):
    part = all_targets(table)
    # Not a place at which boxes, in whole pixels, begin or end.
    shift = (hundredths + 0.123) / 100
    step, edge = np.full((len(part.image), 1), stride), np.maximum(part.image_wh - part.side, 0)
    first, last = grid_lines(part, step, edge, shift)
    for k in range(len(part.image)):
        for axis in (0, 1):
            far, lo, hi = edge[k, axis], part.box[k, axis], part.box[k, axis + 2]
            count = int(np.ceil(far / stride + shift)) + 1
            lines = grid_origins(np.arange(count), step[k], far, shift).tolist()
            inner = [(i - shift) * stride for i in range(1, count - 1)]
            np.testing.assert_allclose(lines, [0, *inner, far])
            good = [i for i, x in enumerate(lines) if x <= lo and hi <= x + part.side[k, 0]]
            assert list(range(first[k, axis], last[k, axis] + 1)) == good


@st.composite
def plans(draw, images=4):
    """Windows in quarters of a pixel, far from the least that counts as sticking out."""
    number = st.integers(0, 480)
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, images - 1), st.integers(0, 1), number, number, number, number
            ),
            max_size=12,
        )
    )
    box = np.array([row[2:] for row in rows]).reshape(-1, 2, 2) / 4
    box = np.concatenate([box.min(axis=1), box.max(axis=1)], axis=1)
    return ChipPlan(
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.int8),
        box.astype(np.float32),
        np.zeros(len(rows), np.int8),
    )


@settings(max_examples=100)
@given(tables(), plans())
def test_windows_enclose_what_lies_whole_in_one_of_the_same_image_and_level(table, plan):
    part = all_targets(table)
    expected = [
        any(
            plan.image[c] == part.image[k]
            and plan.level[c] == part.level[k]
            and (plan.box[c, :2] <= part.box[k, :2]).all()
            and (part.box[k, 2:] <= plan.box[c, 2:]).all()
            for c in range(len(plan))
        )
        for k in range(len(part.image))
    ]
    assert ChipLookup.from_plan(plan, 2).enclose(part).tolist() == expected


@settings(max_examples=100)
@given(tables(), plans())
def test_windows_touch_what_has_an_area_in_common_with_one_of_the_same_image_and_level(table, plan):
    part = all_targets(table)
    expected = [
        any(
            plan.image[c] == part.image[k]
            and plan.level[c] == part.level[k]
            and (plan.box[c, :2] < part.box[k, 2:]).all()
            and (part.box[k, :2] < plan.box[c, 2:]).all()
            for c in range(len(plan))
        )
        for k in range(len(part.image))
    ]
    assert ChipLookup.from_plan(plan, 2).touch(part).tolist() == expected


def test_the_order_of_the_chips_does_not_matter():
    box = [10, 10, 25, 25]  # valid at both levels
    part = all_targets(AnnotationTable.from_images([(100, 100, [box], None)] * 3))
    plan = ChipPlan(
        np.array([2, 0, 1, 0], np.int32),
        np.array([1, 1, 0, 0], np.int8),
        np.array([[0, 0, 32, 32]] * 3 + [[50, 50, 82, 82]], np.float32),
        np.zeros(4, np.int8),
    )
    assert part.level.tolist() == [0, 1] * 3
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        enclosed = ChipLookup.from_plan(plan.take(order), 2).enclose(part)
        assert enclosed.tolist() == [False, True, True, False, False, True]


def test_it_does_not_matter_how_many_pairs_are_looked_at_together(monkeypatch):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 80, (60, 2))
    boxes = np.concatenate([start, start + rng.uniform(2, 15, (60, 2))], axis=1)
    part = all_targets(AnnotationTable.from_images([(100, 100, boxes, None)] * 2))
    corner = rng.uniform(0, 80, (20, 2))
    plan = ChipPlan(
        np.repeat(np.arange(2, dtype=np.int32), 10),
        np.zeros(20, np.int8),
        np.concatenate([corner, corner + 32], axis=1).astype(np.float32),
        np.zeros(20, np.int8),
    )
    whole = ChipLookup.from_plan(plan, 2).enclose(part)
    assert 0 < whole.sum() < len(whole)
    monkeypatch.setattr(rectangles, '_BLOCK', 7)
    np.testing.assert_array_equal(ChipLookup.from_plan(plan, 2).enclose(part), whole)


@pytest.mark.parametrize(
    ('box', 'chip', 'enclosed'),
    [
        # Near 20,000 px, float32 numbers are 0.002 px apart.
        ([19_990, 0, 19_999.998, 10], [19_936, 0, 19_999.997, 64], True),
        ([19_990, 0, 20_000.1, 10], [19_936, 0, 19_999.997, 64], False),
        ([19_936, 0, 19_990, 10], [19_936.002, 0, 20_000, 64], True),
        ([19_935.9, 0, 19_990, 10], [19_936.002, 0, 20_000, 64], False),
        ([10, 29.9995, 20, 40], [0, 30, 64, 94], True),
        ([10, 29.995, 20, 40], [0, 30, 64, 94], False),
        ([10, 40, 20, 94.0005], [0, 30, 64, 94], True),
        ([10, 40, 20, 94.005], [0, 30, 64, 94], False),
    ],
)
def test_the_rounding_of_a_plan_does_not_open_a_chip(box, chip, enclosed):
    pyramid = ScalePyramid.from_config(
        dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
    )
    part = all_targets(AnnotationTable.from_images([(30_000, 30_000, [box], None)]), pyramid)
    plan = ChipPlan(
        np.zeros(1, np.int32),
        np.zeros(1, np.int8),
        np.array([chip], np.float32),
        np.array([NEGATIVE], np.int8),
    )
    assert ChipLookup.from_plan(plan, 1).enclose(part).tolist() == [enclosed]


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize(
    ('start', 'stop', 'touched'),
    [
        # Of a chip from 64 to 128 along an axis, 20,000 px away along the other one.
        (60, 64.0005, False),
        (60, 64.005, True),
        (127.9995, 130, False),
        (127.995, 130, True),
        (80, 90, True),
        (20, 30, False),
        (140, 150, False),
    ],
)
def test_a_chip_touches_what_it_has_more_than_an_edge_in_common_with(axis, start, stop, touched):
    assert touches(axis, (start, stop), (20_010, 20_020), (64, 20_000)) is touched


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize(
    ('start', 'stop', 'touched'),
    [
        # Of a chip from 20,000 to 20,064, where rounding errors are up to 0.0034.
        (19_990, 20_000.003, False),
        (19_990, 20_000.01, True),
        (20_063.997, 20_070, False),
        (20_063.99, 20_070, True),
    ],
)
def test_far_from_the_corner_an_edge_is_wider(axis, start, stop, touched):
    assert touches(axis, (start, stop), (10, 20), (20_000, 0)) is touched


def touches(axis, along, across, corner):
    """Whether a chip of 64 px at a corner (along, across) touches a box, along x (0) or y (1)."""
    box = np.array([along[0], across[0], along[1], across[1]])
    chip = np.array([*corner, corner[0] + 64, corner[1] + 64], np.float32)
    if axis:
        box, chip = box[[1, 0, 3, 2]], chip[[1, 0, 3, 2]]
    targets = Targets(
        image=np.zeros(1, np.int64),
        level=np.zeros(1, np.int64),
        index=np.zeros(1, np.int64),
        box=box[None],
        scale=np.ones((1, 1)),
        side=np.full((1, 1), 64.0),
        image_wh=np.full((1, 2), 30_000.0),
    )
    plan = ChipPlan(
        np.zeros(1, np.int32), np.zeros(1, np.int8), chip[None], np.array([NEGATIVE], np.int8)
    )
    return bool(ChipLookup.from_plan(plan, 1).touch(targets)[0])


def test_rounding_does_not_keep_a_box_as_wide_as_its_image_from_a_chip_as_wide_as_it():
    # 512 / (512 / 93) is less than 93.
    pyramid = ScalePyramid.from_config(
        dict(chip_size=512, levels=[dict(resize=dict(long_side=512), valid_range=(0, None))])
    )
    part = all_targets(
        AnnotationTable.from_images(
            [(width, 90, [[0, 0, width, 90]], None) for width in range(90, 1500)]
        ),
        pyramid,
    )
    assert len(part.image) == 1410
    assert (part.side[:, 0] < part.image_wh[:, 0]).any()
    edge = np.maximum(part.image_wh - part.side, 0)
    first, last = grid_lines(part, 32 / part.scale, edge)
    assert (first == 0).all()
    assert (last == 0).all()


def test_a_chip_at_either_end_of_the_origins_encloses_the_box_and_stays_in_the_image():
    # Chips of 64 px in an image of 100x50.
    part = all_targets(
        AnnotationTable.from_images([(100, 50, [[30, 10, 60, 40], [80, 0, 99, 20]], None)]),
        ScalePyramid.from_config(
            dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
        ),
    )
    lo, hi = part.origins()
    np.testing.assert_allclose(lo, [[0, 0], [35, 0]], atol=1e-6)
    np.testing.assert_allclose(hi, [[30, 0], [36, 0]], atol=1e-6)
