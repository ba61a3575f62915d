# Whole images of HIT-UAV at their own size. All configs of this comparison have this detector,
# schedule and NMS: that of SNIPER's test.
_base_ = [
    '../_base_/models/faster_rcnn_yolox_nano.py',
    '../_base_/datasets/hituav.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
nms = dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001)
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=3)),
    test_cfg=dict(rcnn=dict(score_thr=0.001, nms=dict(_delete_=True, **nms), max_per_img=100)),
)
