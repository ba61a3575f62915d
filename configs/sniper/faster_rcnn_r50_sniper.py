# SNIPER with Faster R-CNN R-50 FPN on COCO: the recipe of R-101.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
model = dict(
    backbone=dict(depth=50, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
)
