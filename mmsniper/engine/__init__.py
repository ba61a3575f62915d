"""Hooks: what happens around the training loop."""

from mmsniper.compat import allow_checkpoint_globals
from mmsniper.engine.mining import NegativeChipMiner
from mmsniper.engine.negative_chip_hook import NegativeChipHook
from mmsniper.engine.pixel_counter_hook import PixelCounterHook
from mmsniper.engine.sniper_runner import SNIPERRunner
from mmsniper.engine.training_time_hook import TrainingTimeHook

# Every run imports the engine: here its checkpoints become loadable.
allow_checkpoint_globals()

__all__ = [
    'NegativeChipHook',
    'NegativeChipMiner',
    'PixelCounterHook',
    'SNIPERRunner',
    'TrainingTimeHook',
]
