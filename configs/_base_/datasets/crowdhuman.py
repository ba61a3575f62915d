# CrowdHuman: 15,000 photographs for training, 23 people in the mean, most of them hidden in part.
# Boxes are those of whole people (fbox), cut off at the edge of the image. The data set reads the
# size of each image once, by decoding it, and writes DATA_ROOT/id_hw_train.json.
#
# The detector needs num_classes=1, max_per_img=500 in its test_cfg, and ignore_iof_thr=0.5 in its
# assigners (stock: -1), without which the ignored regions (masks, reflections) are background.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'
dataset = dict(type='CrowdHumanDataset', data_root='data/CrowdHuman/')
train_dataloader = dict(
    dataset=dict(**dataset, ann_file='annotation_train.odgt', data_prefix=dict(img='Images/'))
)
val_dataloader = dict(
    dataset=dict(**dataset, ann_file='annotation_val.odgt', data_prefix=dict(img='Images/'))
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='CrowdHumanMetric',
    ann_file='data/CrowdHuman/annotation_val.odgt',
    metric=['AP', 'MR', 'JI'],
)
test_evaluator = val_evaluator
