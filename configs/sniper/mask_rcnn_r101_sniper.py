# SNIPER with Mask R-CNN R-101 FPN on COCO, by the stock schedule.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
