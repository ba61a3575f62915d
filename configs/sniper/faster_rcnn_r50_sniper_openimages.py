# SNIPER with Faster R-CNN R-50 FPN on Open Images v6, by the stock 1x schedule, class-aware.
_base_ = [
    'mmdet::openimages/faster-rcnn_r50_fpn_32xb2-cas-1x_openimages.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/resolution.py',
]
