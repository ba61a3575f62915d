"""How many pixels an epoch of a config trains on, and how many epochs a number of pixels buys.

What is counted is what the network sees in training, and of what it sees in mining negative chips a
third: a forward pass without the backward one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import fields
from itertools import islice
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch.utils.data import DataLoader

from mmsniper.convert.training_chips import negative_chip_hook
from mmsniper.mining import NegativeChipMiner
from mmsniper.utils.image_header import image_size

MAX_SAMPLES = 1024

MINING_COST = 1 / 3
"""What a pixel that is seen in mining counts, against one that is trained on."""


class BlankImage:
    """Stands in for ``LoadImageFromFile``: a black image of the size that the annotations give.

    Where they give none (DOTA's), it is that of the file.

    Required Keys:

    - height, width, or img_path

    Added Keys:

    - img, img_shape, ori_shape
    """

    def __call__(self, results: dict) -> dict:
        if 'height' in results:
            shape = (results['height'], results['width'])
        else:
            shape = image_size(results['img_path'])[::-1]
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


def epochs_with_mining(cfg: Config, pixels: float, per_epoch: float) -> int:
    """The same of a config whose ``NegativeChipHook`` mines on the way, if it is there.

    Args:
        cfg (Config): A config.
        pixels (float): What may be used, mining included.
        per_epoch (float): Pixels of an epoch before mining.
    """
    hook = negative_chip_hook(cfg)
    warmup = hook.get('warmup_epochs', 2)
    if not hook or pixels <= warmup * per_epoch:
        return epochs_for(pixels, per_epoch)
    left = pixels - MINING_COST * mining_pixels(cfg)
    if left <= (warmup + 0.5) * per_epoch:
        return warmup + 1
    return epochs_with_negatives(left, per_epoch, most_growth(cfg), warmup)


def part_of_an_epoch(cfg: Config, pixels: float, per_epoch: float, seed: int) -> dict[str, Any]:
    """Settings by which the only epoch has so many pixels, where a whole one has more.

    The images are drawn by the seed: as many of them as the pixels pay for.
    """
    if per_epoch <= pixels:
        return {}
    total = len(train_loader(cfg).dataset)
    number = max(1, round(total * pixels / per_epoch))
    drawn = np.random.default_rng(seed).choice(total, number, replace=False)
    return {'train_dataloader.dataset.indices': sorted(drawn.tolist())}


def epochs_with_negatives(pixels: float, per_epoch: float, growth: float, warmup: int) -> int:
    """The number of epochs that comes nearest to a number of pixels, if epochs grow on the way.

    Args:
        pixels (float): The training's pixels.
        per_epoch (float): Pixels of an epoch before mining.
        growth (float): Pixels by which an epoch is larger after mining.
        warmup (int): Epochs before mining.

    Raises:
        ValueError: If the pixels are used up before there is anything mined to train on.
    """
    epochs = warmup + round((pixels - warmup * per_epoch) / (per_epoch + growth))
    if epochs <= warmup:
        least = (warmup + 1) * per_epoch + growth
        raise ValueError(
            f'{pixels / 1e6:g} million training pixels last for {pixels / per_epoch:.1f} epochs, '
            f'and negative chips are mined after {warmup}: take at least --pixels {least:.2g}'
        )
    return epochs


def most_growth(cfg: Config) -> float:
    """Pixels by which an epoch of a config grows at most when negative chips are mined."""
    images = len(train_loader(cfg).dataset)
    chip_size = cfg.train_dataloader.sampler.pyramid.chip_size
    return images * negative_chip_hook(cfg).get('chips_per_image', 2) * chip_size**2


def mining_pixels(cfg: Config) -> int:
    """Pixels that a config's mining shows the network, once."""
    hook = negative_chip_hook(cfg)
    names = {field.name for field in fields(NegativeChipMiner)}
    miner = NegativeChipMiner(**{key: value for key, value in hook.items() if key in names})
    sampler = train_loader(cfg).batch_sampler.sampler
    sampler.set_epoch(hook.get('warmup_epochs', 2))
    return miner.pixels(sampler)


def train_loader(cfg: Config) -> DataLoader:
    """The loader of a config's training data, as the Runner builds it."""
    with redirect_stdout(io.StringIO()):  # pycocotools talks
        return Runner.build_dataloader(cfg.train_dataloader, seed=0)


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
