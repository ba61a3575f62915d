# The detector of faster_rcnn_r18_tiny.py with the rotated boxes of MMRotate's
# rotated-faster-rcnn-le90_r50_fpn_1x_dota.py: the RPN proposes upright boxes, the RoI head turns
# them.
_base_ = 'faster_rcnn_r18_tiny.py'

assigner = dict(iou_calculator=dict(type='mmrotate.RBbox2HBboxOverlaps2D'))
model = dict(
    data_preprocessor=dict(boxtype2tensor=False),
    rpn_head=dict(
        anchor_generator=dict(use_box_type=True),
        bbox_coder=dict(type='mmrotate.DeltaXYWHHBBoxCoder', use_box_type=True),
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9),
    ),
    roi_head=dict(
        bbox_head=dict(
            predict_box_type='rbox',
            bbox_coder=dict(
                type='mmrotate.DeltaXYWHTHBBoxCoder',
                angle_version='le90',
                norm_factor=2,
                edge_swap=True,
                target_means=(0.0, 0.0, 0.0, 0.0, 0.0),
                target_stds=(0.1, 0.1, 0.2, 0.2, 0.1),
            ),
            reg_class_agnostic=True,
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0),
        )
    ),
    train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)),
    test_cfg=dict(rcnn=dict(nms=dict(type='nms_rotated', iou_threshold=0.1))),
)
