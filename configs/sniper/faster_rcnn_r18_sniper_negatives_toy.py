# The SNIPER config with negative chips, mined after two epochs.
_base_ = 'faster_rcnn_r18_sniper_toy.py'

# Images without objects are kept: they have negative chips only.
train_dataloader = dict(dataset=dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False))))
custom_hooks = [*_base_.custom_hooks, dict(type='NegativeChipHook', warmup_epochs=2)]
