"""CocoFile: faults that name file, entry, field and fix; what is used, counted by hand."""

import gzip
import json
import math
import re

import numpy as np
import pytest

from mmsniper.chips import CocoFile, nearest_name
from mmsniper.chips.coco_file import listed

BOXES = [[10, 10, 50, 60], [30, 40, 20, 20], [200, 100, 150, 100]]


def coco(boxes=BOXES, **changes):
    """One picture of 400x300 px; discs and rings in turn."""
    content = dict(
        images=[dict(id=1, file_name='a.jpg', width=400, height=300)],
        annotations=[
            dict(id=k, image_id=1, category_id=7 + k % 2, bbox=box) for k, box in enumerate(boxes)
        ],
        categories=[dict(id=7, name='disc'), dict(id=8, name='ring')],
    )
    return {**content, **changes}


def changed(key, k, **changes):
    """The file with an entry that is different; ``...`` takes a field out."""
    content = coco()
    entry = content[key][k]
    entry.update(changes)
    for name in [name for name, value in changes.items() if value is ...]:
        del entry[name]
    return content


def message_of(content):
    with pytest.raises(ValueError, match=r'train\.json') as caught:
        CocoFile.read(content, name='train.json').use().check_training()
    return str(caught.value)


class TestRead:
    def test_the_numbers_as_arrays(self):
        file = CocoFile.read(changed('annotations', 1, iscrowd=1, area=5, ignore=True))
        assert file.boxes.tolist() == BOXES
        assert file.area.tolist() == [3000, 5, 15000]
        assert file.crowd.tolist() == file.ignored.tolist() == [False, True, False]
        assert file.image.tolist() == [0, 0, 0]
        assert file.category.tolist() == [0, 1, 0]
        assert (file.width.tolist(), file.height.tolist()) == ([400], [300])
        assert file.class_names == ('disc', 'ring')
        assert file.warnings == ()
        assert file.plain

    @pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
    def test_with_a_byte_order_mark_and_without(self, tmp_path, encoding):
        path = tmp_path / 'ä.json'
        path.write_bytes(json.dumps(coco()).encode(encoding))
        file = CocoFile.read(path)
        assert file.name == str(path)
        assert file.plain == (encoding == 'utf-8')
        assert len(CocoFile.read(str(path)).boxes) == 3

    @pytest.mark.parametrize('text', ['', '000001\n', '{"images": [', '[' * 100_000])
    def test_what_is_not_json(self, tmp_path, text):
        path = tmp_path / 'a.json'
        path.write_text(text)
        with pytest.raises(ValueError, match=r'a\.json is not a JSON file'):
            CocoFile.read(path)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'none\.json'):
            CocoFile.read(tmp_path / 'none.json')

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            (coco(images=...), "no list 'images'"),
            (coco(annotations={}), r"no list 'annotations' \('annotations' is {}\)"),
            (coco(categories=None), "no list 'categories' .* 'categories' .of id, name"),
            (coco(annotations=[5]), r'annotations\[0\] is 5, expected a dict with id, image_id'),
            (changed('images', 0, id=...), r"images\[0\] \(a.jpg\): has no 'id'.*: add it"),
            (changed('images', 0, id=[3]), r"'id' is \[3\]"),
            (changed('images', 0, file_name=...), "image 1: has no 'file_name'"),
            (changed('images', 0, file_name=''), "image 1: 'file_name' is '', expected a file"),
            (changed('images', 0, width=...), r"image 1 \(a.jpg\): has no 'width'.*: add it"),
            (changed('images', 0, width=None), r"image 1 \(a.jpg\): 'width' is null"),
            (changed('images', 0, width='400'), "'width' is '400', expected a positive whole"),
            (changed('images', 0, height=0), "'height' is 0"),
            (changed('images', 0, height=-3), "'height' is -3"),
            (changed('images', 0, height=30.5), "'height' is 30.5"),
            (changed('images', 0, height=math.nan), "'height' is nan"),
            (changed('images', 0, height=10**30), "'height' is 1000"),
            (changed('categories', 1, id=7), r"id 7 occurs twice in 'categories', as .*\[0\] and"),
            (changed('categories', 1, name=...), r"categories\[1\]: has no 'name'"),
            (changed('annotations', 2, id=...), r'annotations\[2\] of image 1 \(a.jpg\): has no'),
            (changed('annotations', 2, id=0), "id 0 occurs twice in 'annotations'"),
            (changed('annotations', 2, image_id=...), "annotation 2: has no 'image_id'.*: add it$"),
            (changed('annotations', 2, image_id=9), "'image_id' is 9, .* or remove the annotation"),
            (changed('annotations', 2, image_id='1'), "'image_id' is '1', .* as 1: correct it$"),
            (changed('annotations', 2, image_id=[1]), r"'image_id' is \[1\]"),
            (changed('annotations', 2, category_id=...), "annotation 2 of .* no 'category_id'"),
            (changed('annotations', 2, category_id=1), "'category_id' is 1, .* 2 categories"),
            (changed('annotations', 2, bbox=...), r'annotation 2 of image 1 \(a.jpg\): has no'),
            (
                changed('annotations', 2, area='9'),
                "annotation 2 .*'area' is '9', expected a number",
            ),
            (changed('annotations', 2, area=math.nan), "'area' is nan"),
            (changed('annotations', 2, iscrowd='0'), "'iscrowd' is '0', expected 0 or 1"),
            (changed('annotations', 2, iscrowd=2), "'iscrowd' is 2"),
            (changed('annotations', 2, ignore=[]), r"'ignore' is \[\]"),
            (coco(images=[], annotations=[]), 'train.json has no image'),
        ],
    )
    def test_a_fault_is_told_with_entry_field_and_fix(self, content, message):
        with pytest.raises(ValueError, match=message):
            CocoFile.read(content, name='train.json').use().check_training()
        message_of(content)

    @pytest.mark.parametrize(
        'box',
        [
            None,
            [],
            [1, 2, 3],
            [1, 2, 3, 4, 5],
            ['1', '2', '3', '4'],
            [1, 2, 3, '4'],
            [1, 2, 3, None],
            [math.nan] * 4,
            [1, 2, 3, math.inf],
            [1, 2, 3, 1e300],
            [1, 2, 3, 10**30],
            [1, 2, 3, 2**31],
            [-(2**63), 2, 3, 4],
            [[1], 2, 3, 4],
            'wide',
            {},
        ],
    )
    def test_a_box_that_is_none(self, box):
        message = message_of(changed('annotations', 1, bbox=box))
        assert "annotation 1 of image 1 (a.jpg): 'bbox' is " in message
        assert 'expected [x, y, width, height], four numbers in pixels' in message
        assert '(1 such)' in message

    def test_numbers_up_to_those_of_32_bits(self):
        most = 2**31 - 1
        content = coco([[most, -most, 3, 4]])
        content['images'][0].update(width=most)
        file = CocoFile.read(content)
        assert file.boxes.tolist() == [[most, -most, 3, 4]]
        assert file.width.tolist() == [most]
        assert "'width' is 2147483648" in message_of(changed('images', 0, width=2**31))
        area = float(most) ** 2
        assert CocoFile.read(changed('annotations', 0, area=area)).area[0] == area
        assert "'area' is " in message_of(changed('annotations', 0, area=2**62))

    def test_all_boxes_as_text(self):
        content = coco([[str(v) for v in box] for box in BOXES])
        assert "annotation 0 of image 1 (a.jpg): 'bbox' is ['10'" in message_of(content)
        assert '(3 such)' in message_of(content)

    def test_what_exporters_leave_out_is_filled_in(self):
        content = changed('images', 0, width=400.0)
        CocoFile.read(content).complete()
        assert [a['area'] for a in content['annotations']] == [3000, 400, 15000]
        assert repr(content['images'][0]['width']) == '400'

    def test_an_area_that_is_there_stays(self):
        content = changed('annotations', 1, area=17)
        CocoFile.read(content).complete()
        assert content['annotations'][1]['area'] == 17

    def test_a_test_set_may_be_without_annotations(self):
        content = coco()
        del content['annotations']
        file = CocoFile.read(content, test=True)
        assert str(file.use()) == '0 annotations: 0 used; 1 image: all used'
        with pytest.raises(ValueError, match="no list 'categories'"):
            CocoFile.read(dict(images=content['images']), test=True)


