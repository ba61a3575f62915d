"""Toy scenes: what is promised about boxes, sizes and look-alikes holds on every scene."""

import cv2
import numpy as np
import pytest

from mmsniper.testing.toy_scenes import (
    CLASSES,
    CLEARANCE,
    ELONGATIONS,
    SMALL_SIZES,
    box_gaps,
    plan_scene,
    render_scene,
    rotated_outline,
    shape_coverage,
    shape_outline,
)


@pytest.fixture(scope='module')
def scenes():
    return [plan_scene(0, 'train', index) for index in range(120)]


@pytest.fixture(scope='module')
def rotated_scenes():
    return [plan_scene(0, 'train', index, rotated=True) for index in range(120)]


@pytest.fixture(params=['scenes', 'rotated_scenes'])
def either(request):
    return request.getfixturevalue(request.param)


def labelled_boxes(scene, below=np.inf):
    return np.array([o.box for o in scene.labelled if o.size < below]).reshape(-1, 4)


def test_a_scene_depends_on_its_own_seed_split_and_index_only():
    first = plan_scene(5, 'val', 7)
    plan_scene(5, 'val', 8)
    again = plan_scene(5, 'val', 7)
    assert np.array_equal([o.box for o in first.objects], [o.box for o in again.objects])
    assert np.array_equal(render_scene(first), render_scene(again))
    for other in (plan_scene(6, 'val', 7), plan_scene(5, 'train', 7), plan_scene(5, 'val', 8)):
        same_size = (other.width, other.height) == (first.width, first.height)
        assert not same_size or not np.array_equal(render_scene(other), render_scene(first))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, val, got 'test'"):
        plan_scene(0, 'test', 0)


def test_images_are_about_a_thousand_pixels_and_vary_in_shape(scenes):
    sides = np.array([(s.width, s.height) for s in scenes])
    assert sides.min() >= 800
    assert sides.max() <= 1200
    aspects = sides[:, 0] / sides[:, 1]
    assert aspects.min() < 0.8
    assert aspects.max() > 1.25


def test_labelled_objects_range_from_10_to_400_px_with_many_small_ones(either):
    sizes = np.array([o.size for s in either for o in s.labelled])
    assert sizes.min() >= 10 - 1e-9
    assert sizes.max() <= 400
    assert sizes.min() < 11
    assert sizes.max() > 350
    assert 0.4 < (sizes < 32).mean() < 0.7
    assert (sizes >= 96).mean() > 0.1


def test_every_class_is_as_frequent_as_the_others(scenes):
    counts = np.bincount([o.label for s in scenes for o in s.labelled], minlength=len(CLASSES))
    assert counts.min() > 0.8 * counts.mean()


