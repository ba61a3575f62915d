# SNIPER with Deformable DETR R-50 on COCO, by the stock schedule.
_base_ = [
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
