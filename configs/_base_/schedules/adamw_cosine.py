# From scratch on a small data set: AdamW, a short warm-up, cosine to zero.
#
# The length is one setting: --cfg-options train_cfg.max_epochs=N. The cosine ends with the last
# epoch (the Runner's default for `end`), and that epoch is validated whatever val_interval is.
max_epochs = 10
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR', begin=0, eta_min=1e-6, by_epoch=True, convert_to_iter_based=True
    ),
]
