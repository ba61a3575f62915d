# SNIPER with RTMDet-Ins-s on COCO, by the stock schedule.
_base_ = [
    'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
