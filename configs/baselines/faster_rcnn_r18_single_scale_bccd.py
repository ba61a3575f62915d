# The detector of the SNIPER config on whole images at one scale, 320x240.
_base_ = [
    '../_base_/models/faster_rcnn_r18_small.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
