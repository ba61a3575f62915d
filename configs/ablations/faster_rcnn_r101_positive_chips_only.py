# SNIPER without negative chips.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
sniper = dict(negative_chips=None)
