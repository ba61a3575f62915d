"""Hooks: what happens around the training loop."""

from mmsniper.compat import allow_checkpoint_globals
from mmsniper.engine.pixel_counter_hook import PixelCounterHook

# Every run imports the engine: here its checkpoints become loadable.
allow_checkpoint_globals()

__all__ = ['PixelCounterHook']
