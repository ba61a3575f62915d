# The RPN of SNIPER's first step (section 3.3): trained for two epochs on positive chips alone, to
# mine negative chips for any detector with tools/analysis_tools/mine_negatives.py.
_base_ = [
    'mmdet::rpn/rpn_r101_fpn_1x_coco.py',
    '../_base_/pyramids/coco_paper.py',
    '../_base_/sniper_runtime.py',
]
pyramid = _base_.pyramid

model = dict(
    data_preprocessor=dict(
        # Chips at the coarse level may be smaller; equal shapes keep cuDNN and memory steady.
        batch_augments=[dict(type='BatchFixedSizePad', size=(pyramid['chip_size'],) * 2)]
    ),
    # 20 chips a GPU are enough to train BatchNorm, beyond the frozen stem and first stage.
    backbone=dict(norm_cfg=dict(requires_grad=True), norm_eval=False, frozen_stages=1),
    train_cfg=dict(
        rpn=dict(assigner=dict(type='ValidRangeAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4))
    ),
)

train_pipeline = [
    dict(type='LoadLargeImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='ChipSampler', pyramid=pyramid),
    dict(type='ScaleRangeFilter', pyramid=pyramid),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
coco_train = _base_.train_dataloader.dataset
coco_train.pipeline = []
# Images without objects have no positive chips, so nothing is trained on them; they are mined.
coco_train.filter_cfg = dict(filter_empty_gt=False, min_size=32)
train_dataloader = dict(
    batch_size=20,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(_delete_=True, type='ChipAwareSampler', pyramid=pyramid),
    batch_sampler=None,
    dataset=dict(_delete_=True, type='ChipDataset', dataset=coco_train, pipeline=train_pipeline),
)

# The learning rate is that of the detector (section 5) before it drops: the paper's 0.015 for
# 8 x 16 chips, scaled to 8 x 20, after a warm-up from 0.0005.
auto_scale_lr = dict(base_batch_size=160)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='SGD', lr=0.01875, momentum=0.9, weight_decay=0.0001),
)
max_epochs = 2
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.0005 / 0.015, by_epoch=False, begin=0, end=2000)
]
