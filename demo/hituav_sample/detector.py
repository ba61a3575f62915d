# The detector that the weights in this folder are of, and the images beside it. As all configs, it
# is for `python tools/test.py`, `tools/infer.py`, `tools/train.py` and the others.
_base_ = '../../configs/autofocus/faster_rcnn_yolox_nano_autofocus_hituav.py'
data_root = '{{ fileDirname }}/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = test_evaluator = dict(ann_file=data_root + 'val.json')
