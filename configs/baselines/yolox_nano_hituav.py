# YOLOX-nano, fine-tuned from COCO on whole images of HIT-UAV at their own size. Test settings and
# schedule are those of the other configs of HIT-UAV.
_base_ = [
    '../_base_/models/yolox_nano.py',
    '../_base_/datasets/hituav.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
# MMDetection's YOLOX; of all weights only the layers of the classes are not taken. Without the file
# no training starts, but from scratch with load_from = None. (yolox_nano_coco.pth beside it has its
# norms folded into the convolutions, and is right only where they stay frozen.)
weights = 'data/weights/yolox_nano_coco_calibrated.pth'
load_from = weights

nms = dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001)
model = dict(
    bbox_head=dict(num_classes=3),
    test_cfg=dict(score_thr=0.001, nms=dict(_delete_=True, **nms), max_per_img=100),
)
