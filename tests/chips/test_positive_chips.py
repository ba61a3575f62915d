"""Positive chips: what must be inside is inside, and an image's chips depend on nothing else."""

from pathlib import Path

import numpy as np
import pytest
from brute_force_covers import fewest_points
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsniper.chips import (
    POSITIVE,
    AnnotationTable,
    ChipPlan,
    PositiveChipPlanner,
    ScalePyramid,
    plan_positive_chips,
    plan_statistics,
    positive,
    targets,
)
from mmsniper.chips.positive import FoundChips

PAPER = ScalePyramid.from_config(
    dict(
        chip_size=512,
        levels=[
            dict(resize=dict(factor=3.0), valid_range=(0, 80)),
            dict(resize=dict(factor=1.667), valid_range=(32, 150)),
            dict(resize=dict(long_side=512), valid_range=(120, None)),
        ],
    )
)
# A chip's side is 64 original pixels.
PLAIN = ScalePyramid.from_config(
    dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
)

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / 'data' / 'coco_tiny', ROOT.parent / 'shared' / 'data' / 'coco_tiny']


@pytest.fixture(params=['train', 'val'])
def coco_tiny(request):
    """Real images' annotations: 80 for training, 80 for validation."""
    for folder in FOLDERS:
        file = folder / 'annotations' / f'instances_{request.param}2017.json'
        if file.is_file():
            return request.param, AnnotationTable.from_coco(file)
    pytest.skip('data/coco_tiny is not there')


def one_image(boxes, width=640, height=480, ignore=None):
    return AnnotationTable.from_images([(width, height, boxes, ignore)])


@st.composite
def tables(draw, max_images=4, max_boxes=8):
    """Images of many shapes with boxes of all sizes, some of them beyond the image."""
    images = []
    for _ in range(draw(st.integers(1, max_images))):
        width, height = draw(st.integers(1, 1500)), draw(st.integers(1, 1500))
        corner = st.tuples(st.floats(-50, 1500, width=32), st.floats(-50, 1500, width=32))
        side = st.one_of(st.floats(1, 100, width=32), st.floats(1, 1600, width=32))
        boxes = [
            (x, y, x + w, y + h)
            for (x, y), w, h in draw(st.lists(st.tuples(corner, side, side), max_size=max_boxes))
        ]
        images.append((width, height, boxes, [draw(st.booleans()) for _ in boxes]))
    return AnnotationTable.from_images(images)


def must_be_covered(table, pyramid):
    """(image, level, box) by the definition, one at a time."""
    for image in range(len(table)):
        size = int(table.width[image]), int(table.height[image])
        rows = range(table.offset[image], table.offset[image + 1])
        for row in rows:
            box = table.boxes[row].astype(float)
            w, h = box[2] - box[0], box[3] - box[1]
            for level, scale in enumerate(pyramid.scales(*size)):
                lo, hi = pyramid.levels[level].valid_range
                # Rounding must not decide whether a box of a chip's size fits.
                fits = max(w, h) * scale <= pyramid.chip_size * (1 + 1e-9)
                if lo <= (w * h) ** 0.5 < hi and fits and not table.ignore[row]:
                    yield image, level, box


def windows(plan, image, level):
    return plan.box[(plan.image == image) & (plan.level == level)].astype(float)


def inside(box, window):
    # 1e-3 px, and what float32 leaves of the coordinates.
    slip = 1e-3 + 2.0**-23 * np.abs(box)
    return ((box[:2] >= window[:2] - slip[:2]) & (box[2:] <= window[2:] + slip[2:])).all()


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ('image', 'level', 'box', 'kind')
    )


