# The SNIPER config with negative chips, mined after two epochs.
_base_ = 'faster_rcnn_r18_sniper_bccd.py'
# Trained from scratch for a few epochs, the detector needs its positive chips: one negative of an
# image is enough. Of 300 proposals most have scores of under 0.3, and lie anywhere.
sniper = dict(
    negative_chips=dict(
        _delete_=True, warmup_epochs=2, chips_per_image=1, score_thr=0.3, min_proposals=(10, 5)
    )
)
