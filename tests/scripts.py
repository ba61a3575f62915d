"""Scripts of tools/ and benchmarks/, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_script(file: str) -> ModuleType:
    """Import a script, anew with each call: ``load_script('benchmarks/mining.py')``."""
    spec = importlib.util.spec_from_file_location(f'script_{Path(file).stem}', ROOT / file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
