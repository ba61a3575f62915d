# SNIPER with the release's kind of model on COCO, the one to compare with the paper's figure. No
# FPN: C4 and a dilated C5 with deformable convolutions, both of stride 16, make one map.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
model = dict(
    backbone=dict(
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(2, 3),
        dcn=dict(type='DCN', deform_groups=4, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
    ),
    neck=dict(_delete_=True, type='ConcatNeck', in_channels=[1024, 2048], out_channels=256),
    rpn_head=dict(
        feat_channels=512,
        # Of 32 to 384 px.
        anchor_generator=dict(scales=[2, 4, 7, 10, 13, 16, 24], strides=[16]),
    ),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[16])),
    # Anchors that lie further out of the chip are ignored.
    train_cfg=dict(rpn=dict(allowed_border=32), rpn_proposal=dict(nms_pre=6000)),
    test_cfg=dict(rpn=dict(nms_pre=6000)),
)
