"""Rotated boxes without MMRotate: rectangles around polygons, COCO's and DOTA's files."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips import AnnotationTable, suggest_pyramid
from mmsniper.chips.annotations import corners_of_masks
from mmsniper.chips.dota_files import dota_fault, read_dota
from mmsniper.chips.rotated_boxes import rectangle_sides, smallest_rectangles

THIN = [60.0, 20, 64, 24, 24, 64, 20, 60]
"""A rectangle of 56.6 x 5.7 px at 45 degrees, size 17.9, enclosed by 44 x 44 px."""
SIZE = math.sqrt(320)


def coco(*polygons):
    boxes = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    return dict(
        images=[dict(id=1, file_name='a.jpg', width=400, height=300)],
        annotations=[
            dict(
                id=i,
                image_id=1,
                category_id=1,
                bbox=[*box.min(axis=0).tolist(), *np.ptp(box, axis=0).tolist()],
                segmentation=[list(polygon)],
            )
            for i, (box, polygon) in enumerate(zip(boxes, polygons), 1)
        ],
        categories=[dict(id=1, name='ship')],
    )


coordinates = st.floats(0, 100, width=32)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20))
def test_the_smallest_rectangle_is_that_of_opencv_whatever_the_number_of_points(points):
    points = np.array(points, np.float32)
    (corners,) = smallest_rectangles([points.reshape(-1)])
    _, (width, height), _ = cv2.minAreaRect(points)
    area = rectangle_sides(corners[None]).prod()
    # OpenCV's is never smaller, but for rounding, and larger where points coincide.
    assert area <= width * height * (1 + 1e-3) + 0.5
    # All points are inside: on one side of each edge.
    corners = corners.reshape(4, 2)
    edges = np.roll(corners, -1, axis=0) - corners
    to_points = points[:, None] - corners
    cross = edges[:, 0] * to_points[..., 1] - edges[:, 1] * to_points[..., 0]
    assert (cross >= -1e-6 * max(100, np.abs(edges).max()) * 100).all()


def test_polygons_of_any_number_of_points_are_taken_at_once():
    octagon = [10.0, 0, 20, 0, 30, 10, 30, 20, 20, 30, 10, 30, 0, 20, 0, 10]
    inside = [*THIN, 42, 42]  # a fifth point in the middle changes nothing
    found = smallest_rectangles([THIN, octagon, inside, [5.0, 5, 5, 5]])
    sides = np.sort(rectangle_sides(found))
    assert sides[0] == pytest.approx(sides[2])
    assert sides[0] == pytest.approx([math.sqrt(32), math.sqrt(3200)])
    assert sides[1] == pytest.approx([math.sqrt(800)] * 2)
    assert sides[3].tolist() == [0, 0]
    assert np.isnan(smallest_rectangles([[math.nan, *THIN[1:]], [math.nan, *inside[1:]]])).all()


def test_coco_files_give_rotated_boxes_by_their_polygons():
    upright = AnnotationTable.from_coco(coco(THIN))
    table = AnnotationTable.from_coco(coco(THIN), rotated=True)
    assert upright.sizes_of(slice(None)) == pytest.approx([44])
    assert table.sizes_of(slice(None)) == pytest.approx([SIZE])
    assert table.boxes.tolist() == pytest.approx(np.array([[20, 20, 64, 64]]), abs=1e-4)
    assert upright.outlines_of(slice(None)).shape == (1, 4)
    assert table.outlines_of(slice(None)).shape == (1, 8)


def test_a_polygon_that_is_missing_is_named():
    file = coco(THIN)
    file['annotations'][0]['segmentation'] = dict(counts='abc', size=[300, 400])
    with pytest.raises(ValueError, match=r'annotation .*1.* has no polygon as its segmentation'):
        AnnotationTable.from_coco(file, rotated=True)
    with pytest.raises(ValueError, match=r'object 1 has no polygon'):
        corners_of_masks([[THIN], None])


def test_what_sticks_out_of_four_corners_is_planned_too():
    """The smallest rectangle around a trapezium reaches beyond it, and the network learns that."""
    trapezium = np.array([[100.0, 100, 160, 160, 150, 170, 100, 120]])
    table = AnnotationTable.from_images([(400, 300, trapezium, None)])
    corners = table.corners.reshape(4, 2)
    assert table.boxes[0, :2] == pytest.approx(corners.min(axis=0))
    assert table.boxes[0, 0] < 99


def write_dota(folder):
    folder.mkdir(parents=True)
    numbers = ' '.join(map(str, THIN))
    (folder / 'b.txt').write_text(f'imagesource:GoogleEarth\ngsd:0.1\n{numbers} ship 1\n')
    (folder / 'a.txt').write_text(f'{numbers} plane 0\n\n{numbers} ship 0\n')
    (folder / 'c.txt').write_text('')


def test_dota_files_are_read_in_the_order_of_their_names(tmp_path):
    write_dota(tmp_path / 'annfiles')
    sizes = dict(a=(400, 300), b=(200, 100), c=(64, 48))
    table = read_dota(tmp_path / 'annfiles', sizes.get)
    assert table.width.tolist() == [400, 200, 64]
    assert np.diff(table.offset).tolist() == [2, 1, 0]
    assert table.sizes_of(slice(None)) == pytest.approx([SIZE] * 3)
    assert not table.ignore.any()


def test_a_line_that_is_not_dotas_is_named(tmp_path):
    (tmp_path / 'a.txt').write_text('1 2 3 4 ship 0\n')
    with pytest.raises(ValueError, match=r'a\.txt, line 1: expected x1 y1 .* it has 6 values'):
        read_dota(tmp_path, lambda _: (400, 300))
    (tmp_path / 'a.txt').write_text('\n1 2 3 4 5 6 7 ship 0 0\n')
    with pytest.raises(ValueError, match=r'a\.txt, line 2: .*could not convert'):
        read_dota(tmp_path, lambda _: (400, 300))
    (tmp_path / 'a.txt').unlink()
    with pytest.raises(ValueError, match=r'annotation files \*\.txt, .* but there is none'):
        read_dota(tmp_path, lambda _: (400, 300))
    with pytest.raises(ValueError, match=r'b, but there is no such folder'):
        read_dota(tmp_path / 'b', lambda _: (400, 300))
    write_dota(tmp_path / 'labelTxt')
    with pytest.raises(ValueError, match=r"there are some in '.*labelTxt'"):
        read_dota(tmp_path, lambda _: (400, 300))


def test_dotas_classes_are_those_of_the_config_and_empty_images_may_go(tmp_path):
    write_dota(tmp_path / 'annfiles')
    images, classes = dict(a=(400, 300), b=(200, 100)), ('ship', 'plane')
    table = read_dota(tmp_path / 'annfiles', images.__getitem__, classes, keep_empty=False)
    assert np.diff(table.offset).tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"a\.txt, line 3: the class 'ship' .*'ships' there, or "):
        read_dota(tmp_path / 'annfiles', lambda _: (400, 300), ('ships', 'plane'))


def test_what_mmrotate_does_not_read_is_told(tmp_path):
    line = f'{" ".join(map(str, THIN))} ship'
    for text, fault in (
        (f'{line} 0\n', ''),
        (f'{line} 0\nimagesource:x\n', r"a.txt, line 2, 'imagesource:x', is no object: "),
        (f'{line} 0\n\n', r"a.txt, line 2, '', is no object: "),
        (f'{line}\n', 'a.txt, line 1: expected x1 y1 x2 y2 x3 y3 x4 y4 class difficulty, as in'),
        (f'{line} hard\n', 'a.txt, line 1: expected x1 y1'),
        (f'{line}s 0\n', "a.txt, line 1: the class 'ships' is not among those of the config"),
    ):
        (tmp_path / 'a.txt').write_text(text)
        found = dota_fault(tmp_path, ('ship',))
        assert found.removeprefix(f'{tmp_path}/').startswith(fault)
        assert bool(found) == bool(fault)
    (tmp_path / 'a.txt').unlink()
    assert 'there is none' in dota_fault(tmp_path, ('ship',))


def test_a_pyramid_is_made_for_the_sizes_of_the_rotated_boxes():
    shifts = np.tile(np.arange(0, 200, 10), (8, 1)).T
    polygons = (np.array(THIN) + shifts).tolist()
    found = suggest_pyramid(AnnotationTable.from_coco(coco(*polygons), rotated=True))
    assert (found.smallest, found.largest) == pytest.approx((SIZE, SIZE), rel=1e-3)
    assert found.shares.well == 1
