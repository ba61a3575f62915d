# HIT-UAV in uniform tiles of 213 px, at the scale of SNIPER's finest level, and whole images at
# half size: what SAHI shows a detector. benchmarks/compare_training.py cuts the tiles and tests by
# SAHI; tools/test.py sees the whole images only.
_base_ = 'faster_rcnn_yolox_nano_hituav.py'
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (320, 320)
train_dataloader = dict(
    batch_size=3,
    dataset=dict(
        data_root='work_dirs/tiles/hituav/', data_prefix=dict(img=''), pipeline=train_pipeline
    ),
)
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
# Of a tile, a third of an image's pixels: a batch has as many samples as one of chips.
model = dict(
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=1000, max_per_img=500), rcnn=dict(sampler=dict(num=256))
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=500)),
)
