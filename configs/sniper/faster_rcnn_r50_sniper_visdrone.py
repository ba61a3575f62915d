# SNIPER with Faster R-CNN R-50 FPN on VisDrone-DET, by the stock 1x schedule.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/visdrone.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/visdrone.py',
]
# Proposals in the regions that VisDrone ignores are no background.
ignoring = dict(assigner=dict(ignore_iof_thr=0.5))
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=10)),
    train_cfg=dict(rpn=ignoring, rcnn=ignoring),
    test_cfg=dict(rcnn=dict(max_per_img=500)),
)