def test_small_objects_are_gathered_and_most_of_the_picture_is_free_of_them(scenes):
    for scene in scenes:
        small = labelled_boxes(scene, SMALL_SIZES[1])
        if len(small):
            extent = small[:, 2:].max(axis=0) - small[:, :2].min(axis=0)
            assert extent.max() <= 300 + 300 + 150  # three clusters within 300 px of the first
    windows = [
        len({tuple((b[:2] // 150).astype(int)) for b in labelled_boxes(s, SMALL_SIZES[1])})
        for s in scenes
    ]
    assert np.mean(windows) < 6


def test_boxes_lie_inside_the_image_and_none_overlaps_another(either):
    for scene in either:
        boxes = np.array([o.box for o in scene.objects]).reshape(-1, 4)
        assert (boxes >= 0).all()
        assert (boxes <= [scene.width, scene.height] * 2).all()
        for i, box in enumerate(boxes):
            assert (box_gaps(box, np.delete(boxes, i, axis=0)) > 0).all()


def test_lookalikes_keep_away_from_the_labelled_small_objects(either):
    gaps = [
        box_gaps(o.box, labelled_boxes(s, SMALL_SIZES[1])).min(initial=np.inf)
        for s in either
        for o in s.lookalikes
    ]
    assert len(gaps) > 3 * len(either)
    assert min(gaps) >= CLEARANCE == 250


def test_boxes_are_the_extent_of_what_is_drawn_unless_scenes_are_rotated(scenes):
    for item in (o for s in scenes for o in s.objects):
        extent = np.concatenate([item.polygon.min(axis=0), item.polygon.max(axis=0)])
        assert np.array_equal(item.box, extent)
        assert item.corners.tolist() == item.box[[[0, 1], [2, 1], [2, 3], [0, 3]]].tolist()
        assert item.size == np.sqrt((extent[2] - extent[0]) * (extent[3] - extent[1]))


def test_objects_of_rotated_scenes_lie_at_all_angles_and_are_elongated(rotated_scenes):
    items = [o for s in rotated_scenes for o in s.labelled]
    sides = np.array([np.diff(o.corners[:3], axis=0) for o in items])
    angles = np.degrees(np.arctan2(sides[:, 0, 1], sides[:, 0, 0])) % 180
    assert np.histogram(angles, 6, (0, 180))[0].min() > 0.7 * len(items) / 6
    length, width = np.linalg.norm(sides, axis=2).T
    assert (length / width).min() >= ELONGATIONS[0] - 1e-9
    assert (length / width).max() <= ELONGATIONS[1] + 1e-9
    assert np.allclose([o.size for o in items], np.sqrt(length * width))


def test_some_scenes_have_lookalikes_but_nothing_labelled():
    scenes = [plan_scene(0, 'train', index) for index in range(240)]
    empty = [s for s in scenes if not s.labelled]
    assert 4 <= len(empty) <= 24
    assert all(s.lookalikes for s in empty)


def test_box_gaps_by_hand():
    others = np.array([[30, 0, 40, 10], [0, 15, 10, 20], [5, 5, 20, 20], [30, 17, 40, 25]], float)
    assert box_gaps(np.array([0, 0, 10, 10.0]), others).tolist() == [20, 5, -5, 20]


@pytest.mark.parametrize('lookalike', [False, True])
@pytest.mark.parametrize('name', CLASSES)
def test_box_is_tight_around_the_drawn_pixels(name, lookalike):
    rng = np.random.default_rng(0)
    for size in (10.0, 17.3, 40.0, 133.0, 400.0):
        outline = shape_outline(rng, name, size, lookalike)
        assert np.allclose(outline.min(axis=0), 0)
        extent = outline.max(axis=0)
        assert np.sqrt(extent.prod()) == pytest.approx(size)

        # Drawn 16 times larger, a pixel is a sixteenth of one.
        corner = rng.uniform(3, 5, 2)
        coverage, left, top = shape_coverage((outline + corner) * 16, 8000, 8000)
        for axis, start in ((0, left), (1, top)):
            drawn = np.flatnonzero(coverage.max(axis=axis) > 0)
            assert (start + drawn[0]) / 16 == pytest.approx(corner[axis], abs=0.15)
            far = corner[axis] + extent[axis]
            assert (start + drawn[-1] + 1) / 16 == pytest.approx(far, abs=0.15)

        coverage, left, top = shape_coverage(outline + corner, 800, 800)
        assert [left, top] == np.floor(corner).tolist()
        assert [left + coverage.shape[1], top + coverage.shape[0]] == np.ceil(
            corner + extent
        ).tolist()


@pytest.mark.parametrize('lookalike', [False, True])
@pytest.mark.parametrize('name', CLASSES)
def test_the_rectangle_is_tight_around_a_rotated_shape_at_its_own_angle(name, lookalike):
    rng = np.random.default_rng(0)
    for size in (10.0, 17.3, 40.0, 133.0, 400.0):
        outline, corners = rotated_outline(rng, name, size, lookalike)
        first, second = corners[1] - corners[0], corners[3] - corners[0]
        assert np.allclose(corners[2] - corners[1], second)
        assert first @ second == pytest.approx(0, abs=1e-6)
        # In parts of the two sides the outline goes from 0 to 1.
        axes = np.stack([first / (first @ first), second / (second @ second)])
        shares = (outline - corners[0]) @ axes.T
        assert np.allclose([shares.min(axis=0), shares.max(axis=0)], [[0, 0], [1, 1]])
        length, width = np.linalg.norm([first, second], axis=1)
        assert np.sqrt(length * width) == pytest.approx(size)
        assert np.allclose(corners.min(axis=0), 0)
        assert not lookalike or len(outline) > 4


def test_coverage_of_a_rectangle_is_exact_to_an_eighth_of_a_pixel():
    polygon = np.array([[2.5, 3], [6, 3], [6, 7.25], [2.5, 7.25]])
    coverage, left, top = shape_coverage(polygon, 20, 20)
    assert (left, top, coverage.shape) == (2, 3, (5, 4))
    expected = np.outer([1, 1, 1, 1, 0.25], [0.5, 1, 1, 1])
    assert np.abs(coverage - expected).max() <= 0.14


@pytest.mark.parametrize(('name', 'kept'), [('disc', 0.75), ('ring', 0.75), ('square', 0.75)])
def test_a_lookalike_lacks_a_quarter_of_its_shape(name, kept):
    def ink(lookalike):
        rng = np.random.default_rng(3)
        shares = []
        for _ in range(20):
            outline = shape_outline(rng, name, 100, lookalike)
            coverage, _, _ = shape_coverage(outline, 400, 400)
            shares.append(coverage.sum() / 100**2)
        return np.mean(shares)

    # The box of a look-alike may shrink with the missing part, so the share is a bit higher.
    assert kept - 0.02 < ink(True) / ink(False) < kept + 0.12


def test_a_ring_has_a_hole_and_a_disc_has_none():
    rng = np.random.default_rng(1)
    for name, filled in (('disc', 1.0), ('ring', 0.0)):
        coverage, _, _ = shape_coverage(shape_outline(rng, name, 60) + 5, 100, 100)
        assert coverage[coverage.shape[0] // 2, coverage.shape[1] // 2] == filled


def test_objects_stand_out_from_what_is_behind_them():
    for index in range(4):
        scene = plan_scene(1, 'val', index)
        image = render_scene(scene)
        assert image.dtype == np.uint8
        assert image.shape == (scene.height, scene.width, 3)
        for item in scene.objects:
            coverage, left, top = shape_coverage(item.polygon, scene.width, scene.height)
            height, width = coverage.shape
            inside = image[top : top + height, left : left + width][coverage == 1]
            grown = cv2.dilate(np.pad(coverage, 8), np.ones((9, 9))) > 0
            ring = grown & ~(cv2.dilate(np.pad(coverage, 8), np.ones((3, 3))) > 0)
            padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode='edge')
            outside = padded[top : top + height + 16, left : left + width + 16][ring]
            assert np.abs(inside.mean(axis=0) - outside.mean(axis=0)).max() > 30
