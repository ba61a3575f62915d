# Oriented R-CNN R-50 on DOTA's usual crops of 1024 px, to compare
# ../sniper/oriented_rcnn_r50_sniper_dota.py with. MMRotate's img_split.py cuts them, with
# ss_train.json and ss_val.json. The stock config learns from train and val together; here val is
# left for the test. That is by crop, so that its mAP is not the one of whole images
# (docs/howto/rotated_boxes.md).
_base_ = 'mmrotate::oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py'
train_dataloader = dict(
    dataset=dict(ann_file='train/annfiles/', data_prefix=dict(img_path='train/images/'))
)
val_dataloader = test_dataloader = dict(
    dataset=dict(ann_file='val/annfiles/', data_prefix=dict(img_path='val/images/'))
)