class TestMinimum:
    @settings(max_examples=60)
    @given(tables(), st.integers(0, 5))
    def test_every_valid_box_that_fits_is_inside_a_chip_of_its_level(self, table, epoch):
        plan = plan_positive_chips(table, PAPER, epoch=epoch)
        for image, level, box in must_be_covered(table, PAPER):
            assert any(inside(box, window) for window in windows(plan, image, level))

    @settings(max_examples=60)
    @given(tables(), st.sampled_from(['minimum', 'grid']))
    def test_chips_are_squares_inside_the_image_or_end_with_it(self, table, strategy):
        plan = plan_positive_chips(table, PAPER, strategy)
        size = np.stack([table.width, table.height], axis=1)[plan.image]
        assert (plan.box >= 0).all()
        assert (plan.box[:, 2:] <= size).all()
        side = 512 / PAPER.scales(size[:, 0], size[:, 1])[np.arange(len(plan)), plan.level]
        expected = np.minimum(side[:, None], size)
        np.testing.assert_allclose(plan.box[:, 2:] - plan.box[:, :2], expected, atol=1e-3)

    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(*[st.integers(0, 150)] * 2, *[st.integers(1, 64)] * 2), min_size=1, max_size=6
        )
    )
    def test_the_number_is_that_of_brute_force(self, boxes):
        # Boxes and a chip's side are whole numbers, so whole origins are enough.
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], float)
        width, height = 200, 180
        plan = plan_positive_chips(one_image(boxes, width, height), PLAIN)
        boxes = np.minimum(boxes, [width, height] * 2)
        lo = np.maximum(boxes[:, 2:] - 64, 0)
        hi = np.minimum(boxes[:, :2], [width - 64, height - 64])
        assert len(plan) == fewest_points(lo, hi)

    def test_by_hand(self):
        # 40 px apart and 20 wide: two fit into 64 px, three do not; the crowd box needs none.
        boxes = [[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20], [300, 300, 310, 310]]
        table = one_image(boxes, 320, 320, [False, False, False, True])
        plan = plan_positive_chips(table, PLAIN)
        assert len(plan) == 2
        assert plan.kind.tolist() == [POSITIVE] * 2
        assert plan.image.tolist() == plan.level.tolist() == [0, 0]

    def test_real_images(self, coco_tiny):
        split, table = coco_tiny
        planner = PositiveChipPlanner(table, PAPER)
        found = plan_statistics(table, PAPER, planner.plan())
        assert found.chips_per_level == dict(train=[156, 122, 68], val=[164, 129, 71])[split]
        assert found.chips == dict(train=346, val=364)[split]
        assert found.coverage == 1.0
        assert planner.unproven == 0


class TestJitter:
    def test_it_is_uniform_over_the_slack(self):
        # One box: the chip's left edge is anywhere from 90 + 30 - 64 = 56 to 90, its top edge
        # from 40 - 64 < 0, that is 0, to 20.
        table = one_image([[90, 20, 120, 40]], 1000, 900)
        planner = PositiveChipPlanner(table, PLAIN)
        origin = np.concatenate([planner.plan(epoch).box[:, :2] for epoch in range(4000)])
        for axis, (lo, hi) in enumerate([(56, 90), (0, 20)]):
            x = origin[:, axis]
            assert lo <= x.min() < lo + 0.5
            assert hi - 0.5 < x.max() <= hi
            # 400 in each tenth; the standard deviation is 19.
            counts = np.histogram(x, 10, (lo, hi))[0]
            assert np.abs(counts - 400).max() < 5 * 19
        assert abs(np.corrcoef(origin.T)[0, 1]) < 0.08

    def test_it_differs_between_epochs_seeds_images_and_chips(self):
        boxes = [[100, 100, 110, 110], [400, 100, 410, 110]]
        table = AnnotationTable.from_images([(640, 480, boxes, None)] * 2)
        plans = [
            plan_positive_chips(table, PLAIN, seed=s, epoch=e) for s, e in [(0, 0), (0, 1), (1, 0)]
        ]
        offsets = np.concatenate([p.box[:, :2] - [[100, 100], [400, 100]] * 2 for p in plans])
        assert len(np.unique(offsets.round(3))) == 3 * 4 * 2

    def test_the_number_of_chips_is_that_of_all_epochs(self, coco_tiny):
        planner = PositiveChipPlanner(coco_tiny[1], PAPER)
        a, b = planner.plan(0), planner.plan(7)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.level, b.level)
        assert (a.box != b.box).any(axis=1).mean() > 0.5

    def test_a_chip_larger_than_the_image_does_not_move(self):
        table = one_image([[5, 5, 20, 20]], width=50, height=40)
        assert plan_positive_chips(table, PLAIN).box.tolist() == [[0, 0, 50, 40]]

    def test_a_chip_moves_along_the_side_on_which_the_image_is_larger(self):
        table = one_image([[30, 5, 60, 20]], width=200, height=40)
        box = np.concatenate([plan_positive_chips(table, PLAIN, epoch=e).box for e in range(50)])
        assert (box[:, [1, 3]] == [0, 40]).all()
        assert len(np.unique(box[:, 0])) == 50
        np.testing.assert_allclose(box[:, 2] - box[:, 0], 64, rtol=1e-6)


