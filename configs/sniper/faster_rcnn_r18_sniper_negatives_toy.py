# The SNIPER config with negative chips, mined after two epochs.
_base_ = 'faster_rcnn_r18_sniper_toy.py'

custom_hooks = [*_base_.custom_hooks, dict(type='NegativeChipHook', warmup_epochs=2)]
