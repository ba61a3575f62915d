# SNIPER with rotated boxes on the rotated toy scenes, from scratch, on a CPU.
_base_ = [
    '../baselines/rotated_faster_rcnn_r18_single_scale_toy.py',
    '../_base_/chip_samples.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/toy.py',
]
model = dict(**_base_.chip_samples)
model['train_cfg']['rpn_proposal'] = dict(nms_pre=200, max_per_img=100)
sniper = dict(batch_size=8, negative_chips=None)
