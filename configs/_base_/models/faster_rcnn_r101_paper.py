# The paper's recipe (section 5) on MMDetection's Faster R-CNN R-101 FPN.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
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
