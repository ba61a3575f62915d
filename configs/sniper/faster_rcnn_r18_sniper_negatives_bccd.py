# The SNIPER config with negative chips, mined after two epochs.
_base_ = 'faster_rcnn_r18_sniper_bccd.py'

# Images without objects are kept: they have negative chips only.
train_dataloader = dict(dataset=dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False))))
custom_hooks = [
    *_base_.custom_hooks,
    # As for the toy scenes: trained from scratch for a few epochs, the detector needs its positive
    # chips, and most proposals have scores of under 0.3.
    dict(
        type='NegativeChipHook',
        warmup_epochs=2,
        chips_per_image=1,
        score_thr=0.3,
        min_proposals=(10, 5),
    ),
]
