"""Draws depend on their key and nothing else."""

import numpy as np
import pytest

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


def splitmix64(state):
    """The generator's output for a state, as its authors' C code has it, in whole numbers."""
    low = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & low
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & low
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & low
    return z ^ (z >> 31)


@pytest.mark.parametrize('key', [(0,), (7,), (-1,), (1, 2, 3), (2**40, 0, 5)])
def test_draws_are_those_of_splitmix64(key):
    """And stay so: a seed's chips are the same in every release."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # known from other implementations
    state = 0
    for part in key:
        state = splitmix64(state ^ (part % 2**64))
    assert uniform(*key) == (state >> 11) / 2**53
