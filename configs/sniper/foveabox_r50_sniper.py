# SNIPER with FoveaBox R-50 FPN on COCO, by the stock schedule.
_base_ = [
    'mmdet::foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
