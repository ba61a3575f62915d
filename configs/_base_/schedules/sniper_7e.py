# The paper's recipe (section 5): SGD at lr 0.015 for 8 x 16 chips, here for 8 x 20, seven epochs.
# `tools/train.py --auto-scale-lr` fits it to any other number of GPUs or chips.
auto_scale_lr = dict(enable=False, base_batch_size=160)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='SGD', lr=0.01875, momentum=0.9, weight_decay=0.0001),
)
max_epochs = 7
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    # From 0.0005, as in the paper, at its lr of 0.015.
    dict(type='LinearLR', start_factor=0.0005 / 0.015, by_epoch=False, begin=0, end=2000),
    # A tenth from epoch 5.33 on. (MultiStepLR takes whole epochs only.)
    dict(
        type='ConstantLR',
        factor=0.1,
        begin=5.33,
        end=max_epochs + 1,  # past the last iteration
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
