# The SNIPER config with negative chips, mined after two epochs.
_base_ = 'faster_rcnn_r18_sniper_toy.py'

# Images without objects are kept: they have negative chips only.
train_dataloader = dict(dataset=dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False))))
custom_hooks = [
    *_base_.custom_hooks,
    # A chip is a fortieth of a scene. Of 300 proposals in it most have scores of under 0.3, and lie
    # anywhere.
    dict(type='NegativeChipHook', warmup_epochs=2, score_thr=0.3, min_proposals=(10, 5)),
]
