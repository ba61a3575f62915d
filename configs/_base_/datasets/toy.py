# Toy scenes made by tools/dataset_tools/make_toy_dataset.py: about 1000x1000 px, 4 classes.
_base_ = './small_coco.py'
data_root = 'work_dirs/toy_data/'
data = dict(data_root=data_root, metainfo=dict(classes=('disc', 'ring', 'square', 'cross')))
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (500, 500)  # of whole images
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
        **data,
    ),
)
val_dataloader = test_dataloader = dict(
    dataset=dict(
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
        **data,
    )
)
val_evaluator = test_evaluator = dict(ann_file=data_root + 'annotations/val.json')
