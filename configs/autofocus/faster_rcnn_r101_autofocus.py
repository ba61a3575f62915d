# AutoFocus with Faster R-CNN R-101 FPN on COCO: the SNIPER config with a FocusPixel branch.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
# The thresholds of the authors' release: coarse to middle, middle to fine.
sniper = dict(autofocus=dict(focus_head=dict(type='FocusHead'), thresholds=(0.02, 0.2)))
