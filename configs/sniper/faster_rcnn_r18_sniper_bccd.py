# SNIPER on BCCD blood cells, from scratch, on a CPU.
_base_ = [
    '../baselines/faster_rcnn_r18_single_scale_bccd.py',
    '../_base_/chip_samples.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/bccd.py',
]
model = dict(**_base_.chip_samples)
sniper = dict(batch_size=8, negative_chips=None)
