# Faster R-CNN FPN on YOLOX-nano's backbone: 1.65 million parameters, strides 4 to 64. With weights
# from COCO it learns in minutes of CPU what a network from scratch does not.
#
# The weights are MMDetection's YOLOX checkpoint in the file below. Its normalisation is folded into
# the convolutions, so it has to stay as it is. Without the file no training starts: for another
# checkpoint, or none, see docs/howto/fine_tuning.md.
_base_ = 'faster_rcnn_r18_small.py'

weights = 'data/weights/yolox_nano_coco.pth'
pretrained = True
init_cfg = dict(type='Pretrained', checkpoint=weights, prefix='backbone.')
model = dict(
    data_preprocessor=dict(mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=False),  # as YOLOX's
    backbone=dict(
        _delete_=True,
        type='CSPDarknet',
        deepen_factor=0.33,
        widen_factor=0.25,
        use_depthwise=True,
        out_indices=(1, 2, 3, 4),
        norm_cfg=dict(type='BN', momentum=0.03, eps=0.001, requires_grad=not pretrained),
        norm_eval=pretrained,
        act_cfg=dict(type='Swish'),
        init_cfg=init_cfg,
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
