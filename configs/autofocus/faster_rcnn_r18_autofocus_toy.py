# AutoFocus on the toy scenes, on a CPU: the SNIPER config with a FocusPixel branch.
_base_ = '../sniper/faster_rcnn_r18_sniper_negatives_toy.py'
# Enough for the objects of a level, and cheap: on a CPU proposals cost as much as convolutions.
view_rpn = dict(nms_pre=200, max_per_img=100)
model = dict(
    _delete_=True,
    type='AutoFocus',
    detector=_base_.model,
    pyramid=_base_.pyramid,
    focus_head=dict(
        type='PyramidFocusHead', in_channels=32, feat_channels=32, pyramid=_base_.pyramid
    ),
    thresholds=(0.02, 0.2),
    tta_cfg=_base_.tta_model.tta_cfg,
    view_test_cfg=dict(rpn=view_rpn, **_base_.tta_model.view_test_cfg),
    least_proposals=50,
)
tta_model = dict(view_test_cfg=dict(rpn=view_rpn))  # so that thresholds of 0 give what --tta gives

# Coarse to fine on the image as it is. (Validation during training: one pass at the middle level.)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
