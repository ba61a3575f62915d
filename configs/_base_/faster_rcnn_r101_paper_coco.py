# The recipe of paper and release for 8 GPUs x 20 chips of COCO, on MMDetection's Faster R-CNN R-101
# FPN: ../sniper/faster_rcnn_r101_sniper.py spells out what comes of it, and says why.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    './schedules/sniper_14e.py',
    './sniper.py',
    './pyramids/coco_paper.py',
]
model = dict(
    backbone=dict(
        depth=101,
        norm_cfg=dict(requires_grad=True, momentum=0.005),
        norm_eval=False,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    ),
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=3.0)),
    roi_head=dict(
        bbox_head=dict(reg_class_agnostic=True, loss_bbox=dict(type='SmoothL1Loss', beta=1.0))
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.01)),
        rpn_proposal=dict(max_per_img=300),
        rcnn=dict(sampler=dict(num=1024, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(max_per_img=300), rcnn=dict(max_per_img=200)),
)
train_dataloader = dict(num_workers=8)
sniper = dict(batch_size=20, range_first=True, negative_chips=dict(warmup_epochs=4))