class TestDeterminism:
    @settings(max_examples=30)
    @given(tables(), st.sampled_from(['minimum', 'grid']), st.integers(0, 3), st.integers(0, 3))
    def test_seed_and_epoch_say_it_all(self, table, strategy, seed, epoch):
        planner = PositiveChipPlanner(table, PAPER, strategy, (20, 40), seed)
        planner.plan(epoch + 1)
        fresh = plan_positive_chips(table, PAPER, strategy, seed, epoch, (20, 40))
        assert same(planner.plan(epoch), fresh)

    @settings(max_examples=30)
    @given(tables(), st.sampled_from(['minimum', 'grid']), st.randoms())
    def test_an_image_has_the_same_chips_in_any_part_of_the_data_set(self, table, strategy, random):
        whole = plan_positive_chips(table, PAPER, strategy, seed=1, epoch=2)
        ids = list(range(len(table)))
        random.shuffle(ids)
        ids = ids[: random.randint(1, len(ids))]
        part = AnnotationTable.from_images(
            [
                (
                    table.width[i],
                    table.height[i],
                    table.boxes_of(i),
                    table.ignore[table.offset[i] : table.offset[i + 1]],
                )
                for i in ids
            ]
        )
        plan = plan_positive_chips(part, PAPER, strategy, seed=1, epoch=2, image_ids=ids)
        for i in ids:
            assert same(plan.take(plan.image == i), whole.take(whole.image == i))

    @pytest.mark.parametrize('strategy', ['minimum', 'grid'])
    def test_draws_are_keyed_by_the_index_in_the_whole_data_set(self, strategy):
        image = (640, 480, [[300, 200, 310, 210]], None)
        whole = plan_positive_chips(AnnotationTable.from_images([image] * 8), PAPER, strategy)
        part = plan_positive_chips(
            AnnotationTable.from_images([image] * 2), PAPER, strategy, image_ids=[6, 3]
        )
        assert part.image.tolist() == [6, 3]
        np.testing.assert_array_equal(part.box, whole.box[[6, 3]])
        assert len(np.unique(whole.box, axis=0)) > 1

    @pytest.mark.parametrize('strategy', ['minimum', 'grid'])
    def test_it_does_not_matter_how_many_images_are_looked_at_together(
        self, strategy, coco_tiny, monkeypatch
    ):
        whole = plan_positive_chips(coco_tiny[1], PAPER, strategy)
        monkeypatch.setattr(targets, '_BOXES', 10)
        monkeypatch.setattr(positive, '_CHIPS', 7)
        assert same(plan_positive_chips(coco_tiny[1], PAPER, strategy), whole)


