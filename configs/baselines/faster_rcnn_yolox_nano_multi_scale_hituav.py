# Whole images of HIT-UAV at three scales drawn at random, tested at all three (stock TTA).
_base_ = 'faster_rcnn_yolox_nano_hituav.py'

scales = [(1280, 1024), (640, 512), (320, 256)]

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=_base_.nms, max_per_img=100))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=scale, keep_ratio=True) for scale in scales],
            [dict(type='RandomFlip', prob=0.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [dict(type='PackDetInputs')],
        ],
    ),
]
