# The detector of the SNIPER config on whole images at one scale: about half their size, so that a
# batch of one image has about as many pixels as one of eight chips.
_base_ = [
    '../_base_/models/rotated_faster_rcnn_r18_tiny.py',
    '../_base_/datasets/toy_rotated.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/rotated_runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=4)))
