# SNIPER with YOLOX-nano on HIT-UAV, fine-tuned from COCO, on a CPU.
_base_ = [
    '../baselines/yolox_nano_hituav.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/hituav.py',
]
