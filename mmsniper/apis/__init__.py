"""Inference from Python: image files and arrays in, COCO results out."""

from mmsniper.apis.images import find_images
from mmsniper.apis.inferencer import SNIPERInferencer
from mmsniper.apis.modes import AUTOFOCUS, MODES, PYRAMID, SINGLE

__all__ = ['AUTOFOCUS', 'MODES', 'PYRAMID', 'SINGLE', 'SNIPERInferencer', 'find_images']
