# SNIPER on BCCD blood cells, from scratch, on a CPU.
_base_ = [
    '../_base_/models/faster_rcnn_r18_small.py',
    '../_base_/datasets/bccd.py',
    '../_base_/pyramids/bccd.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
pyramid = _base_.pyramid

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchFixedSizePad', size=(pyramid['chip_size'],) * 2)]
    ),
    roi_head=dict(type='SNIPERRoIHead', pyramid=pyramid, bbox_head=dict(num_classes=3)),
    train_cfg=dict(rpn=dict(assigner=dict(type='ValidRangeAssigner'))),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='ChipSampler', pyramid=pyramid),
    dict(type='ScaleRangeFilter', pyramid=pyramid),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='ChipAwareSampler', pyramid=pyramid),
    dataset=dict(type='ChipDataset', dataset=_base_.train_dataset, pipeline=train_pipeline),
)

# Without --tta: one pass over the whole image at the middle level.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LevelResize', pyramid=pyramid, level=1, test=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, **_base_.val_dataset),
)
test_dataloader = val_dataloader

# With --tta: every level, each keeps what is in its test range, merged by Soft-NMS.
tta_model = dict(
    type='SNIPERTTAModel',
    pyramid=pyramid,
    tta_cfg=dict(
        nms=dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001), max_per_img=100
    ),
    # Soft-NMS is to see all of a level's detections, of which those out of its range go first.
    view_test_cfg=dict(rcnn=dict(score_thr=0.001, nms=None, max_per_img=500)),
)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='LevelResize', pyramid=pyramid, level=level, test=True)
                for level in range(len(pyramid['levels']))
            ],
            [dict(type='RandomFlip', prob=0.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale_factor',
                        'flip',
                        'flip_direction',
                    ),
                )
            ],
        ],
    ),
]
