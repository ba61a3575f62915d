"""How many pixels an epoch of a config trains on, and how many epochs a number of pixels buys."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import islice
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

MAX_SAMPLES = 1024


class BlankImage:
    """Stands in for ``LoadImageFromFile``: a black image of the size that the annotations give.

    Required Keys:

    - height, width

    Added Keys:

    - img, img_shape, ori_shape
    """

    def __call__(self, results: dict) -> dict:
        shape = (results['height'], results['width'])
        results['img'] = np.zeros((*shape, 3), np.uint8)
        results['img_shape'] = results['ori_shape'] = shape
        return results


def pixels_per_epoch(cfg: Config, max_samples: int = MAX_SAMPLES) -> float:
    """Pixels of the inputs of one training epoch, before batches are padded.

    Sends blank images through the config's own data set, sampler and pipeline, so it holds for
    chips, for whole images at one scale and for scales drawn at random, and opens no image.

    Args:
        cfg (Config): A config with a ``train_dataloader``.
        max_samples (int): Number of inputs whose mean size stands for that of all. Small data sets
            are gone through several times to reach it. Defaults to 1024.

    Returns:
        float: Expected number of pixels.

    Raises:
        FileNotFoundError: If the data set's annotations are not there.
    """
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    loader = cfg.train_dataloader
    with redirect_stdout(io.StringIO()):  # pycocotools talks
        dataset = DATASETS.build(loader.dataset)
    sampler = DATA_SAMPLERS.build(loader.sampler, default_args={'dataset': dataset, 'seed': seed})
    _blank_images(dataset)
    np.random.seed(seed)  # of the pipeline's random choices
    epoch = len(sampler)
    samples = epoch * (max_samples // epoch) or max_samples
    sizes = [dataset[index]['inputs'].shape[-2:] for index in islice(_endless(sampler), samples)]
    return float(np.prod(sizes, axis=1, dtype=np.int64).mean() * epoch)


def epochs_for(pixels: float, per_epoch: float) -> int:
    """The number of whole epochs, at least one, that comes nearest to a number of pixels."""
    return max(1, round(pixels / per_epoch))


def _endless(sampler: Any) -> Iterator[int]:
    """Indices of epoch after epoch."""
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from sampler
        epoch += 1


def _blank_images(dataset: Any) -> None:
    """Replace the transforms that load images, in a data set and those that it wraps."""
    pipeline = getattr(dataset, 'pipeline', None)
    if pipeline is not None:
        pipeline.transforms = [
            BlankImage() if isinstance(transform, LoadImageFromFile) else transform
            for transform in pipeline.transforms
        ]
    for inner in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if inner is not None:
            _blank_images(inner)