class TestSuspicions:
    def test_corners_are_refused(self):
        boxes = [[10, 10, 50, 60], [300, 200, 350, 280], [200, 100, 350, 290], [250, 200, 320, 299]]
        message = message_of(coco(boxes))
        assert '3 of 4 boxes leave their image by far; the first is [300.0, 200.0, ' in message
        assert 'annotation 1 of image 1 (a.jpg)' in message
        assert 'Read as [x1, y1, x2, y2], 100% of all boxes fit' in message
        assert 'Write [x1, y1, x2 - x1, y2 - y1]' in message

    @pytest.mark.parametrize(
        ('end', 'fits'), [([401, 301], True), ([401.5, 301], False), ([401, 301.5], False)]
    )
    def test_corners_may_be_a_pixel_outside(self, end, fits):
        boxes = [[10, 10, 50, 60], [300, 200, 350, 280], [200, 100, 350, 290], [250, 200, *end]]
        content = coco(boxes)
        if fits:
            assert 'Read as [x1, y1, x2, y2], 100%' in message_of(content)
        else:
            (warning,) = CocoFile.read(content).warnings
            assert 'leave their image by far' in warning

    def test_a_few_boxes_that_leave_the_image_are_warned_of(self):
        (warning,) = CocoFile.read(coco([*BOXES, [350, 50, 390, 90]])).warnings
        assert warning.startswith('1 of 4 boxes leave their image by far; the first is [350.0, 5')
        assert warning.endswith('fit if read as [x1, y1, x2, y2]: are they corners?')
        (warning,) = CocoFile.read(coco([*BOXES, [350, 50, 200, 30]])).warnings
        assert 'width and height of the images those of the files?' in warning

    def test_images_whose_sides_are_exchanged(self):
        (warning,) = CocoFile.read(coco([*BOXES, [100, 280, 100, 100]])).warnings
        assert 'if width and height of the image are exchanged' in warning

    @pytest.mark.parametrize(
        ('box', 'fits'),
        [
            ([-1, -1, 302, 402], True),
            ([-1.5, -1, 302, 402], False),
            ([-1, -1.5, 302, 402], False),
            ([-1, -1, 302.5, 402], False),
            ([-1, -1, 302, 402.5], False),
        ],
    )
    def test_exchanged_sides_may_be_off_by_a_pixel(self, box, fits):
        (warning,) = CocoFile.read(coco([*BOXES, box])).warnings
        assert ('if width and height of the image are exchanged' in warning) == fits

    def test_among_square_images_too(self):
        content = coco([*BOXES, [100, 280, 100, 100], [10, 10, 50, 50]])
        content['images'].append(dict(id=2, file_name='b.jpg', width=200, height=200))
        content['annotations'][-1]['image_id'] = 2
        (warning,) = CocoFile.read(content).warnings
        assert 'if width and height of the image are exchanged' in warning

    def test_a_box_that_leaves_by_a_little_is_nothing(self):
        assert CocoFile.read(coco([[-3, -2, 90, 90], [350, 250, 55, 55]])).warnings == ()

    @pytest.mark.parametrize(
        ('box', 'beyond'),
        [
            ([200, 100, 240, 90], [200, 100, 240.5, 90]),
            ([200, 100, 90, 230], [200, 100, 90, 230.5]),
            ([-40, 100, 90, 90], [-40.5, 100, 90, 90]),
            ([200, -30, 90, 90], [200, -30.5, 90, 90]),
        ],
    )
    def test_far_is_a_tenth_of_the_images_side(self, box, beyond):
        assert CocoFile.read(coco([*BOXES, box])).warnings == ()
        (warning,) = CocoFile.read(coco([*BOXES, beyond])).warnings
        assert warning.startswith('1 of 4 boxes leave their image by far')

    @pytest.mark.parametrize(
        ('good', 'odd', 'far', 'refused'),
        [
            (16, 1, 3, True),  # 19 of 20 are corners
            (15, 1, 3, False),  # 18 of 19
            (17, 0, 3, True),
            (17, 0, 2, False),
            (36, 0, 4, True),  # a tenth of the file
            (37, 0, 3, False),
        ],
    )
    def test_corners_are_refused_if_nearly_all_boxes_are_some(self, good, odd, far, refused):
        boxes = [[10, 10, 60 + k, 60] for k in range(good)]  # as corners and as width and height
        boxes += [[90, 10, 20, 60]] * odd + [[200, 100, 350 + k, 290] for k in range(far)]
        content = coco(boxes)
        if refused:
            assert 'these are corners' in message_of(content)
        else:
            (warning,) = CocoFile.read(content).warnings
            assert warning.endswith('fit if read as [x1, y1, x2, y2]: are they corners?')

    @pytest.mark.parametrize(
        ('box', 'fits'),
        [
            ([200, -1, 350, 290], True),
            ([200, -1.5, 350, 290], False),
            ([200, 100, 201, 290], True),
            ([200, 100, 200, 290], False),  # of no width
        ],
    )
    def test_corners_begin_in_the_image_and_ascend(self, box, fits):
        (warning,) = CocoFile.read(coco([*BOXES, box, [350, 90, 390, 299]])).warnings
        assert ('are they corners?' in warning) == fits

    def test_parts_of_the_image_are_refused(self):
        message = message_of(coco([[0, 0.2, 0.3, 0.1], [0, 0, 0, 0], [0.5, 0.5, 0.5, 1]]))
        assert '2 of 3 boxes lie within 0..1' in message
        assert 'as in YOLO files' in message
        assert 'multiply by the size of the image' in message

    def test_some_parts_of_the_image_are_warned_of(self):
        (warning,) = CocoFile.read(coco([*BOXES, [0.1, 0.2, 0.3, 0.1]])).warnings
        assert warning.startswith('1 of 4 boxes lie within 0..1')
        assert 'annotation 3' in warning
        assert CocoFile.read(coco([*BOXES, [0.5, 0.5, 2, 1.5]])).warnings == ()

    def test_a_box_in_an_image_of_one_pixel_is_no_part(self):
        content = coco([*BOXES, [0, 0, 1, 1]])
        content['images'].append(dict(id=2, file_name='b.jpg', width=1, height=1))
        content['annotations'][3]['image_id'] = 2
        assert CocoFile.read(content).warnings == ()
        content['images'][1].update(width=2, height=2)
        content['annotations'][3]['bbox'] = [0.1, 0.1, 0.5, 0.5]
        (warning,) = CocoFile.read(content).warnings
        assert 'are these parts of the image' in warning

    @pytest.mark.parametrize(
        ('number', 'end', 'side', 'told'),
        [
            (20, 100, 301, True),
            (19, 100, 301, False),
            (20, 101, 301, False),
            (20, 100, 300, False),
            (20, 0.5, 301, True),
            (20, 0, 301, False),  # nothing of them is in the image
        ],
    )
    def test_percents_are_told_of_many_boxes_in_images_much_larger(self, number, end, side, told):
        content = coco([[-5 - k / 100, -7, 5 + k / 100, 7 + end] for k in range(number)])
        content['images'][0].update(width=side, height=side)
        warnings = CocoFile.read(content).warnings
        assert [w.partition(',')[0] for w in warnings] == [
            'no box reaches beyond 100 px from the upper left corner'
        ] * told
        assert all(f'in images of at least {side} px' in w for w in warnings)

    def test_percents_are_warned_of(self):
        boxes = [[k, k, 30, 20] for k in range(40)]
        assert CocoFile.read(coco(boxes)).warnings == ()  # the image is 300 px high
        wide = dict(images=[dict(id=1, file_name='a.jpg', width=800, height=600)])
        (warning,) = CocoFile.read(coco(boxes, **wide)).warnings
        assert 'are these percents' in warning

    def test_a_picture_in_several_entries_with_annotations_of_their_own(self):
        content = coco()
        content['images'].append(dict(content['images'][0], id=11))
        content['annotations'] += [
            dict(a, id=10 + k, image_id=11) for k, a in enumerate(content['annotations'])
        ]
        assert CocoFile.read(content).warnings == ()
        del content['annotations'][0]
        (warning,) = CocoFile.read(content).warnings
        assert warning.startswith('1 pictures are listed several times, with other annotations')
        assert 'the first is a.jpg, with the ids 1, 11' in warning

    def test_a_negative_width_looks_like_corners_in_another_order(self):
        (warning,) = CocoFile.read(coco([*BOXES, [90, 90, -20, -30]])).warnings
        assert warning.startswith('1 of 4 boxes have a negative width or height and are left out')
        assert '[90.0, 90.0, -20.0, -30.0]' in warning
        assert 'corners in another order' in warning
        assert 'nothing of' in message_of(coco([[90, 90, -20, -30]]))

    @pytest.mark.parametrize('sides', [(-20, 30), (20, -30)])
    def test_one_negative_side_is_told_and_a_side_of_0_is_not(self, sides):
        (warning,) = CocoFile.read(coco([*BOXES, [90, 90, *sides], [90, 90, 0, 0]])).warnings
        assert warning.startswith('1 of 5 boxes have a negative width or height')


