# The RPN of SNIPER's first step (section 3.3): trained for four passes over the images (the
# release's two epochs) on positive chips alone, to mine negative chips for any detector with
# tools/analysis_tools/mine_negatives.py.
_base_ = [
    'mmdet::_base_/models/rpn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/schedules/sniper_14e.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
model = dict(
    backbone=dict(
        depth=101,
        norm_cfg=dict(requires_grad=True, momentum=0.005),
        norm_eval=False,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    ),
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=3.0)),
    train_cfg=dict(rpn=dict(assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.01))),
)
sniper = dict(batch_size=20, range_first=True, negative_chips=None)
# Images without objects have no positive chips, so nothing is trained on them; they are mined.
train_dataloader = dict(num_workers=8, dataset=dict(filter_cfg=dict(filter_empty_gt=False)))
val_evaluator = test_evaluator = dict(metric='proposal_fast')
# The detector's schedule before its learning rate drops.
train_cfg = dict(max_epochs=4)
param_scheduler = _base_.param_scheduler[:1]
