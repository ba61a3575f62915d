"""SNIPER training and inference for MMDetection.

``custom_imports = dict(imports=['mmsniper'])`` in a config makes all of it known to MMDetection.

``mmsniper.chips`` works without torch and MMDetection, and importing it alone loads neither.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

from mmsniper.utils.compat import check_versions
from mmsniper.version import __version__

__all__ = ['__version__', 'register_all_modules']


def register_all_modules() -> None:
    """Register all modules of MMDetection and mmsniper, and the configs' scope ``mmsniper::``.

    Importing mmsniper calls this where mmengine has been loaded before and MMDetection is
    installed, as is so whenever a config imports it. Call it yourself if mmsniper was imported
    first and MMDetection's own tools are then to build a config.
    """
    from mmdet.utils import register_all_modules as register_mmdet
    from mmengine.config.utils import MODULE2PACKAGE

    # mmengine asks for a distribution's folder first, which of an editable install is not the
    # package's. Under the name of a module it finds the folder that the module lies in.
    MODULE2PACKAGE['mmsniper'] = 'mmsniper.version'
    register_mmdet(init_default_scope=False)
    for module in ('datasets', 'models', 'engine', 'mining'):
        import_module(f'mmsniper.{module}')


check_versions()
if sys.modules.get('mmengine') and find_spec('mmdet'):
    register_all_modules()
