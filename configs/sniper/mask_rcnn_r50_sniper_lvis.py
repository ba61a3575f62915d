# SNIPER with Mask R-CNN R-50 FPN on LVIS v1, by the stock 1x schedule. Images of rare classes are
# repeated.
_base_ = [
    'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
