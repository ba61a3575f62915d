"""What is in this folder is skipped, file by file, where there is no MMRotate."""

from pathlib import Path

import pytest
from mmrotate_ready import NO_MMROTATE


class _Skipped(pytest.Module):
    def collect(self):
        pytest.skip(NO_MMROTATE, allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    return _Skipped.from_parent(parent, path=module_path) if NO_MMROTATE else None
