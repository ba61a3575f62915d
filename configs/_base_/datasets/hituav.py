# HIT-UAV (github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset), COCO format: 640x512 infrared
# images from drones. Three classes: cars and other vehicles are one.
_base_ = './small_coco.py'
data_root = 'data/hituav/'
data = dict(data_root=data_root, metainfo=dict(classes=('person', 'vehicle', 'bicycle')))
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (640, 512)  # of whole images
train_dataloader = dict(
    dataset=dict(
        ann_file='train.json', data_prefix=dict(img='images/'), pipeline=train_pipeline, **data
    )
)
val_dataloader = test_dataloader = dict(
    dataset=dict(
        ann_file='val.json', data_prefix=dict(img='images/'), pipeline=test_pipeline, **data
    )
)
val_evaluator = test_evaluator = dict(ann_file=data_root + 'val.json')
