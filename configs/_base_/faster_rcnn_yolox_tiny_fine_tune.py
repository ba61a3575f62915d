# Fine-tuning on a CPU: a detector to inherit in the place of one of MMDetection's, Faster R-CNN FPN
# on the backbone of its YOLOX-tiny, trained on COCO. The weights are downloaded.
#
# _base_ = [this file, sniper.py, a pyramid]; data and num_classes are yours:
# docs/howto/fine_tuning.md.
_base_ = [
    './models/faster_rcnn_yolox_nano.py',
    'mmdet::_base_/datasets/coco_detection.py',
    './schedules/adamw_cosine.py',
    './default_runtime.py',
    './chip_samples.py',
]
weights = (
    'https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_tiny_8x8_300e_coco/'
    'yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'
)
model = dict(
    backbone=dict(
        widen_factor=0.375,
        use_depthwise=False,
        # The weights come with the statistics of COCO, which few chips do not improve on.
        norm_cfg=dict(type='BN', momentum=0.03, eps=0.001, requires_grad=False),
        norm_eval=True,
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=weights, prefix='backbone.'),
    ),
    neck=dict(in_channels=[48, 96, 192, 384]),
    **_base_.chip_samples,
)
# For batches of 8 chips: sniper = dict(batch_size=8).
optim_wrapper = dict(optimizer=dict(lr=0.002))
# Progress is seen after each epoch, and the best epoch is kept beside the last two.
train_cfg = dict(val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='auto'))
