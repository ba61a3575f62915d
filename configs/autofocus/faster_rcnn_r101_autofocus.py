# AutoFocus with Faster R-CNN R-101 FPN on COCO: the SNIPER config with a FocusPixel branch.
_base_ = [
    '../_base_/models/faster_rcnn_r101_paper.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/schedules/sniper_7e.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
# The thresholds of the authors' release: coarse to middle, middle to fine.
sniper = dict(
    batch_size=20, autofocus=dict(focus_head=dict(type='FocusHead'), thresholds=(0.02, 0.2))
)
train_dataloader = dict(num_workers=8)
