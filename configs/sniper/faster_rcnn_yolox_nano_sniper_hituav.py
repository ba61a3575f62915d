# SNIPER on HIT-UAV with weights from COCO, on a CPU.
_base_ = [
    '../baselines/faster_rcnn_yolox_nano_hituav.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/hituav.py',
]
# Of a chip, a thirteenth of an image's pixels.
model = dict(
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
