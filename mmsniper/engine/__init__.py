"""Hooks: what happens around the training loop."""

from mmsniper.engine.consistency_hook import ConsistencyHook
from mmsniper.engine.negative_chip_hook import NegativeChipHook, PoolError
from mmsniper.engine.picture_hook import PictureHook
from mmsniper.engine.pixel_counter_hook import PixelCounterHook
from mmsniper.engine.resume_hook import ResumeHook
from mmsniper.engine.runner import SNIPERRunner
from mmsniper.engine.training_time_hook import TrainingTimeHook
from mmsniper.utils.compat import allow_checkpoint_globals

# Every run imports the engine: here its checkpoints become loadable.
allow_checkpoint_globals()

__all__ = [
    'ConsistencyHook',
    'NegativeChipHook',
    'PictureHook',
    'PixelCounterHook',
    'PoolError',
    'ResumeHook',
    'SNIPERRunner',
    'TrainingTimeHook',
]