class TestGrid:
    @settings(max_examples=60)
    @given(tables(), st.integers(1, 200), st.integers(0, 5))
    def test_it_misses_boxes_only_within_a_stride_of_the_chip_size(self, table, stride, epoch):
        plan = plan_positive_chips(table, PAPER, 'grid', epoch=epoch, stride=stride)
        for image, level, box in must_be_covered(table, PAPER):
            scale = PAPER.scales(table.width[image], table.height[image])[level]
            longest = (box[2:] - box[:2]).max() * scale
            if longest <= 512 - stride - 1e-3:
                assert any(inside(box, window) for window in windows(plan, image, level))

    @settings(max_examples=60)
    @given(tables(), st.integers(1, 200))
    def test_chips_are_on_the_grid_or_flush_with_the_far_edges(self, table, stride):
        plan = plan_positive_chips(table, PAPER, 'grid', stride=stride)
        size = np.stack([table.width, table.height], axis=1)[plan.image]
        scale = PAPER.scales(size[:, 0], size[:, 1])[np.arange(len(plan)), plan.level][:, None]
        steps = plan.box[:, :2] * scale / stride
        flush = np.abs(plan.box[:, 2:] - size) < 1e-3
        assert ((np.abs(steps - steps.round()) < 1e-3) | flush).all()

    def test_by_hand(self):
        # Chips of 64 px start at 0, 32, 64, 96 and 136 = 200 - 64. The first box is held by the
        # one at 32 alone, the second is too long for any but that at 136, the third, of 60 px
        # from 66, lies between the grid's chips.
        boxes = [[40, 0, 95, 10], [138, 0, 200, 10], [66, 0, 129, 10]]
        plan = plan_positive_chips(one_image(boxes, 200, 64), PLAIN, 'grid')
        assert sorted(plan.box.tolist()) == [[32, 0, 96, 64], [136, 0, 200, 64]]

    def test_the_stride_is_drawn_anew_in_each_epoch(self):
        # Only strides that divide 114 have a chip for this box: of 56 to 59, that is 57.
        table = one_image([[114, 0, 178, 10]], 1000, 64)
        planner = PositiveChipPlanner(table, PLAIN, 'grid', (56, 59))
        found = np.mean([len(planner.plan(epoch)) for epoch in range(400)])
        assert 0.15 < found < 0.35
        for stride, chips in [(56, 0), (57, 1), (58, 0), (59, 0)]:
            assert len(plan_positive_chips(table, PLAIN, 'grid', stride=stride)) == chips

    def test_ties_are_drawn_anew_in_each_epoch(self):
        table = one_image([[300, 300, 310, 310]])
        origins = {
            tuple(plan_positive_chips(table, PLAIN, 'grid', epoch=e).box[0].tolist())
            for e in range(100)
        }
        assert {(x, y) for x, y, _, _ in origins} == {
            (x, y) for x in (256, 288) for y in (256, 288)
        }

    def test_rounding_does_not_decide_whether_a_chip_holds_a_box(self):
        # At factor 3 chips start at 32 k / 3 and end at (32 k + 512) / 3: whole numbers for these
        # k. Each box ends there, and only chip k starts before it.
        images = []
        for k in range(2, 900, 3):
            end = (32 * k + 512) // 3
            images.append((10_000, 171, [[end - 170, 0, end, 10]], None))
        plan = plan_positive_chips(
            AnnotationTable.from_images(images), ScalePyramid(512, PAPER.levels[:1]), 'grid'
        )
        assert plan.image.tolist() == list(range(len(images)))

    def test_the_flush_chip_is_one_among_equals(self):
        # The grid's chips at 128 and, flush with the edge, at 136 both hold the box.
        planner = PositiveChipPlanner(one_image([[140, 0, 180, 10]], 200, 64), PLAIN, 'grid')
        x = np.array([planner.plan(epoch).box[0, 0] for epoch in range(400)])
        # The standard deviation is 10.
        assert abs((x == 128).sum() - 200) < 50
        assert abs((x == 136).sum() - 200) < 50

    def test_real_images(self, coco_tiny):
        # The authors' release has 360 and 385 chips on these images.
        split, table = coco_tiny
        release = dict(train=360, val=385)[split]
        chips = len(plan_positive_chips(table, PAPER, 'grid'))
        assert abs(chips - release) <= 0.02 * release
        mean = np.mean([len(plan_positive_chips(table, PAPER, 'grid', epoch=e)) for e in range(20)])
        assert abs(mean - release) <= 0.02 * release


class TestOrphans:
    # 3 * 400 > 512: too long for the level at which its size, 63, is valid; 1.667 * 400 > 512.
    THIN = [[10, 10, 20, 410]]

    def test_an_orphan_has_no_chip(self):
        table = one_image(self.THIN)
        assert len(plan_positive_chips(table, PAPER)) == 0
        assert plan_statistics(table, PAPER, ChipPlan.empty()).orphans == 1

    def test_an_adopted_orphan_has_one_at_the_finest_level_where_it_fits(self):
        pyramid = ScalePyramid(PAPER.chip_size, PAPER.levels, adopt_orphans=True)
        table = one_image(self.THIN)
        plan = plan_positive_chips(table, pyramid)
        assert plan.level.tolist() == [2]
        assert plan_statistics(table, pyramid, plan).orphans == 0


