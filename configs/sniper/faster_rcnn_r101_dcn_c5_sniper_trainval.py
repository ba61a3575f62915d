# The data of the paper's figure: trained on all labelled images, tested on test-dev. (train2017 and
# val2017 are the 123,287 images of train2014 and val2014.) `tools/test.py` writes the file for
# COCO's server. Validation is on images that were trained on: it is a sign of life, no result.
_base_ = 'faster_rcnn_r101_dcn_c5_sniper.py'
train2017 = _base_.train_dataloader.dataset
val2017 = dict(
    train2017, ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/')
)
train_dataloader = dict(
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[train2017, val2017])
)
test_dataloader = dict(
    dataset=dict(
        ann_file='annotations/image_info_test-dev2017.json', data_prefix=dict(img='test2017/')
    )
)
test_evaluator = dict(
    ann_file=_base_.data_root + 'annotations/image_info_test-dev2017.json',
    format_only=True,
    outfile_prefix='work_dirs/coco_test-dev/detections',
)
