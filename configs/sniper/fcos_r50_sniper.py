# SNIPER with FCOS R-50 FPN on COCO, by the stock schedule.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
