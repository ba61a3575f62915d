# Turns a detector's config into its SNIPER version: _base_ = [theirs, this file, a pyramid].
#
# Two bases of mmengine's configs cannot share a key, so this one changes none of theirs: it names
# a Runner that rewrites the config before it builds anything (mmsniper/convert). The result is
# shown by tools/misc/print_config.py and dumped into the work folder.
#
# Reading this file imports mmsniper, as custom_imports would, which may be theirs. From torch 2.6
# on its checkpoints then also load into the stock detector that DetInferencer and init_detector
# build of this config.
__import__('mmsniper')
runner_type = 'mmsniper.engine.SNIPERRunner'
sniper = dict(
    batch_size=None,  # chips of a GPU; None: the pixels of train_dataloader.batch_size images
    sampler=dict(),  # further arguments of ChipAwareSampler
    negative_chips=dict(warmup_epochs=2),  # of NegativeChipHook, for an RPN; None: no mining
    # autofocus=dict() in your config: tested coarse to fine (configs/autofocus), its arguments.
    # range_first=True: an RPN proposes only what has the level's sizes, as in the release.
    # samples_by_area=True: of an image's samples and proposals a chip gets its area's share.
    # whole_images=True: SNIP, the same levels and ranges on whole images (configs/snip).
)
