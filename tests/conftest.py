"""What every test runs under; read before any test imports torch."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings
from mmrotate_ready import provide_torchvision
from scripts import load_script

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('MPLBACKEND', 'Agg')

# A slow machine is no failure; in CI the same examples are tried each time.
settings.register_profile('mmsniper', deadline=None, derandomize='CI' in os.environ)
settings.load_profile('mmsniper')

provide_torchvision()

ROOT = Path(__file__).resolve().parents[1]

pytest_plugins = ['small_training']


@pytest.fixture(scope='session', autouse=True)
def _unformatted_configs() -> Iterator[None]:
    """Runs log and save their config as text; formatting it takes longer than small trainings."""
    from mmengine.config import config as mmengine_config
    from yapf.yapflib import yapf_api

    with pytest.MonkeyPatch.context() as patch:
        for module in (yapf_api, mmengine_config):  # whose mmengine imports it late, or at once
            patch.setattr(module, 'FormatCode', lambda text, **_: (text, True), raising=False)
        yield


@pytest.fixture
def load_tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of tools/ as a module: ``load_tool('train')``."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / 'tools'))
        # As Python does for a script.
        monkeypatch.syspath_prepend(str((ROOT / 'tools' / name).parent))
        return load_script(f'tools/{name}.py')

    return load
