# A template: SNIPER with Faster R-CNN R-50 FPN on data of your own in COCO's format. Copy it, and
# change what is marked. Step by step: docs/own_data.md.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',  # any detector
    '../_base_/sniper.py',
    # Yours: what suggest_pyramid.py writes. This one is for images of 400 to 1000 px.
    '../_base_/pyramids/resolution.py',
]
data_root = 'data/mine/'  # yours
classes = ('first', 'second')  # yours: the names in the annotation file
mine = dict(data_root=data_root, metainfo=dict(classes=classes))
# Yours: the annotation files and the folders of their images.
train_dataloader = dict(dataset=dict(ann_file='train.json', data_prefix=dict(img='train/'), **mine))
val_dataloader = dict(dataset=dict(ann_file='val.json', data_prefix=dict(img='val/'), **mine))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val.json')  # yours
test_evaluator = val_evaluator
model = dict(roi_head=dict(bbox_head=dict(num_classes=len(classes))))

# The detector, trained on COCO, is a better start than a backbone trained on ImageNet. (The layers
# that depend on the classes are left out, which a warning says.)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/'
    'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
)
# The stock schedule validates after each epoch; the best one is kept.
default_hooks = dict(checkpoint=dict(save_best='auto'))
