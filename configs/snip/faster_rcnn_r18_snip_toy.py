# SNIP on the toy scenes, from scratch, on a CPU: SNIPER's levels and ranges on whole images.
_base_ = '../sniper/faster_rcnn_r18_sniper_toy.py'
pyramid = _base_.pyramid

model = dict(data_preprocessor=dict(batch_augments=None))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='LevelResize', pyramid=pyramid),  # a random level each time
    dict(type='ScaleRangeFilter', pyramid=pyramid),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=1,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(_delete_=True, pipeline=train_pipeline, **_base_.train_dataset),
)
