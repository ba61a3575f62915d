# SNIPER with Faster R-CNN R-101 FPN on COCO: the paper's recipe (section 5) for 8 GPUs x 20 chips.
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
    # 20 chips a GPU are enough to train BatchNorm, beyond the frozen stem and first stage.
    backbone=dict(norm_cfg=dict(requires_grad=True), norm_eval=False, frozen_stages=1),
    rpn_head=dict(type='SNIPERRPNHead', pyramid=pyramid),
    roi_head=dict(type='SNIPERRoIHead', pyramid=pyramid, bbox_head=dict(reg_class_agnostic=True)),
    train_cfg=dict(
        rpn=dict(assigner=dict(type='ValidRangeAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)),
        rpn_proposal=dict(max_per_img=300),
        # More than there are, so that every proposal is used: no resampling.
        rcnn=dict(sampler=dict(num=1024, pos_fraction=0.5)),
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

# Negative chips, mined after two epochs on positive ones. The paper mines them in a training of its
# own: rpn_r101_sniper.py, tools/analysis_tools/mine_negatives.py, sampler=dict(negatives=FILE).
custom_hooks = [*_base_.custom_hooks, dict(type='NegativeChipHook', warmup_epochs=2)]

# The paper: lr 0.015 for 8 x 16 chips. Linear scaling to 8 x 20: 0.015 * 160 / 128 = 0.01875.
# `tools/train.py --auto-scale-lr` does the same for any other number of GPUs or chips.
auto_scale_lr = dict(base_batch_size=160)
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(lr=0.01875))
max_epochs = 7
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
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
