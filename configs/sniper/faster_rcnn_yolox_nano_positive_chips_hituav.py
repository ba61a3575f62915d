# The same without negative chips.
_base_ = 'faster_rcnn_yolox_nano_sniper_hituav.py'
sniper = dict(negative_chips=None)
