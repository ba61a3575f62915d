"""The Runner that a config names to be made its SNIPER version."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from torch import nn

from mmsniper.checks.run import TESTING, TRAINING, refuse_wrong
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

    def train(self) -> nn.Module:
        """Train, if what the config and the annotation files say fits together."""
        refuse_wrong(self.cfg, TRAINING)
        return super().train()

    def test(self) -> dict:
        """Test, if what the config and the annotation files say fits together."""
        refuse_wrong(self.cfg, TESTING)
        return super().test()
