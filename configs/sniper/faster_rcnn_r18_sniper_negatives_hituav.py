# The SNIPER config with negative chips, mined after one epoch: of 4,800 chips, five times those of
# an epoch on BCCD or the toy scenes. The other values are those of these data sets.
_base_ = 'faster_rcnn_r18_sniper_hituav.py'
sniper = dict(
    negative_chips=dict(
        _delete_=True, warmup_epochs=1, chips_per_image=1, score_thr=0.3, min_proposals=(10, 5)
    )
)
