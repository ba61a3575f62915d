import re

import numpy as np
import pytest

from mmsniper.utils.checks import check_box_shape, check_whole_number


@pytest.mark.parametrize('value', [2, 3, np.int64(2), np.uint8(200)])
def test_whole_numbers_from_the_minimum_on_are_allowed(value):
    check_whole_number('chips', value, 2)


@pytest.mark.parametrize('value', [1, -2, 2.0, np.float64(2), True, np.bool_(True), '2', None, [2]])
def test_anything_else_is_refused_by_name_and_value(value):
    message = f'chips must be a whole number of at least 2, got {value!r}'
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        check_whole_number('chips', value, 2)


def test_booleans_are_no_numbers():
    with pytest.raises(ValueError, match='chips must be a whole number of at least 0, got True'):
        check_whole_number('chips', True, 0)


def test_none_is_allowed_where_the_argument_is_optional():
    check_whole_number('chips', None, 2, optional=True)
    with pytest.raises(ValueError, match='chips must be a whole number of at least 2, got 1'):
        check_whole_number('chips', 1, 2, optional=True)


@pytest.mark.parametrize('shape', [(4, 5), (4,), (0,), (2, 2, 4), (5, 0)])
def test_only_boxes_with_corners_are_boxes(shape):
    check_box_shape((0, 4))
    check_box_shape((7, 4))
    message = f'mine must have the shape (n, 4), xyxy, got {shape}; rotated boxes must be'
    with pytest.raises(ValueError, match=f'^{re.escape(message)}'):
        check_box_shape(shape, 'mine')
