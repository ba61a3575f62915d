# SNIPER with PAA R-50 FPN on COCO, by the stock schedule. PAA needs scikit-learn.
_base_ = [
    'mmdet::paa/paa_r50_fpn_1x_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
