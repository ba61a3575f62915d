"""Annotations in: clipping, degenerate boxes, COCO files, and errors that name the culprit."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from mmsniper.chips import AnnotationTable, CocoFile


def one_image(boxes, ignore=None, width=100, height=50):
    return AnnotationTable.from_images([(width, height, boxes, ignore)])


class TestFromImages:
    def test_images_keep_their_boxes(self):
        table = AnnotationTable.from_images(
            [
                (100, 50, [[0, 0, 10, 10], [5, 5, 20, 30]], None),
                (30, 20, [], None),
                (60, 40, np.array([[1, 2, 3, 4]]), [True]),
            ]
        )
        assert len(table) == 3
        assert table.width.tolist() == [100, 30, 60]
        assert table.offset.tolist() == [0, 2, 2, 3]
        assert table.image.tolist() == [0, 0, 2]
        assert table.boxes_of(0).tolist() == [[0, 0, 10, 10], [5, 5, 20, 30]]
        assert table.boxes_of(1).shape == (0, 4)
        assert table.ignore.tolist() == [False, False, True]

    def test_boxes_are_clipped_to_the_image(self):
        table = one_image([[-5, -7, 130, 90]])
        assert table.boxes.tolist() == [[0, 0, 100, 50]]
        assert not table.ignore.any()

    @pytest.mark.parametrize(
        'box',
        [
            [10, 10, 10, 20],  # no width
            [10, 10, 10.9, 20],  # under a pixel
            [10, 20, 30, 10],  # turned over
            [120, 10, 150, 20],  # outside
            [99.5, 10, 150, 20],  # half a pixel inside
            [math.nan, 10, 20, 20],
            [10, 10, math.inf, 20],
            [10, 10, 1e300, 20],  # infinite in float32
        ],
    )
    def test_degenerate_boxes_stay_but_are_ignored(self, box):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            table = one_image([box, [0, 0, 9, 9]])
        assert table.ignore.tolist() == [True, False]
        assert len(table.boxes) == 2

    def test_a_box_of_one_pixel_counts(self):
        assert not one_image([[10, 10, 11, 11]]).ignore.any()

    def test_no_images(self):
        table = AnnotationTable.from_images([])
        assert len(table) == 0
        assert table.boxes.shape == (0, 4)

    @pytest.mark.parametrize(
        ('image', 'message'),
        [
            ((0, 50, [], None), 'image 1 has the size 0x50'),
            ((100, -3, [], None), 'image 1 has the size 100x-3'),
            ((100, 50.5, [], None), 'whole numbers'),
            ((None, 50, [], None), 'image 1 has the size Nonex50'),
            (('100', 50, [], None), 'image 1 has the size 100x50'),
            ((math.nan, 50, [], None), 'image 1'),
            ((2**40, 50, [], None), 'image 1'),
            (
                (100, 50, [[1, 2, 3]], None),
                r'image 1: boxes must have the shape \(n, 4\), xyxy, got \(1, 3\)',
            ),
            ((100, 50, [[1, 2, 3, 4], [5, 6]], None), 'image 1: boxes must be numbers'),
            ((100, 50, [1, 2, 3, 4], None), 'image 1: boxes must have the shape'),
            (
                (100, 50, [[1, 2, 3, 4]], [True, False]),
                'image 1: 1 boxes need as many ignore flags',
            ),
        ],
    )
    def test_an_error_names_the_image(self, image, message):
        with pytest.raises(ValueError, match=message):
            AnnotationTable.from_images([(9, 9, [], None), image])


class TestFromArrays:
    GOOD = dict(
        width=[10, 20], height=[10, 20], offset=[0, 1, 1], boxes=[[0, 0, 5, 5]], ignore=[False]
    )

    def test_good_arrays(self):
        assert len(AnnotationTable.from_arrays(**self.GOOD)) == 2

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (dict(height=[10]), r'height must have shape \(2,\), got \(1,\)'),
            (dict(offset=[0, 1]), r'offset must have shape \(3,\)'),
            (dict(boxes=[[0, 0, 5]]), r'boxes must have shape \(1, 4\)'),
            (dict(ignore=[False, True]), r'ignore must have shape \(1,\)'),
            (dict(width=[10, 0]), 'image 1 has the size 0x20'),
            (dict(offset=[0, 0, 2]), 'offset must ascend from 0 to the number of boxes, 1'),
            (dict(offset=[1, 1, 1]), 'offset must ascend from 0'),
            (dict(offset=[0, 2, 1]), 'offset must ascend'),
        ],
    )
    def test_arrays_that_do_not_fit_together(self, change, message):
        with pytest.raises(ValueError, match=message):
            AnnotationTable.from_arrays(**{**self.GOOD, **change})


def coco(**changes):
    content = dict(
        images=[
            dict(id=7, width=100, height=50, file_name='7.jpg'),
            dict(id='b', width=30, height=20, file_name='b.jpg'),
        ],
        annotations=[
            dict(id=1, image_id='b', bbox=[1, 2, 3, 4], category_id=99),
            dict(id=2, image_id=7, bbox=[10, 10, 20, 30], category_id=5, iscrowd=0),
            dict(id=3, image_id=7, bbox=[0, 0, 100, 50], category_id=5, iscrowd=1),
            dict(id=4, image_id=7, bbox=[5, 5, 5, 5], category_id=99, ignore=True),
            dict(id=5, image_id=7, bbox=[5, 5, 9, 9], category_id=99, area=0),
            dict(id=6, image_id=7, bbox=[6, 6, 9, 9], category_id=99),
        ],
        categories=[dict(id=99, name='cat'), dict(id=5, name='dog')],
    )
    return {**content, **changes}


class TestFromCoco:
    def test_what_is_used_of_the_images_in_the_order_of_the_file_as_corners(self):
        table = AnnotationTable.from_coco(coco())
        assert table.width.tolist() == [100, 30]
        assert table.boxes_of(0).tolist() == [[10, 10, 30, 40], [0, 0, 100, 50], [6, 6, 15, 15]]
        assert table.boxes_of(1).tolist() == [[1, 2, 4, 6]]
        assert table.ignore.tolist() == [False, True, False, False]  # the crowd

    def test_the_classes_and_images_that_are_used(self):
        table = AnnotationTable.from_coco(coco(), ['cat'], dict(min_size=30))
        assert table.width.tolist() == [100]
        assert table.boxes.tolist() == [[6, 6, 15, 15]]

    def test_a_file_and_what_was_read_of_it(self, tmp_path):
        file = tmp_path / 'a.json'
        file.write_text(json.dumps(coco()))
        for source in (file, str(file), CocoFile.read(file)):
            assert len(AnnotationTable.from_coco(source).boxes) == 4

    def test_a_file_without_annotations(self):
        table = AnnotationTable.from_coco(coco(annotations=[]))
        assert len(table) == 2
        assert table.boxes.shape == (0, 4)


def test_tables_are_joined_image_by_image():
    boxes = [[[1, 2, 30, 40]], [], [[5, 5, 9, 9], [0, 0, 8, 8]]]
    images = [(100 + i, 90 + i, b, [i == 2] * len(b)) for i, b in enumerate(boxes)]
    labels = np.array([7, 1, 2], np.int32)
    whole = replace(AnnotationTable.from_images(images), label=labels)
    for cut, seen in enumerate((0, 1, 1, 3)):
        parts = [AnnotationTable.from_images(part) for part in (images[:cut], images[cut:])]
        assert AnnotationTable.joined(parts).label is None
        parts = [replace(part, label=x) for part, x in zip(parts, np.split(labels, [seen]))]
        assert AnnotationTable.joined([replace(parts[0], label=None), parts[1]]).label is None
        joined = AnnotationTable.joined(parts)
        for name, array in vars(whole).items():
            np.testing.assert_array_equal(getattr(joined, name), array, name)
            assert np.asarray(getattr(joined, name)).dtype == np.asarray(array).dtype
