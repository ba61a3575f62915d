"""Inference from Python: image files and arrays in, COCO results out."""

from mmsniper.apis.images import find_images
from mmsniper.apis.inferencer import SNIPERInferencer
from mmsniper.apis.modes import AUTOFOCUS, MODES, PYRAMID

__all__ = ['AUTOFOCUS', 'MODES', 'PYRAMID', 'SNIPERInferencer', 'find_images']
