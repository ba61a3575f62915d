"""Draws depend on their key and nothing else."""

import numpy as np

from mmsniper.chips.seeding import uniform


def test_a_draw_depends_on_its_key_only():
    many = uniform(0, 3, np.arange(100))
    assert many[17] == uniform(0, 3, 17)
    np.testing.assert_array_equal(uniform(0, 3, np.array([99, 5])), many[[99, 5]])


def test_every_part_of_the_key_matters():
    draws = {
        float(uniform(*key))
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0), (-1, 0, 0)]
    }
    assert len(draws) == 6


def test_keys_broadcast():
    draws = uniform(0, np.arange(3)[:, None], np.arange(2))
    assert draws.shape == (3, 2)
    assert draws[2, 1] == uniform(0, 2, 1)


def test_draws_are_uniform_and_neighbouring_keys_unrelated():
    draws = uniform(5, np.arange(200)[:, None], np.arange(200))
    assert draws.min() >= 0
    assert draws.max() < 1
    # 40,000 draws in 20 bins of 2000: the standard deviation of a bin is 44.
    counts = np.histogram(draws, 20, (0, 1))[0]
    assert np.abs(counts - 2000).max() < 5 * 44
    for a, b in [(draws[:-1], draws[1:]), (draws[:, :-1], draws[:, 1:])]:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.025
