# BCCD blood cells, COCO format: 640x480 images, 3 classes.
_base_ = './small_coco.py'
data_root = 'data/bccd/'
data = dict(data_root=data_root, metainfo=dict(classes=('RBC', 'WBC', 'Platelets')))
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (320, 240)  # of whole images
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        ann_file='train.json', data_prefix=dict(img='images/'), pipeline=train_pipeline, **data
    ),
)
val_dataloader = test_dataloader = dict(
    dataset=dict(
        ann_file='val.json', data_prefix=dict(img='images/'), pipeline=test_pipeline, **data
    )
)
val_evaluator = test_evaluator = dict(ann_file=data_root + 'val.json')
