# Toy scenes with rotated boxes, made by tools/dataset_tools/make_toy_dataset.py --rotated: about
# 1000x1000 px, 4 classes. Training reads DOTA's format. Tests read COCO's, since RotatedCocoMetric
# needs images that are known by numbers.
data_root = 'work_dirs/toy_rotated_data/'
load_image = dict(type='mmdet.LoadImageFromFile')
resize = dict(type='mmdet.Resize', scale=(500, 500), keep_ratio=True)  # of whole images
train_pipeline = [
    load_image,
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
    resize,
    dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    load_image,
    resize,
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='ConvertMask2BoxType', box_type='rbox'),
    dict(type='mmdet.PackDetInputs'),
]
data = dict(data_root=data_root, metainfo=dict(classes=('disc', 'ring', 'square', 'cross')))
train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='DOTADataset',
        ann_file='annfiles/train/',
        img_suffix='jpg',
        data_prefix=dict(img_path='train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
        **data,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdet.CocoDataset',
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
        **data,
    ),
)
test_dataloader = val_dataloader
# COCO's metrics with the overlaps of rotated boxes.
val_evaluator = dict(type='RotatedCocoMetric', metric='bbox')
test_evaluator = val_evaluator
