"""Any detector's config, turned into its SNIPER version."""

from mmsniper.convert.config import load_config, sniper_version

__all__ = ['load_config', 'sniper_version']
