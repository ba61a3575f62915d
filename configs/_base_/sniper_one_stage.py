# Turns a one-stage or set-prediction config into its SNIPER version: _base_ = [theirs, this file,
# a pyramid]. With COCO's pyramid: configs/mixins/sniper_one_stage.py. How: sniper_two_stage.py.
runner_type = 'mmsniper.engine.SNIPERRunner'
sniper = dict(
    detector='one_stage',
    batch_size=None,  # chips of a GPU; None: the pixels of train_dataloader.batch_size images
    # Without an RPN there is nothing to mine with, but a pool of another detector's proposals can
    # be used: sampler=dict(negatives=FILE), see docs/negative_chips.md.
    sampler=dict(),
    # autofocus=dict() in your config: tested coarse to fine (configs/autofocus), its arguments.
)
