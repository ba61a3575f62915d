# Toy scenes made by tools/dataset_tools/make_toy_dataset.py: about 1000x1000 px, 4 classes.
dataset_type = 'CocoDataset'
data_root = 'work_dirs/toy_data/'
metainfo = dict(classes=('disc', 'ring', 'square', 'cross'))

train_dataset = dict(
    type=dataset_type,
    data_root=data_root,
    metainfo=metainfo,
    ann_file='annotations/train.json',
    data_prefix=dict(img='train/'),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
)
val_dataset = dict(
    type=dataset_type,
    data_root=data_root,
    metainfo=metainfo,
    ann_file='annotations/val.json',
    data_prefix=dict(img='val/'),
    test_mode=True,
)
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_evaluator = val_evaluator
