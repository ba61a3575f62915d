# AutoFocus on HIT-UAV with weights from COCO, on a CPU: the SNIPER config with a FocusPixel branch.
_base_ = '../sniper/faster_rcnn_yolox_nano_sniper_hituav.py'
sniper = dict(
    autofocus=dict(
        focus_head=dict(feat_channels=64),
        min_rpn_proposals=50,
        level_rpn=dict(nms_pre=500, max_per_img=300),
    )
)
