# The SNIPER config with negative chips, mined after two epochs.
_base_ = 'faster_rcnn_r18_sniper_toy.py'

# Images without objects are kept: they have negative chips only.
train_dataloader = dict(dataset=dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False))))
custom_hooks = [
    *_base_.custom_hooks,
    # Trained from scratch for a few epochs, the detector needs its positive chips: one negative of
    # an image is enough. Of 300 proposals most have scores of under 0.3, and lie anywhere.
    dict(
        type='NegativeChipHook',
        warmup_epochs=2,
        chips_per_image=1,
        score_thr=0.3,
        min_proposals=(10, 5),
    ),
]
