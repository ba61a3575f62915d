# SNIPER with Rotated RTMDet-s on whole images of DOTA. The stock config has crops of 1024 px.
_base_ = [
    'mmrotate::rotated_rtmdet/rotated_rtmdet_s-3x-dota.py',
    '../_base_/datasets/dota.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/dota.py',
]
train_dataloader = dict(dataset=_base_.dota_train)
val_dataloader = test_dataloader = dict(dataset=_base_.dota_val)
