"""Words in messages."""

import pytest

from mmsniper.utils.words import numbered


@pytest.mark.parametrize(
    ('count', 'said'), [(0, '0 images'), (1, '1 image'), (2, '2 images'), (1200, '1,200 images')]
)
def test_a_number_of_things(count, said):
    assert numbered(count, 'image') == said
