# SNIP with Faster R-CNN R-101 FPN on COCO: SNIPER's levels and ranges on whole images.
_base_ = '../sniper/faster_rcnn_r101_sniper.py'
pyramid = _base_.pyramid

model = dict(
    data_preprocessor=dict(batch_augments=None),
    # One image a GPU is too little to train BatchNorm.
    backbone=dict(norm_cfg=dict(requires_grad=False), norm_eval=True),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='LevelResize', pyramid=pyramid),  # a random level each time
    dict(type='ScaleRangeFilter', pyramid=pyramid),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
coco_train = _base_.train_dataloader.dataset.dataset
coco_train.pipeline = train_pipeline
coco_train.filter_cfg = dict(filter_empty_gt=True, min_size=32)
train_dataloader = dict(
    batch_size=1,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(_delete_=True, **coco_train),
)
# Whole images have no unseen background.
custom_hooks = _base_.custom_hooks[:-1]

auto_scale_lr = dict(base_batch_size=8)
# The stock schedule's 0.02 for 16 images.
optim_wrapper = dict(optimizer=dict(lr=0.01))
