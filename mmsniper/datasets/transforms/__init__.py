"""The pipeline transforms, one a file."""

from mmsniper.datasets.transforms.chip_sampler import ChipSampler
from mmsniper.datasets.transforms.level_resize import LevelResize
from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile
from mmsniper.datasets.transforms.scale_range_filter import IGNORE_REGION, ScaleRangeFilter

__all__ = [
    'IGNORE_REGION',
    'ChipSampler',
    'LevelResize',
    'LoadLargeImageFromFile',
    'ScaleRangeFilter',
]
