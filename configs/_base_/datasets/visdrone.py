# VisDrone-DET: photographs from drones, 960x540 to 2000x1500 px, with 50 objects in the mean and
# hundreds in some, most of them under 50 px. Annotations: tools/dataset_tools/visdrone_to_coco.py.
# In the place of mmdet::_base_/datasets/coco_detection.py. The detector needs num_classes=10;
# max_per_img=500 in its test_cfg, for the 500 detections that are evaluated; and ignore_iof_thr=0.5
# in its assigners (stock: -1), without which the ignored regions are background.
dataset_type = 'CocoDataset'
data_root = 'data/VisDrone/'
metainfo = dict(
    classes=(
        'pedestrian',
        'people',
        'bicycle',
        'car',
        'van',
        'truck',
        'tricycle',
        'awning-tricycle',
        'bus',
        'motor',
    )
)
backend_args = None

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='VisDrone2019-DET-train/images/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/val.json',
        data_prefix=dict(img='VisDrone2019-DET-val/images/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
# Results are usually given for val. For test-dev: ann_file='annotations/test_dev.json' here and in
# the evaluator, data_prefix=dict(img='VisDrone2019-DET-test-dev/images/').
test_dataloader = val_dataloader

# AP of up to 500 detections of an image and class, as VisDrone has it. The plain evaluation
# (use_mp_eval=False) would take 100 for mAP, whatever proposal_nums says.
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/val.json',
    metric='bbox',
    proposal_nums=(10, 100, 500),
    use_mp_eval=True,
    format_only=False,
    backend_args=backend_args,
)
test_evaluator = val_evaluator
