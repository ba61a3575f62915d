"""The search for garbage is off for a while, and then as it was."""

import gc

import pytest

from mmsniper.utils.garbage import no_garbage_collection


@pytest.fixture(params=[True, False])
def was_on(request):
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_it_is_off_meanwhile_and_then_as_it_was(was_on):
    with no_garbage_collection():
        assert not gc.isenabled()
        with no_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled() is was_on


def test_it_is_as_it_was_after_an_error(was_on):
    with pytest.raises(ValueError, match='x'), no_garbage_collection():
        raise ValueError('x')
    assert gc.isenabled() is was_on
