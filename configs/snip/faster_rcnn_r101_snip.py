# SNIP with Faster R-CNN R-101 FPN on COCO: SNIPER's levels and ranges on whole images.
_base_ = '../_base_/faster_rcnn_r101_paper_coco.py'
sniper = dict(whole_images=True, batch_size=1)
# One image a GPU is too little to train BatchNorm.
model = dict(backbone=dict(norm_cfg=dict(requires_grad=False), norm_eval=True))
auto_scale_lr = dict(base_batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.01))  # the stock schedule's 0.02 for 16 images
