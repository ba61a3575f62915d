"""The Runner that a config names to be made its SNIPER version, and what tells of another way."""

from __future__ import annotations

import warnings
from functools import wraps
from typing import Any

from mmengine import runner as mmengine_runner
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
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


def refuse_configs_with_sniper(runner: type[Runner]) -> None:
    """Have a Runner's ``from_cfg`` refuse a config of which no SNIPER version was made.

    mmengine's Runners pass over what they do not know, ``sniper`` too. A config whose
    ``runner_type`` is overridden would train the stock detector, and nothing would say so. Reading
    our fragment imports mmsniper, which calls this.

    Args:
        runner (type[Runner]): One of mmengine's. Changed in place, and with it what derives from
            it.
    """
    build = runner.from_cfg.__func__

    @wraps(build)
    def from_cfg(cls: type, cfg: Any) -> Any:
        if 'sniper' in cfg:
            raise ValueError(
                f'the config has sniper = dict(...), of which {cls.__name__} knows nothing: it '
                f'would train or test the stock detector. Take runner_type and strategy out of '
                f"your config, so that the fragment's runner_type = "
                f"'mmsniper.engine.SNIPERRunner' holds; or derive your Runner from SNIPERRunner"
            )
        return build(cls, cfg)

    runner.from_cfg = classmethod(from_cfg)


def warn_of_configs_with_sniper(model: type[BaseModel]) -> None:
    """Have a model warn where it was built of a config of which no SNIPER version was made.

    ``DetInferencer`` and ``init_detector`` build the stock detector of it. Both give the model its
    config, as ``cfg``, before they move it to its device. ``init_detector`` itself cannot be
    changed: it is a function, and has begun when reading our fragment imports mmsniper.

    Args:
        model (type[BaseModel]): mmengine's. Changed in place, and with it what derives from it.
    """
    move = model.to

    @wraps(move)
    def to(self: BaseModel, *args: Any, **kwargs: Any) -> nn.Module:
        cfg = getattr(self, 'cfg', None)
        if isinstance(cfg, Config | ConfigDict) and 'sniper' in cfg:
            warnings.warn(
                'the config has sniper = dict(...), of which init_detector and DetInferencer know '
                'nothing: this is the stock detector, which sees images at one scale. For all '
                'levels give them mmsniper.convert.load_config(FILE), or the config that the '
                'training has written into its work folder',
                stacklevel=3,
            )
        return move(self, *args, **kwargs)

    model.to = to


for _name in ('Runner', 'FlexibleRunner'):  # mmengine has the second from 0.9 on
    if hasattr(mmengine_runner, _name):
        refuse_configs_with_sniper(getattr(mmengine_runner, _name))
warn_of_configs_with_sniper(BaseModel)
