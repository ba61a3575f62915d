# AutoFocus with Faster R-CNN R-101 FPN on COCO: the SNIPER config with a FocusPixel branch.
_base_ = '../sniper/faster_rcnn_r101_sniper.py'
model = dict(
    _delete_=True,
    type='AutoFocus',
    detector=_base_.model,
    pyramid=_base_.pyramid,
    focus_head=dict(type='FocusHead', in_channels=256),
    thresholds=(0.02, 0.2),  # coarse to middle, middle to fine, as in the authors' release
    tta_cfg=_base_.tta_model.tta_cfg,
    view_test_cfg=_base_.tta_model.view_test_cfg,
)
# Coarse to fine on the image as it is. (Validation during training: one pass at 800x1333.)
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
