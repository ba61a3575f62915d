# SNIPER with YOLOX-s on COCO, by the stock schedule, without its mixing of images.
_base_ = [
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
