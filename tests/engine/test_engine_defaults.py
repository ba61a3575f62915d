"""The defaults that docstrings tell are those of the code."""

import pytest
from documented_defaults import documented_defaults

import mmsniper.engine

FOUND = documented_defaults(mmsniper.engine)


@pytest.mark.parametrize(('argument', 'told', 'default'), FOUND, ids=[name for name, *_ in FOUND])
def test_a_default_is_what_is_told(argument, told, default):
    assert default == told
