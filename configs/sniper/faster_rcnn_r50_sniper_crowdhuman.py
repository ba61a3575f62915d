# SNIPER with Faster R-CNN R-50 FPN on CrowdHuman, by the stock 1x schedule. (CrowdDet, which
# MMDetection has for these data, has no SNIPER version.)
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/crowdhuman.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/resolution.py',
]
ignoring = dict(assigner=dict(ignore_iof_thr=0.5))
model = dict(
    rpn_head=dict(anchor_generator=dict(ratios=[1.0, 2.0, 3.0])),  # people are tall
    roi_head=dict(bbox_head=dict(num_classes=1)),
    train_cfg=dict(rpn=ignoring, rcnn=ignoring),
    test_cfg=dict(rcnn=dict(score_thr=0.01, max_per_img=500)),
)
