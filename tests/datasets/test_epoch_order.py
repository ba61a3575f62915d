"""Every chip comes once; image by image, one worker gets an image's chips, in different batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.datasets.epoch_order import any_order, image_by_image

counts = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def images_of(counts):
    """Image of each chip, in the order of a plan."""
    return np.repeat(np.arange(len(counts)) * 3, counts)  # some images have no chip


def orders(image, world_size, make):
    return [make(rank, world_size) for rank in range(world_size)]


@given(counts, st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_every_chip_comes_and_as_few_as_need_be_twice(counts, lanes, world_size, shuffled):
    image = images_of(counts)
    key = (3, 1) if shuffled else None
    for make in (
        lambda rank, size: any_order(len(image), key, rank, size),
        lambda rank, size: image_by_image(image, lanes, key, rank, size),
    ):
        parts = orders(image, world_size, make)
        assert len({len(part.chip) for part in parts}) == 1
        times = np.bincount(np.concatenate([part.chip for part in parts]), minlength=len(image))
        assert times.min() >= 1
        assert times.sum() - len(image) < world_size


@given(counts, st.integers(1, 5), st.integers(1, 3))
def test_a_lane_works_through_image_after_image(counts, batch_size, workers):
    image, lanes = images_of(counts), batch_size * workers
    order = image_by_image(image, lanes, (0, 2), 0, 1)
    for lane in range(lanes):
        mine, left = image[order.chip[lane::lanes]], order.left[lane::lanes]
        # An image is never left and come back to, and `left` counts down to its last chip.
        assert (np.diff(mine) != 0).sum() == max(len(np.unique(mine)) - 1, 0)
        expected = [int((mine[i + 1 :] == mine[i]).sum()) for i in range(len(mine))]
        assert left.tolist() == expected


@given(counts, st.integers(1, 5), st.integers(1, 3))
def test_a_batch_shows_as_many_images_as_it_has_chips(counts, batch_size, workers):
    image, lanes = images_of(counts), batch_size * workers
    order = image_by_image(image, lanes, (0, 2), 0, 1)
    length = len(image) // lanes
    longest = max(counts)
    for start in range(0, len(image), batch_size):
        batch = image[order.chip[start : start + batch_size]]
        if longest <= length:
            assert len(np.unique(batch)) == len(batch)


def test_by_hand():
    # Images 0 to 3 have 3, 1, 2 and 2 chips; two workers with batches of one chip.
    image = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    order = image_by_image(image, 2, None, 0, 1)
    assert image[order.chip].tolist() == [0, 2, 0, 2, 0, 3, 1, 3]
    assert order.left.tolist() == [2, 1, 1, 0, 0, 1, 0, 0]


def test_images_and_chips_are_shuffled_by_seed_and_epoch():
    image = images_of([4] * 20)
    first, again, other = (
        image_by_image(image, 2, key, 0, 1).chip.tolist() for key in ((0, 0), (0, 0), (0, 1))
    )
    assert first == again != other
    lane = np.array(first[::2])
    assert (np.diff(image[lane]) < 0).any()  # images
    assert any((np.diff(lane[i : i + 4]) < 0).any() for i in range(0, 40, 4))  # their chips


@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_have_different_images(world_size):
    image = images_of([5] * 30)
    parts = orders(
        image, world_size, lambda rank, size: image_by_image(image, 4, (0, 0), rank, size)
    )
    shown = [set(image[part.chip].tolist()) for part in parts]
    shared = sum(len(a & b) for i, a in enumerate(shown) for b in shown[:i])
    assert shared <= world_size - 1
