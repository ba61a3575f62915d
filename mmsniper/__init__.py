"""SNIPER training and inference for MMDetection.

Importing the package checks the versions of what is installed beside it and nothing more:
``mmsniper.chips`` works without torch and MMDetection. A config reaches the rest with
``custom_imports = dict(imports=['mmsniper.datasets', 'mmsniper.models', 'mmsniper.engine'])``.
"""

from mmsniper.utils.compat import check_versions
from mmsniper.version import __version__

check_versions()

__all__ = ['__version__']
