"""When a ChipDataset loads the annotations of the data set that it wraps."""

import pytest
from mmdet.registry import DATASETS


@pytest.mark.parametrize('lazy', [False, True])
def test_annotations_are_loaded_when_it_is_built_or_later_if_asked_for(five_images, chips_of, lazy):
    dataset = DATASETS.build(chips_of(five_images(lazy_init=True), lazy_init=lazy))
    assert dataset.dataset._fully_initialized is not lazy
    dataset.full_init()
    assert dataset.dataset._fully_initialized
