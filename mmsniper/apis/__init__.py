"""Inference from Python: image files and arrays in, COCO results out."""

import mmsniper
from mmsniper.apis.images import find_images
from mmsniper.apis.inferencer import SNIPERInferencer
from mmsniper.apis.modes import AUTOFOCUS, MODES, PYRAMID, SINGLE

# Also where mmsniper was imported before mmengine.
mmsniper.register_all_modules()

__all__ = ['AUTOFOCUS', 'MODES', 'PYRAMID', 'SINGLE', 'SNIPERInferencer', 'find_images']