class TestOddImages:
    @pytest.mark.parametrize(('width', 'height'), [(10_000, 200), (200, 10_000)])
    def test_a_long_image(self, width, height):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, [width - 60, height - 60], (400, 2))
        table = one_image(
            np.concatenate([start, start + rng.uniform(5, 60, (400, 2))], axis=1), width, height
        )
        plan = plan_positive_chips(table, PAPER)
        assert plan_statistics(table, PAPER, plan).coverage == 1.0
        # At the fine level a chip's side is 171 px, so that no chip is needed twice in a row.
        assert 60 <= plan.count_per_level(3)[0] <= 150

    def test_a_1x1_image(self):
        plan = plan_positive_chips(one_image([[0, 0, 1, 1]], 1, 1), PAPER)
        assert plan.level.tolist() == [0]
        assert plan.box.tolist() == [[0, 0, 1, 1]]

    def test_a_box_that_is_the_whole_image(self):
        plan = plan_positive_chips(one_image([[0, 0, 640, 480]]), PAPER)
        assert plan.level.tolist() == [2]
        assert plan.box.tolist() == [[0, 0, 640, 480]]

    @pytest.mark.parametrize('strategy', ['minimum', 'grid'])
    def test_a_box_as_wide_as_any_image_has_a_chip(self, strategy):
        pyramid = ScalePyramid.from_config(
            dict(chip_size=600, levels=[dict(resize=dict(long_side=600), valid_range=(0, None))])
        )
        width = np.arange(1, 3001)
        boxes = np.stack([width * 0, width * 0, width, width * 0 + 1], axis=1)
        table = AnnotationTable.from_arrays(
            width, width * 0 + 1, np.arange(3001), boxes, np.zeros(3000, bool)
        )
        assert plan_positive_chips(table, pyramid, strategy).image.tolist() == list(range(3000))

    def test_boxes_at_both_ends_of_an_image_as_long_as_a_chip_share_it(self):
        # 512 / 333 * 333 is not 512 in floating point.
        for width in range(300, 400):
            table = one_image([[0, 0, 130, 130], [width - 130, 0, width, 130]], width, 140)
            plan = plan_positive_chips(table, PAPER)
            assert plan.count_per_level(3)[2] == 1

    @pytest.mark.parametrize('strategy', ['minimum', 'grid'])
    def test_images_without_boxes_with_crowd_only_and_with_bad_boxes(self, strategy):
        table = AnnotationTable.from_images(
            [
                (640, 480, [], None),
                (640, 480, [[0, 0, 50, 50]], [True]),
                (640, 480, [[np.nan] * 4, [700, 700, 800, 800], [5, 5, 5, 5]], None),
                (640, 480, [[0, 0, 20, 20]], None),
            ]
        )
        plan = plan_positive_chips(table, PAPER, strategy)
        assert plan.image.tolist() == [3]

    @pytest.mark.parametrize('strategy', ['minimum', 'grid'])
    @pytest.mark.parametrize('images', [[], [(640, 480, [], None)]])
    def test_no_valid_box_at_any_level_is_an_empty_plan(self, strategy, images):
        plan = plan_positive_chips(AnnotationTable.from_images(images), PAPER, strategy)
        assert len(plan) == 0
        assert plan.box.shape == (0, 4)
        assert plan.count_per_level(3).tolist() == [0, 0, 0]

    def test_a_dense_scene_of_3000_boxes(self):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, 3940, (3000, 2))
        boxes = np.concatenate([start, start + rng.uniform(8, 60, (3000, 2))], axis=1)
        table = one_image(boxes, 4000, 4000)
        fine = ScalePyramid(512, PAPER.levels[:1])
        planner = PositiveChipPlanner(table, fine)
        found = plan_statistics(table, fine, planner.plan())
        assert found.coverage == 1.0
        assert found.chips < 560
        # That is beyond proof, which is not kept secret.
        assert planner.unproven == 1

    def test_a_scene_of_20000_px_keeps_its_boxes_inside_in_float32(self):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, 19_900, (2000, 2))
        boxes = np.concatenate([start, start + rng.uniform(8, 90, (2000, 2))], axis=1)
        table = one_image(boxes, 20_000, 20_000)
        for epoch in range(3):
            plan = plan_positive_chips(table, PAPER, epoch=epoch)
            assert plan_statistics(table, PAPER, plan).coverage == 1.0


