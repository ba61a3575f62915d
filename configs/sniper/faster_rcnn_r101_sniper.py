# SNIPER with Faster R-CNN R-101 FPN on COCO: the recipe of paper and release for 8 GPUs x 20 chips.
# What differs from theirs: docs/paper.md.
#
# Spelled out, to show how the pieces go together. For another detector, data set or pyramid inherit
# [the detector, ../_base_/sniper.py, a pyramid], which makes the same of it.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
    '../_base_/pyramids/coco_paper.py',
    '../_base_/sniper_runtime.py',
]
# Checks that every piece has the config's pyramid: a child that sets another one is refused.
runner_type = 'mmsniper.engine.SNIPERRunner'
pyramid = _base_.pyramid

model = dict(
    type='PyramidDetector',  # a FasterRCNN in all but its test, which sees every level
    detector='FasterRCNN',
    pyramid=pyramid,
    data_preprocessor=dict(
        # Chips at the coarse level may be smaller; equal shapes keep cuDNN and memory steady.
        batch_augments=[dict(type='BatchFixedSizePad', size=(pyramid['chip_size'],) * 2)]
    ),
    # 20 chips a GPU are enough to train BatchNorm, beyond the frozen stem and first stage. What is
    # tested with are means of the last 1 / 0.005 = 200 batches.
    backbone=dict(
        norm_cfg=dict(requires_grad=True, momentum=0.005), norm_eval=False, frozen_stages=1
    ),
    # The release's proposals, of the level's sizes only, and its losses of boxes.
    rpn_head=dict(
        type='SNIPERRPNHead',
        pyramid=pyramid,
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=3.0),
    ),
    roi_head=dict(
        type='SNIPERRoIHead',
        pyramid=pyramid,
        bbox_head=dict(reg_class_agnostic=True, loss_bbox=dict(type='SmoothL1Loss', beta=1.0)),
    ),
    train_cfg=dict(
        rpn=dict(
            # An object's best anchor is positive, if it overlaps the object at all.
            assigner=dict(
                type='ValidRangeAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.01
            )
        ),
        rpn_proposal=dict(max_per_img=300),
        # More than there are, so that every proposal is used: no resampling.
        rcnn=dict(sampler=dict(num=1024, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(max_per_img=300), rcnn=dict(max_per_img=200)),
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
# Images without objects are kept: they have negative chips only.
coco_train.filter_cfg = dict(filter_empty_gt=False, min_size=32)
train_dataloader = dict(
    batch_size=20,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(_delete_=True, type='ChipAwareSampler', pyramid=pyramid),
    batch_sampler=None,
    dataset=dict(_delete_=True, type='ChipDataset', dataset=coco_train, pipeline=train_pipeline),
)

# Negative chips, mined after four epochs on positive ones. The paper mines them in a training of
# its own: rpn_r101_sniper.py, tools/analysis_tools/mine_negatives.py, sampler=dict(negatives=FILE).
# Each GPU has BatchNorm statistics of its own: checkpoints get their mean, not those of rank 0.
custom_hooks = [
    dict(type='SyncBuffersHook'),
    *_base_.custom_hooks,
    dict(type='NegativeChipHook', warmup_epochs=4),
]

# The release: lr 0.015 for 8 x 16 chips. Linear scaling to 8 x 20: 0.015 * 160 / 128 = 0.01875.
# MXNet adds up the gradients of the GPUs, PyTorch averages them: the release's 0.015 is 0.12 here,
# eight times ours (docs/paper.md, "The learning rate").
# `tools/train.py --auto-scale-lr` does the same for any other number of GPUs or chips.
auto_scale_lr = dict(base_batch_size=160)
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(lr=0.01875))
# 14 passes with random flips: the release's 7 epochs are over all images and their flipped copies.
max_epochs = 14
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
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

# Validation and test see the images as they are, at every level: model.type.
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape')
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# For `tools/test.py --tta`: add views, such as RandomFlip(prob=1.0) to the first list.
tta_model = dict(type='SNIPERTTAModel')
tta_pipeline = [
    test_pipeline[0],
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0)],
            [test_pipeline[1]],
            [dict(type='PackDetInputs', meta_keys=(*meta_keys, 'flip', 'flip_direction'))],
        ],
    ),
]
