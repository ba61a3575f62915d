# AutoFocus on the toy scenes, on a CPU: the SNIPER config with a FocusPixel branch.
_base_ = '../sniper/faster_rcnn_r18_sniper_negatives_toy.py'
sniper = dict(
    autofocus=dict(
        focus_head=dict(feat_channels=32),
        thresholds=(0.02, 0.2),
        min_rpn_proposals=50,
        # Enough for the objects of a level, and cheap: on a CPU proposals cost as much as
        # convolutions.
        level_rpn=dict(nms_pre=200, max_per_img=100),
    )
)
