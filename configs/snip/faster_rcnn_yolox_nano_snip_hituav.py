# SNIP on HIT-UAV: SNIPER's levels and ranges on whole images, as many samples as MMDetection has.
_base_ = [
    '../baselines/faster_rcnn_yolox_nano_hituav.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/hituav.py',
]
# Of the best proposals of a whole image few have the sizes of its level.
sniper = dict(whole_images=True, batch_size=1, range_first=True, negative_chips=None)
