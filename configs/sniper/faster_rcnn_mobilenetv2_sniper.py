# SNIPER with MobileNetV2 on COCO, the authors' light model, by the release's recipe for it: one map
# of stride 32, 8 GPUs x 42 chips. BatchNorm's weights and biases are frozen, not its statistics.
# (The release lists stages to freeze, by ResNet's names, which no layer of MobileNetV2 has.)
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(7,),
        norm_cfg=dict(type='BN', requires_grad=False, momentum=0.005),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'),
    ),
    neck=dict(_delete_=True, type='ConcatNeck', in_channels=[1280], out_channels=256),
    # Anchors of 32 to 384 px.
    rpn_head=dict(anchor_generator=dict(scales=[1, 2, 4, 8, 12], strides=[32])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[32]), bbox_head=dict(fc_out_channels=512)
    ),
    # Anchors that lie further out of the chip are ignored.
    train_cfg=dict(rpn=dict(allowed_border=32), rpn_proposal=dict(nms_pre=6000)),
    test_cfg=dict(rpn=dict(nms_pre=6000)),
)
sniper = dict(batch_size=42)
auto_scale_lr = dict(base_batch_size=336)
optim_wrapper = dict(optimizer=dict(lr=0.025))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.0005 / 0.025, by_epoch=False, begin=0, end=9000),
    _base_.param_scheduler[1],
]
