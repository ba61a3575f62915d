"""Any detector's config, turned into its SNIPER version."""

from mmsniper.mixins.version import load_config, sniper_version

__all__ = ['load_config', 'sniper_version']
