# SNIPER with Faster R-CNN R-50 FPN on V3Det, by the stock 2x schedule. Images of rare classes are
# repeated.
_base_ = [
    'mmdet::v3det/faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/resolution.py',
]
