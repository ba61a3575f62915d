# SNIPER with Faster R-CNN R-50 FPN on Objects365 v2, by the stock 1x schedule.
_base_ = [
    'mmdet::objects365/faster-rcnn_r50_fpn_16xb4-1x_objects365v2.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/resolution.py',
]
