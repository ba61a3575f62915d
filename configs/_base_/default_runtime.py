# MMDetection's runtime and ours.
_base_ = ['mmdet::_base_/default_runtime.py', './sniper_runtime.py']

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=2))
