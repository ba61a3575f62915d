# AutoFocus on HIT-UAV with weights from COCO, on a CPU: the SNIPER config with a FocusPixel branch.
_base_ = '../sniper/faster_rcnn_yolox_nano_sniper_hituav.py'
sniper = dict(
    autofocus=dict(
        # In a training of few epochs the branch would take from the detector what it learns.
        focus_head=dict(feat_channels=64, detach=True),
        min_rpn_proposals=50,
        level_rpn=dict(nms_pre=500, max_per_img=300),
    )
)