def test_rounding_to_float32_takes_nothing_off_the_boxes(monkeypatch):
    # Every chip at the least of its slack, where it ends with its box.
    monkeypatch.setattr(positive, 'uniform', lambda *key: np.zeros(np.broadcast(*key).shape))
    rng = np.random.default_rng(0)
    start = rng.uniform(200, 19_000, (2000, 2)).astype(np.float32)
    images = [(20_000, 20_000, [[x, y, x + 33.3, y + 44.4]], None) for x, y in start]
    table = AnnotationTable.from_images(images)
    plan = plan_positive_chips(table, ScalePyramid(512, PAPER.levels[:1]))
    assert (plan.box[:, 2:] >= table.boxes[:, 2:]).all()
    assert (plan.box[:, 2:] - table.boxes[:, 2:]).max() < 0.005


def test_a_plan_of_a_million_images_fits_in_200_mb():
    # 4.4 chips per image, as on COCO.
    empty = ChipPlan.empty()
    per_chip = sum(
        getattr(empty, name)[:0].itemsize * (4 if name == 'box' else 1)
        for name in ('image', 'level', 'box', 'kind')
    )
    assert per_chip == 22
    plan = plan_positive_chips(one_image([[0, 0, 20, 20]]), PAPER)
    assert plan.box.dtype == np.float32
    assert sum(getattr(plan, name).nbytes for name in ('image', 'level', 'box', 'kind')) == per_chip
    assert 4.4e6 * per_chip < 200e6


def ten_images():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 400, (10, 6, 2))
    boxes = np.concatenate([start, start + rng.uniform(5, 200, start.shape)], axis=2)
    return AnnotationTable.from_images([(640, 480, b, None) for b in boxes])


@pytest.mark.parametrize('shares', [1, 2, 3, 20])
def test_shares_that_were_found_elsewhere_are_the_whole(monkeypatch, shares):
    """Each process of a machine finds a share."""
    monkeypatch.setattr(targets, '_BOXES', 7)
    table, told = ten_images(), []
    whole, joined = (PositiveChipPlanner(table, PAPER, seed=3) for _ in range(2))
    joined.progress = lambda done, total: told.append((done, total))
    found = [joined.find((k, shares)) for k in range(shares)]
    assert all(0 < done <= total == 10 for done, total in told)
    if shares < 20:  # else some have nothing
        assert all(len(share.chips) for share in found)
    joined.found = FoundChips.joined(found)
    for epoch in range(2):
        assert same(joined.plan(epoch), whole.plan(epoch))


@pytest.mark.parametrize('strategy', ['minimum', 'grid'])
def test_chips_at_some_positions_are_those_of_the_plan(monkeypatch, strategy):
    monkeypatch.setattr(positive, '_CHIPS', 5)
    ids = np.arange(10) * 3 + 1
    planner = PositiveChipPlanner(ten_images(), PAPER, strategy, image_ids=ids)
    plan = planner.plan(1)
    index = np.random.default_rng(0).permutation(len(plan))[:13]
    assert same(planner.plan(1, index), plan.take(index))
    assert len(planner.plan(1, index[:0])) == 0


def test_progress_is_told():
    table = AnnotationTable.from_images([(640, 480, [[0, 0, 20, 20]], None)] * 5)
    told = []
    plan_positive_chips(table, PAPER, progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 5)]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(strategy='fewest'), r"strategy must be one of \('minimum', 'grid'\), got 'fewest'"),
        (
            dict(strategy='grid', stride=0),
            'stride must be a positive number of scaled pixels .* got 0',
        ),
        (dict(strategy='grid', stride=(59, 56)), r'got \(59, 56\)'),
        (dict(strategy='grid', stride=(56.5, 59)), r'got \(56.5, 59\)'),
        (dict(strategy='grid', stride='32'), "got '32'"),
        (dict(image_ids=[1, 2]), r'1 images need as many image_ids, got shape \(2,\)'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_positive_chips(one_image([]), PAPER, **arguments)
