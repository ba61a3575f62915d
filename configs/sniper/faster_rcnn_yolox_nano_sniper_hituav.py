# SNIPER on HIT-UAV with weights from COCO, on a CPU.
_base_ = [
    '../baselines/faster_rcnn_yolox_nano_hituav.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/hituav.py',
]
sniper = dict(batch_size=8)
