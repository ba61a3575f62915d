"""Draw training images with their boxes and chips, and the chips as the network sees them.

The chips are those that training would have in the given epoch: the same plan, cut out by the
config's own pipeline.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from tqdm import tqdm

from mmsniper.chips import AnnotationTable, ChipPlan, ScalePyramid
from mmsniper.datasets import IGNORE_REGION, Chip, ChipIndex
from mmsniper.visualization import CROWD, INVALID, VALID, ChipView, draw_chips, save_figure

CUTTING = ('ChipSampler', 'ScaleRangeFilter')
PACKING = 'PackDetInputs'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config with a pyramid and a train_dataloader')
    parser.add_argument('--out-dir', required=True, help='directory of the pictures (PNG)')
    parser.add_argument('--num', type=int, default=10,
                        help='number of images, spread evenly over those that have chips; '
                        'default: 10')
    parser.add_argument('--epoch', type=int, default=0,
                        help='epoch whose chips are drawn, from 0; default: 0')
    parser.add_argument('--augment', action='store_true',
                        help='show the chips after all augmentations, such as flips; default: as '
                        'they are cut out')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='settings that override the config, KEY=VALUE')
    args = parser.parse_args(argv)
    if args.num < 1:
        parser.error(f'--num must be at least 1, got {args.num}')
    if args.epoch < 0:
        parser.error(f'--epoch must not be negative, got {args.epoch}')
    return args


def viewing_pipeline(pipeline: list[dict], augment: bool) -> list[dict]:
    """The part of a training pipeline after which a chip can be looked at.

    Args:
        pipeline (list[dict]): Training pipeline with a ``ChipSampler``.
        augment (bool): Keep all but the packing, instead of stopping when the chip is cut.
    """
    types = [transform['type'] for transform in pipeline]
    if 'ChipSampler' not in types:
        raise ValueError(f'the pipeline of the ChipDataset has no ChipSampler; it has {types}')
    if augment:
        return [transform for transform in pipeline if transform['type'] != PACKING]
    last = max(i for i, name in enumerate(types) if name in CUTTING)
    return list(pipeline[:last + 1])


def viewing_dataset(config: Any, pyramid: dict, augment: bool) -> tuple[dict, dict]:
    """Change a training data set's config so that it gives chips to look at.

    Args:
        config (dict): A ``ChipDataset``, possibly inside wrappers, or a plain data set; that is
            wrapped, with its own pipeline if there is a ``ChipSampler`` in it.
        pyramid (dict): The pyramid.
        augment (bool): See :func:`viewing_pipeline`.

    Returns:
        tuple[dict, dict]: The config, and that of the transform that loads an image.
    """
    loaders: list[dict] = []

    def change(node: Any) -> Any:
        if isinstance(node, (list, tuple)):
            return [change(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: change(value) for key, value in node.items()}
        if node.get('type') == 'ChipDataset':
            loaders.append(node['pipeline'][0])
            node['pipeline'] = viewing_pipeline(node['pipeline'], augment)
        return node

    changed = change(config)
    if loaders:
        return changed, loaders[0]
    if 'dataset' in config or 'datasets' in config:
        raise ValueError(
            f'there is no ChipDataset in the {config["type"]} of train_dataloader.dataset; wrap '
            f'the data set inside it: dict(type=\'ChipDataset\', dataset=..., pipeline=...)')
    pipeline = config.get('pipeline') or []
    if not any(transform['type'] == 'ChipSampler' for transform in pipeline):
        pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True},
                    {'type': 'ChipSampler', 'pyramid': pyramid},
                    {'type': 'ScaleRangeFilter', 'pyramid': pyramid}]
    return viewing_dataset({'type': 'ChipDataset', 'dataset': {**config, 'pipeline': []},
                            'pipeline': pipeline}, pyramid, augment)


def chip_view(results: dict, class_names: tuple[str, ...], pyramid: ScalePyramid) -> ChipView:
    """What a pipeline made of a chip, as plain arrays.

    Args:
        results (dict): After ``ChipSampler`` and ``ScaleRangeFilter``.
        class_names (tuple[str, ...]): Names of the data set's classes.
        pyramid (ScalePyramid): The pyramid.
    """
    level, (height, width) = results['chip'].level, results['ori_shape']
    labels = np.asarray(results['gt_bboxes_labels'])
    ignored = np.asarray(results['gt_ignore_flags'], bool)
    states = np.where(ignored, np.where(labels == IGNORE_REGION, CROWD, INVALID), VALID)
    names = [class_names[label] if label >= 0 else '' for label in labels]
    return ChipView(results['img'], results['gt_bboxes'].tensor.numpy(), states, level,
                    float(pyramid.scales(width, height)[level]), names)


def chip_views(dataset: Any, image: int, plan: ChipPlan, pyramid: ScalePyramid
               ) -> Iterator[ChipView]:
    """The chips of one image, as the network sees them.

    Args:
        dataset (BaseDataset): Built from :func:`viewing_dataset`'s config.
        image (int): Index of the image.
        plan (ChipPlan): The chips of the image.
        pyramid (ScalePyramid): The pyramid.
    """
    for level, box, kind in zip(plan.level, plan.box, plan.kind, strict=True):
        chip = Chip(int(level), tuple(box.tolist()), int(kind))
        results = dataset[ChipIndex(image, chip)]
        # Where an augmentation drops a chip, the data set gives another image instead.
        if results['chip'] is chip:
            yield chip_view(results, dataset.metainfo['classes'], pyramid)


def draw_image(dataset: Any, loader: Any, image: int, plan: ChipPlan, pyramid: ScalePyramid,
               out_dir: Path) -> Path:
    """Draw one image and its chips to a PNG file in ``out_dir``, and return its path."""
    info = dataset.get_data_info(image)
    instances = info.get('instances', [])
    annotations = AnnotationTable.from_images([(
        info['width'], info['height'], [instance['bbox'] for instance in instances],
        [bool(instance.get('ignore_flag', 0)) for instance in instances])])
    source = Path(info['img_path'])
    figure = draw_chips(
        loader(info)['img'], annotations.boxes, plan.box, plan.level, pyramid,
        ignored=annotations.ignore, views=list(chip_views(dataset, image, plan, pyramid)),
        title=f'{source.name}, {info["width"]}×{info["height"]} px')
    path = out_dir / f'{image:06d}_{source.stem}.png'
    save_figure(figure, path)
    return path


def browse(cfg: Config, out_dir: Path, num: int, epoch: int, augment: bool) -> list[Path]:
    """Draw ``num`` training images of a config with the chips of an epoch."""
    if 'pyramid' not in cfg:
        raise ValueError(f'{cfg.filename} has no pyramid: define pyramid=dict(chip_size=..., '
                         f'levels=[...]) in it or in one of its bases')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    loading = cfg.train_dataloader
    config, loader = viewing_dataset(loading.dataset.to_dict(), cfg.pyramid.to_dict(), augment)
    dataset = DATASETS.build(config)
    sampler = loading.get('sampler', {})
    if sampler.get('type') != 'ChipAwareSampler':
        sampler = {'type': 'ChipAwareSampler', 'pyramid': cfg.pyramid}
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    sampler = DATA_SAMPLERS.build(sampler, default_args={'dataset': dataset, 'seed': seed})
    sampler.set_epoch(epoch)
    plan = sampler.plan
    np.random.seed(seed)  # of the augmentations

    images = np.unique(plan.image)
    images = images[np.linspace(0, len(images) - 1, min(num, len(images))).astype(int)]
    loader, pyramid = TRANSFORMS.build(loader), ScalePyramid.from_config(cfg.pyramid)
    return [
        draw_image(dataset, loader, image, plan.take(plan.image == image), pyramid, out_dir)
        for image in tqdm(images.tolist(), 'pictures', unit='image')
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    try:
        paths = browse(cfg, Path(args.out_dir), args.num, args.epoch, args.augment)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')
    print(f'{len(paths)} pictures in {args.out_dir}')


if __name__ == '__main__':
    main()
