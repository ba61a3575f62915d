# SNIPER with DDQ R-50 on COCO, by the stock schedule.
_base_ = [
    'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
