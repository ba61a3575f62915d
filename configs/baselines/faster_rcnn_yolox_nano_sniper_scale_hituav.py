# Whole images of HIT-UAV at the scale of SNIPER's finest level.
_base_ = 'faster_rcnn_yolox_nano_hituav.py'
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (960, 768)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
