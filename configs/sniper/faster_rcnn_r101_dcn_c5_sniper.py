# SNIPER with the paper's kind of model on COCO: no FPN, a dilated C5 (stride 16) with deformable
# convolutions, here on MMDetection's DC5 detector. The recipe: faster_rcnn_r101_sniper.py.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50-caffe-dc5.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/schedules/sniper_7e.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
model = dict(
    backbone=dict(
        depth=101,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet101_caffe'),
    ),
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True)),
    train_cfg=dict(
        rpn=dict(assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4)),
        rpn_proposal=dict(max_per_img=300),
        rcnn=dict(sampler=dict(num=1024, pos_fraction=0.5)),
    ),
)
sniper = dict(batch_size=20)
