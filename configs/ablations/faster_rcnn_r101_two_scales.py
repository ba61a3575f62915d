# SNIPER on two scales: a factor of 1.667 and a long side of 512. Without the finest level, the
# other fine one has all the objects that are below its upper bound.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
middle, coarse = _base_.pyramid['levels'][1:]
pyramid = dict(levels=[dict(middle, valid_range=(0, 150), test_range=(0, 180)), coarse])
# As in the three-scale config at these levels: more than 10 proposals make a negative chip.
sniper = dict(negative_chips=dict(min_proposals=10))
