# The paper's recipe (section 5) for 8 GPUs x 20 chips of COCO, on MMDetection's Faster R-CNN R-101
# FPN: ../sniper/faster_rcnn_r101_sniper.py spells out what comes of it.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    './schedules/sniper_7e.py',
    './sniper.py',
    './pyramids/coco_paper.py',
]
model = dict(
    # 20 chips a GPU are enough to train BatchNorm, beyond the frozen stem and first stage.
    backbone=dict(
        depth=101,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    ),
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True)),
    train_cfg=dict(
        rpn=dict(assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4)),
        rpn_proposal=dict(max_per_img=300),
        # More than there are, so that every proposal is used: no resampling.
        rcnn=dict(sampler=dict(num=1024, pos_fraction=0.5)),
    ),
)
train_dataloader = dict(num_workers=8)
sniper = dict(batch_size=20)
