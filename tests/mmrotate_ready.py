"""Whether there is an MMRotate, for the tests of rotated boxes, and the torchvision it imports."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

STAND_INS = Path(__file__).resolve().parent / 'stand_ins'


def _why_not() -> str:
    if not find_spec('mmrotate'):
        return 'there is no MMRotate: make test-rotated takes the fork, which has one'
    try:
        import mmrotate  # noqa: F401 (whether it can be)
    except AssertionError as error:  # that of OpenMMLab, with every MMDetection that we support
        return str(error)
    return ''


NO_MMROTATE = _why_not()
"""Why there is none, or nothing."""


def lacks_mmrotate(config: Path) -> bool:
    """Whether a config, or one of its bases, is MMRotate's, and there is none."""
    return bool(NO_MMROTATE) and bool(re.search('mmrotate|rotated', config.read_text()))


def provide_torchvision() -> None:
    """Let this process and those it starts import a stand-in where MMRotate lacks torchvision."""
    if NO_MMROTATE or find_spec('torchvision'):
        return
    sys.path.append(str(STAND_INS))
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [before, str(STAND_INS)]))