class TestUse:
    def test_each_reason_is_counted_once(self):
        boxes = [
            *BOXES,
            [0, 0, 0, 0],
            [5, 5, -9, 9],
            [500, 10, 20, 20],
            [50, 50, 9, 9],
            [60, 60, 9, 9],
            [70, 70, 9, 9],
        ]
        content = coco(boxes)
        content['annotations'][6]['area'] = 0
        content['annotations'][7].update(area=0, category_id=9)
        content['annotations'][8].update(iscrowd=1)
        content['annotations'][0].update(ignore=1)
        content['categories'].append(dict(id=9, name='cross'))
        content['images'] += [
            dict(id=2, file_name='b.jpg', width=31, height=99),
            dict(id=3, file_name='c.jpg', width=99, height=99),
        ]
        content['annotations'].append(dict(id=50, image_id=2, category_id=7, bbox=[0, 0, 9, 9]))
        use = CocoFile.read(content).use(('disc', 'ring'), dict(min_size=32, filter_empty_gt=True))
        assert str(use) == (
            '10 annotations: 3 used (1 of them crowds), 1 of a category that is not in metainfo, '
            "1 marked 'ignore', 1 of negative width or height, 1 of less than 1 px in width or "
            'height, 1 outside of their image, 1 of area 0, 1 in images that are left out; '
            '3 images: 1 left out, narrower than 32 px, 1 left out, without an annotation of a '
            'class in metainfo'
        )
        assert np.flatnonzero(use.annotations).tolist() == [1, 2, 8]
        assert use.images.tolist() == [True, False, False]
        assert use.is_suspicious
        use.check_training()

    @pytest.mark.parametrize('sides', [(0.5, 50), (50, 0.5), (0.9, 0.9)])
    def test_less_than_a_pixel_in_width_or_in_height_is_too_thin(self, sides):
        use = CocoFile.read(coco([*BOXES, [10, 10, *sides], [10, 10, 1, 1]])).use()
        assert str(use).startswith('5 annotations: 4 used, 1 of less than 1 px in width or height')

    @pytest.mark.parametrize(
        'box', [[-5, 10, 6, 20], [399, 10, 6, 20], [10, -5, 20, 6], [10, 299, 20, 6]]
    )
    def test_a_box_of_which_one_pixel_is_in_the_image_is_used(self, box):
        assert CocoFile.read(coco([box])).use().annotations.all()
        x, y, w, h = box
        beside = [x - (x < 0) + (x > 300), y - (y < 0) + (y > 200), w, h]
        use = CocoFile.read(coco([beside])).use()
        assert str(use).startswith('1 annotation: 0 used, 1 outside of their image')

    @pytest.mark.parametrize('size', [(32, 99), (99, 32)])
    def test_an_image_of_the_least_size_is_kept(self, size):
        content = coco([[5, 5, 20, 20]])
        content['images'][0].update(width=size[0], height=size[1])
        file = CocoFile.read(content)
        assert file.use(filter_cfg=dict(min_size=32)).images.all()
        assert not file.use(filter_cfg=dict(min_size=33)).images.any()
        assert file.use().images.all()

    def test_the_line_of_a_good_file_is_no_warning(self):
        use = CocoFile.read(coco(), name='f').use(('disc', 'ring'))
        assert list(use.messages()) == [(False, 'f: 3 annotations: 3 used; 1 image: all used')]

    def test_classes_that_are_not_trained_are_no_mistake(self):
        use = CocoFile.read(coco()).use(('disc',))
        assert str(use).startswith('3 annotations: 2 used, 1 of a category that is not in metainfo')
        assert not use.is_suspicious

    def test_areas_of_0_are_told_with_the_fix(self):
        use = CocoFile.read(changed('annotations', 0, area=-5)).use()
        assert '1 of negative area' in str(use)
        use = CocoFile.read(changed('annotations', 0, area=0)).use()
        ((is_warning, message),) = use.messages()
        assert is_warning
        assert '2 used, 1 of area 0' in message
        assert message.endswith(
            '. Annotations of area 0, the first is annotation 0 of image 1 (a.jpg): write width x '
            "height as 'area' where it is 0"
        )

    def test_areas_beyond_the_box_are_counted_and_what_they_change_is_told(self):
        assert CocoFile.read(changed('annotations', 0, area=51 * 61)).warnings == ()
        (warning,) = CocoFile.read(changed('annotations', 1, area=40000)).warnings
        assert warning.startswith("1 of 3 annotations have an 'area' far larger than their box")
        assert 'the first is 40000 of a box of 20x20 px, annotation 1 of image 1 (a.jpg)' in warning
        assert "COCO's metric by the area" in warning

    @pytest.mark.parametrize(
        ('box', 'area', 'told'),
        [
            ([30, 40, 20, 19], 630, False),  # 1.5 times 21 x 20
            ([30, 40, 20, 19], 631, True),
            ([30, 40, 1, 19], 9000, True),
            ([30, 40, 0, 19], 9000, False),  # no object, whatever its area
            ([30, 40, 20, -3], 9000, False),
        ],
    )
    def test_areas_of_masks_may_be_half_as_large_again_as_the_box(self, box, area, told):
        warnings = CocoFile.read(changed('annotations', 1, bbox=box, area=area)).warnings
        assert any('far larger than their box' in warning for warning in warnings) == told

    @pytest.mark.parametrize(
        ('areas', 'told'),
        [
            ((39, 39, 400, 400), ''),
            ((39, 39, 39, 400), '3 of 4'),
            ((39, 39, 39, 39), '4 of 4'),
            ((39, 39, 40, 40), ''),
            ((39, 39, 0, 0), ''),
        ],
    )
    def test_areas_that_are_no_pixels_are_told_if_most_are_so(self, areas, told):
        content = coco([[10 + k, 20, 80, 50] for k in range(4)])
        for annotation, area in zip(content['annotations'], areas):
            annotation['area'] = area
        warnings = CocoFile.read(content).warnings
        assert [warning.partition(' annotations')[0] for warning in warnings] == [told] * bool(told)
        assert all("'area' under 1% of their box; the first is 39" in w for w in warnings)

    def test_a_file_of_crowds_has_nothing_to_train_on(self):
        content = coco()
        for annotation in content['annotations']:
            annotation['iscrowd'] = 1
        assert 'write iscrowd=0 for objects' in message_of(content)
        content['annotations'][0]['area'] = 0
        assert 'write iscrowd=0 for objects' in message_of(content)
        with pytest.raises(ValueError, match='min_size in filter_cfg must be a number'):
            CocoFile.read(content).use(filter_cfg=dict(min_size='32'))

    def test_nothing_is_left_if_all_areas_are_0(self):
        content = coco()
        for annotation in content['annotations']:
            annotation['area'] = 0
        message = message_of(content)
        assert 'nothing of train.json is left to train on: 3 annotations: 0 used, 3 of' in message
        assert "write width x height as 'area'" in message

    @pytest.mark.parametrize(
        ('classes', 'message'),
        [
            (('Disc', 'RING'), "has 'Disc', 'RING', the file has 'disc', 'ring'.* in case or"),
            (('dsic',), "Is it 'disc' for 'dsic'?"),
            (('zebra',), "metainfo has 'zebra', the file has 'disc', 'ring'$"),
        ],
    )
    @pytest.mark.parametrize('filter_cfg', [None, dict(filter_empty_gt=True)])
    def test_no_class_is_in_the_file(self, classes, message, filter_cfg):
        use = CocoFile.read(coco(), name='train.json').use(classes, filter_cfg)
        with pytest.raises(ValueError, match=message) as caught:
            use.check_training()
        assert str(caught.value).startswith('no class in metainfo is one of train.json')

    def test_classes_as_a_string(self):
        with pytest.raises(ValueError, match=r"write \('disc',\), with the comma"):
            CocoFile.read(coco()).use('disc')

    def test_images_without_objects_may_be_a_file_of_their_own(self):
        file = CocoFile.read(coco([], categories=[]))
        file.use(('disc',), dict(filter_empty_gt=False)).check_training()
        with pytest.raises(ValueError, match='no class in metainfo'):
            file.use(('disc',), dict(filter_empty_gt=True)).check_training()


