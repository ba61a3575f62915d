"""SNIPER training and inference for MMDetection.

``custom_imports = dict(imports=['mmsniper'])`` in a config makes all of it known to MMDetection.

``mmsniper.chips`` works without torch and MMDetection, and importing it alone loads neither.
"""

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

from mmsniper.utils.compat import check_versions
from mmsniper.version import __version__

__all__ = ['__version__', 'register_all_modules']


def register_all_modules() -> None:
    """Register all modules of MMDetection and mmsniper in their registries.

    Importing mmsniper calls this where mmengine has been loaded before and MMDetection is
    installed, as is so when a config imports it, and so does reading a config with
    ``mmsniper.convert``. Call it yourself if mmsniper was imported first and MMDetection's own
    tools are then to build a config.
    """
    import_module('mmdet.utils').register_all_modules(init_default_scope=False)
    for module in ('datasets', 'models', 'engine', 'mining'):
        import_module(f'mmsniper.{module}')


check_versions()
is_mmengine_loaded = bool(sys.modules.get('mmengine'))
with suppress(ImportError):  # this part of mmengine loads no torch
    from mmengine.config.utils import MODULE2PACKAGE

    # For _base_ = 'mmsniper::...'. mmengine asks for the folder of a distribution first, which of
    # an editable install is not the package's. Of a module it finds the folder that it lies in.
    MODULE2PACKAGE['mmsniper'] = 'mmsniper.version'
if is_mmengine_loaded and find_spec('mmdet'):
    register_all_modules()
