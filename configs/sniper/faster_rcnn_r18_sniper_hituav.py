# SNIPER on HIT-UAV, infrared images from drones, from scratch, on a CPU.
_base_ = [
    '../_base_/models/faster_rcnn_r18_tiny.py',
    '../_base_/datasets/hituav.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
    '../_base_/chip_samples.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/hituav.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)), **_base_.chip_samples)
model['train_cfg']['rpn_proposal'] = dict(nms_pre=200, max_per_img=100)
sniper = dict(batch_size=8, negative_chips=None)
# Without --tta: one pass over the whole image at its own scale.