RECTANGLE = [10, 10, 60, 10, 60, 70, 10, 70]


class TestMasks:
    @pytest.mark.parametrize(
        'mask',
        [
            [RECTANGLE],
            [RECTANGLE, [1, 1, 2, 2]],  # MMDetection leaves out the part of two points
            [RECTANGLE, [80.5, 80, 90, 80, 90, 90]],
            dict(size=[300, 400], counts=[10, 119990]),
            dict(size=[300, 400], counts='Pd4'),
            dict(size=[300, 400], counts=[0, 120000]),
            dict(size=[300, 400], counts='0o'),
            [[10, 10, 60, 10, 60, 70]],
        ],
    )
    def test_masks_that_can_be_loaded(self, mask):
        file = CocoFile.read(changed('annotations', 1, segmentation=mask))
        file.check_masks(np.array([False, True, False]))

    @pytest.mark.parametrize(
        ('mask', 'message'),
        [
            (..., 'is missing'),
            (None, 'is missing'),
            ([], r'is \[\]'),
            ([[]], r'is \[\[\]\], without a polygon of three points'),
            ([[1, 2, 3, 4]], 'without a polygon of three points'),
            ([[1, 2, 3, 4, 5, 6, 7]], 'without a polygon'),
            (RECTANGLE, 'expected a list of polygons'),
            ('text', "is 'text'"),
            ([[1, 2, 3, 4, 5, '6']], 'has the polygon .*expected numbers'),
            ([[1, 2, 3, 4, 5, math.nan]], 'has the polygon'),
            ([[1, 2, 3, 4, 5, None]], 'has the polygon'),
            ([[[1, 2], [3, 4], [5, 6]]], 'has the polygon'),
            (dict(counts=[120000]), "of 'size' null, .* the image, .300, 400."),
            (dict(size=[400, 300], counts=[120000]), r"of 'size' \[400, 300\]"),
            (dict(size=[300, 400]), "with 'counts' null"),
            (dict(size=[300, 400], counts=[5]), 'whose sum is 300 x 400'),
            (dict(size=[300, 400], counts=[-5, 120005]), 'whose sum is 300 x 400'),
            (dict(size=[300, 400], counts=''), "with 'counts' ''"),
            (dict(size=[300, 400], counts='ä'), "with 'counts' 'ä'"),
            (dict(size=[300, 400], counts='Pp'), "with 'counts' 'Pp'"),
            (dict(size=[300, 400], counts='P/'), "with 'counts' 'P/'"),
            (dict(size=[300, 400], counts=[119999, 1.0]), 'whose sum is 300 x 400'),
        ],
    )
    def test_masks_that_cannot(self, mask, message):
        content = changed('annotations', 1, segmentation=mask)
        file = CocoFile.read(content, name='f')
        file.check_masks(np.array([True, False, True]) & False)
        with pytest.raises(ValueError, match=message) as caught:
            file.check_masks(np.array([False, True, False]))
        assert str(caught.value).startswith("f: annotation 1 of image 1 (a.jpg): 'segmentation' ")
        assert 'with_mask=True' in str(caught.value)

    @pytest.mark.parametrize('crowd', [0, 1])
    def test_rle_where_masks_stay_polygons_is_for_crowds(self, crowd):
        mask = dict(size=[300, 400], counts='Pd4')
        file = CocoFile.read(changed('annotations', 1, segmentation=mask, iscrowd=crowd))
        used = np.array([False, True, False])
        if crowd:
            file.check_masks(used, polygons_only=True)
        else:
            with pytest.raises(ValueError, match='poly2mask=True, or convert it to polygons'):
                file.check_masks(used, polygons_only=True)


