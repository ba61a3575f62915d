# As faster_rcnn_r18_sniper_bccd.py, with the pyramid that suggest_pyramid.py proposes.
_base_ = [
    '../baselines/faster_rcnn_r18_single_scale_bccd.py',
    '../_base_/chip_samples.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/bccd_suggested.py',
]
model = dict(**_base_.chip_samples)
sniper = dict(batch_size=8, negative_chips=None)
