"""Hooks: what happens around the training loop."""

from mmsniper.engine.pixel_counter_hook import PixelCounterHook

__all__ = ['PixelCounterHook']
