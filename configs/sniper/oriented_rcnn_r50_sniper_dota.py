# SNIPER with Oriented R-CNN R-50 on whole images of DOTA. The stock config has crops of 1024 px.
_base_ = [
    'mmrotate::oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py',
    '../_base_/datasets/dota.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/dota.py',
]
train_dataloader = dict(dataset=_base_.dota_train)
val_dataloader = test_dataloader = dict(dataset=_base_.dota_val)
