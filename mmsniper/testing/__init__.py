"""Data to test and show with, made on the spot: toy scenes and a COCO data set of them."""

from mmsniper.testing.toy_dataset import ToyDatasetSpec, coco_annotations, make_toy_dataset
from mmsniper.testing.toy_scenes import CLASSES, ToyObject, ToyScene, plan_scene, render_scene

__all__ = [
    'CLASSES',
    'ToyDatasetSpec',
    'ToyObject',
    'ToyScene',
    'coco_annotations',
    'make_toy_dataset',
    'plan_scene',
    'render_scene',
]
