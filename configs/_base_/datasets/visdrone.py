# VisDrone-DET: photographs from drones, 960x540 to 2000x1500 px, with 50 objects in the mean and
# hundreds in some, most of them under 50 px. Annotations: tools/dataset_tools/visdrone_to_coco.py.
# The detector needs num_classes=10; max_per_img=500 in its test_cfg, for the 500 detections that
# are evaluated; and ignore_iof_thr=0.5 in its assigners (stock: -1), without which the ignored
# regions are background.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'
data_root = 'data/VisDrone/'
dataset = dict(
    data_root=data_root,
    metainfo=dict(
        classes=(
            *('pedestrian', 'people', 'bicycle', 'car', 'van', 'truck'),
            *('tricycle', 'awning-tricycle', 'bus', 'motor'),
        )
    ),
)
train_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='annotations/train.json',
        data_prefix=dict(img='VisDrone2019-DET-train/images/'),
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='annotations/val.json',
        data_prefix=dict(img='VisDrone2019-DET-val/images/'),
    )
)
# Results are usually given for val. For test-dev: ann_file='annotations/test_dev.json' here and in
# the evaluator, data_prefix=dict(img='VisDrone2019-DET-test-dev/images/').
test_dataloader = val_dataloader

# AP of up to 500 detections of an image and class, as VisDrone has it. The plain evaluation
# (use_mp_eval=False) would take 100 for mAP, whatever proposal_nums says.
val_evaluator = dict(
    ann_file=data_root + 'annotations/val.json', proposal_nums=(10, 100, 500), use_mp_eval=True
)
test_evaluator = val_evaluator
