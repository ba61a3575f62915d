# SNIP on HIT-UAV: SNIPER's levels and ranges on whole images, as many samples as MMDetection has.
_base_ = [
    '../baselines/faster_rcnn_yolox_nano_hituav.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/hituav.py',
]
sniper = dict(whole_images=True, batch_size=1, negative_chips=None)
