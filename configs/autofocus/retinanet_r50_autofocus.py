# AutoFocus with RetinaNet R-50 FPN on COCO: a stock config, the fragment, and one option.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
sniper = dict(autofocus=dict())
