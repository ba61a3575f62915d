"""The Runner that a config names to be made its SNIPER version."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmsniper.convert import sniper_version


class SNIPERRunner(Runner):
    """``Runner`` that makes the SNIPER version of its config first.

    A config names it, ``runner_type='mmsniper.engine.SNIPERRunner'``, so that MMDetection's own
    tools can train and test with our fragment. What it logs and dumps is the SNIPER version.
    """

    @classmethod
    def from_cfg(cls, cfg: Config | ConfigDict) -> Runner:
        """Build a runner from the SNIPER version of a config, see ``sniper_version``."""
        return super().from_cfg(sniper_version(Config(cfg) if isinstance(cfg, dict) else cfg))
