# SNIP with Faster R-CNN R-101 FPN on COCO: SNIPER's levels and ranges on whole images.
_base_ = [
    '../_base_/models/faster_rcnn_r101_paper.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/schedules/sniper_7e.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/coco_paper.py',
]
# One image a GPU is too little to train BatchNorm.
model = dict(backbone=dict(norm_cfg=dict(requires_grad=False), norm_eval=True))
sniper = dict(whole_images=True, batch_size=1)
train_dataloader = dict(num_workers=8)
auto_scale_lr = dict(base_batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.01))  # the stock schedule's 0.02 for 16 images
