# The detector that the weights in this folder are of, and the images beside it. As all configs, it
# is for `python tools/test.py`, `tools/infer.py`, `tools/train.py` and the others. A training goes
# on from these weights, whose normalisation is folded into the convolutions: it has to stay.
_base_ = '../../configs/autofocus/faster_rcnn_yolox_nano_autofocus_hituav.py'
data_root = '{{ fileDirname }}/'
load_from = data_root + 'weights.pth'
model = dict(backbone=dict(norm_cfg=dict(requires_grad=False), norm_eval=True, init_cfg=None))
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = test_evaluator = dict(ann_file=data_root + 'val.json')
