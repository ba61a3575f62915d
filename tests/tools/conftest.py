"""What the tests of several tools share."""

import pytest
from mmdet.utils import register_all_modules
from random_weights import autofocus_checkpoint


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights of the toy scenes' AutoFocus config, at random, but the same every time."""
    register_all_modules()
    return autofocus_checkpoint(tmp_path_factory.mktemp('weights'))
