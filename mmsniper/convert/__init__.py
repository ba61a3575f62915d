"""Any detector's config, turned into its SNIPER version."""

from mmsniper.convert.config import load_config, read_config, sniper_version

__all__ = ['load_config', 'read_config', 'sniper_version']
