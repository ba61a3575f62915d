# SNIPER with RTMDet-s on COCO, by the stock schedule.
_base_ = [
    'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