def test_a_long_value_is_cut():
    for length in (78, 79):  # and two quotation marks
        text = 'x' * length
        message = message_of(changed('annotations', 0, area=text))
        shown = repr(text) if length == 78 else f"'{'x' * 76}..."
        assert f"'area' is {shown}, expected" in message


def test_so_many_names_are_listed():
    assert listed(list('abcdefgh')) == "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'"
    assert listed('abcdefghi').endswith("'h' and 1 more")
    assert listed(iter('ab'), 2) == "'a', 'b'"


def test_the_name_that_was_meant():
    names = ('pedestrian', 'Traffic Light', 'car')
    assert nearest_name('Car', names) == 'car'
    assert nearest_name('traffic_light', names) == 'Traffic Light'
    assert nearest_name('pedestrain', names) == 'pedestrian'
    assert nearest_name('zebra', names) is None
    assert nearest_name('x-y', ('xzy', 'x_y')) == 'x_y'
    assert nearest_name('x_y', ('xzy', 'x y')) == 'x y'
    assert nearest_name('car', ()) is None


@pytest.mark.parametrize(
    ('data', 'said'),
    [
        (gzip.compress(b'{}', mtime=0), 'compressed by gzip'),
        (b'PK\3\4..', 'a ZIP archive'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (b'<!DOCTYPE html>', 'a web page'),
        (b'<?xml version="1.0"?>', 'XMLDataset'),
        (b'', 'it is empty'),
        (b'{"name":\n"gr\xf6sse"}', 'not in UTF-8 (byte 12, line 2)'),
        (b'\n{"name": "gr\xf6sse"}', 'not in UTF-8 (byte 13, line 2)'),
        (b'{"id": 1}\n{"id": 2}\n', 'JSON lines'),
    ],
)
def test_what_is_no_json_is_told(tmp_path, data, said):
    (tmp_path / 'a.json').write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(said)):
        CocoFile.read(tmp_path / 'a.json')


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ([dict(image_id=1, category_id=1, bbox=[1, 2, 3, 4], score=0.5)], 'results of a detector'),
        (dict(images=[], annotations=[dict(id=1, image_id=1, caption='a')]), 'captions'),
        (
            dict(coco(), annotations=[dict(image_id=1, file_name='a.png', segments_info=[])]),
            'a panoptic file',
        ),
        ({'_via_settings': {}, '_via_img_metadata': {}}, 'VGG VIA'),
        ({'a.png1': dict(filename='a.png', regions=[])}, 'VGG VIA'),
        (dict(shapes=[], imagePath='a.png'), 'labelme'),
        (dict(metainfo={}, data_list=[]), "MMDetection's own format"),
        ([dict(data={}, annotations=[])], 'Label Studio'),
    ],
)
def test_another_format_is_named(content, said, tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='It looks like') as caught:
        CocoFile.read(tmp_path / 'a.json')
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ('number', 'repeated', 'told'),
    [(6, 2, ''), (6, 3, '3 of 9'), (396, 3, ''), (396, 4, '4 of 400')],
)
def test_a_few_annotations_that_repeat_others_are_nothing(number, repeated, told):
    boxes = [[10, 10, 50, 20 + k / 2] for k in range(number)]
    content = coco(boxes)
    content['annotations'] += [
        dict(a, id=1000 + k) for k, a in enumerate(content['annotations'][1 : 1 + repeated])
    ]
    content['annotations'].reverse()
    warnings = CocoFile.read(content).warnings
    assert [warning.partition(' annotations')[0] for warning in warnings] == [told] * bool(told)
    assert all(f'such as annotation {repeated} of image 1' in w for w in warnings)


def test_annotations_that_repeat_others_are_counted():
    content = coco()
    assert CocoFile.read(content).warnings == ()
    content['annotations'] += [dict(a, id=a['id'] + 100) for a in content['annotations']]
    [warning] = CocoFile.read(content).warnings
    assert warning.startswith('3 of 6 annotations repeat another one')
    for annotation in content['annotations'][:3]:  # of another class: an object may have two
        annotation['category_id'] = content['categories'][0]['id']
    for annotation in content['annotations'][3:]:
        annotation['category_id'] = content['categories'][1]['id']
    assert CocoFile.read(content).warnings == ()
