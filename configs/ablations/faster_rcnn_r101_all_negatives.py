# SNIPER with all negative chips in every epoch: whatever holds a proposal that no positive chip
# encloses, and all of an image's, instead of at most two of those that hold many.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
sniper = dict(negative_chips=dict(min_proposals=0, chips_per_image=1000))
