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
# Trainings of few epochs: mined after the first.
sniper = dict(negative_chips=dict(warmup_epochs=1))
# The best of 0.001, 0.002 and 0.004 on days held out of the training set; whole images and tiles
# are best, or level, at 0.001. A batch of chips shows five times as many objects.
optim_wrapper = dict(optimizer=dict(lr=0.002))
