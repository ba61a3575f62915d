"""How a chip reaches the network: data set, sampler and pipeline transforms."""

from mmsniper.datasets.chip_dataset import Chip, ChipDataset, ChipIndex
from mmsniper.datasets.samplers import ChipAwareSampler, has_mask_boxes, read_annotations
from mmsniper.datasets.transforms.chip_sampler import ChipSampler
from mmsniper.datasets.transforms.level_resize import LevelResize
from mmsniper.datasets.transforms.load_image_windows import LoadImageWindows, PackImageWindows
from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile
from mmsniper.datasets.transforms.scale_range_filter import IGNORE_REGION, ScaleRangeFilter

__all__ = [
    'IGNORE_REGION',
    'Chip',
    'ChipAwareSampler',
    'ChipDataset',
    'ChipIndex',
    'ChipSampler',
    'LevelResize',
    'LoadImageWindows',
    'LoadLargeImageFromFile',
    'PackImageWindows',
    'ScaleRangeFilter',
    'has_mask_boxes',
    'read_annotations',
]
