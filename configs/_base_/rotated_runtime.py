# Our runtime where plain names are those of MMRotate.
_base_ = './default_runtime.py'

default_scope = 'mmrotate'
visualizer = dict(type='mmrotate.RotLocalVisualizer')
