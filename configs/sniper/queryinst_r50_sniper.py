# SNIPER with QueryInst R-50 FPN on COCO, by the stock schedule.
_base_ = [
    'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
