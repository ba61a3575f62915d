# What every config of ours needs at run time: mmsniper itself, counts of the training's pixels and
# time, the checks of what a run starts and goes on with, and a fixed seed, with which a resumed run
# plans the chips that the uninterrupted one would have had.
__import__('mmsniper')  # also where a config replaces the list below by modules of its own
custom_imports = dict(imports=['mmsniper'])
custom_hooks = [
    dict(type='PixelCounterHook'),
    dict(type='TrainingTimeHook'),
    dict(type='ConsistencyHook'),
    dict(type='ResumeHook'),
]
randomness = dict(seed=0)
