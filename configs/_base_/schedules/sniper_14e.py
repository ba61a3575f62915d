# The recipe of the authors' release (docs/paper.md): lr 0.015 for 8 x 16 chips, here scaled
# linearly to 8 x 20, and 14 passes over the images with random flips. (The release appends flipped
# copies of all images: its 7 epochs are 14 passes.)
# The release adds up the gradients of its 8 GPUs, so that its rate is eight times ours
# (docs/paper.md, "The learning rate").
# `tools/train.py --auto-scale-lr` fits it to any other number of GPUs or chips.
auto_scale_lr = dict(enable=False, base_batch_size=160)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='SGD', lr=0.01875, momentum=0.9, weight_decay=0.0001),
)
max_epochs = 14
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    # From 0.0005, as in the release, at its lr of 0.015.
    dict(type='LinearLR', start_factor=0.0005 / 0.015, by_epoch=False, begin=0, end=1000),
    # A tenth from epoch 10.67 on, the release's 5.33. (MultiStepLR takes whole epochs only.)
    dict(
        type='ConstantLR',
        factor=0.1,
        begin=10.67,
        end=max_epochs + 1,  # past the last iteration
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
# Each GPU has BatchNorm statistics of its own: checkpoints get their mean, not those of rank 0.
custom_hooks = [dict(type='SyncBuffersHook')]
