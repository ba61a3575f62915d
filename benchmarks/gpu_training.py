"""How fast SNIPER trains on a GPU, and what it needs, against stock 800x1333 training.

Runs real training steps of the R-101 config (20 chips, mixed precision) and of MMDetection's stock
Faster R-CNN R-101 (2 images), with random weights on COCO-like images that are made on the spot,
and works out the hours of a COCO epoch. Needs no data and takes under 8 minutes.

    python benchmarks/gpu_training.py
    python benchmarks/gpu_training.py --device cpu --tiny     # does it run?
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper

import mmsniper
from harness.coco_like import load_batches, read_coco_like, write_coco_like
from harness.step_profile import HARMLESS_LR, now
from mmsniper.utils.command_line import command_parser, progress
from mmsniper.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
SNIPER_CONFIG = ROOT / 'configs/sniper/faster_rcnn_r101_sniper.py'
STOCK_CONFIG = 'mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py'
RESULT = ROOT / 'benchmarks/results/gpu_training.json'
COCO_IMAGES = 118_287
GOAL_GB = 16.0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda', help='what it runs on')
    parser.add_argument('--tiny', action='store_true', help='a tiny model and few steps')
    parser.add_argument('--steps', type=int, help='timed steps of each training [20, tiny 2]')
    parser.add_argument('--warmup', type=int, help='steps before those [8, tiny 1]')
    parser.add_argument('--workers', type=int, help='data loader processes [8, tiny 0]')
    parser.add_argument(
        '--chips-per-image',
        type=float,
        default=4.3,
        help='chips of an epoch per COCO image, as chip_stats.py plans them',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='JSON file [benchmarks/results/gpu_training.json; with --tiny or on a CPU none]',
    )
    args = parser.parse_args(argv)
    if args.out is None and args.device == 'cuda' and not args.tiny:
        args.out = RESULT
    for name, usual, tiny in (('steps', 20, 2), ('warmup', 8, 1), ('workers', 8, 0)):
        if getattr(args, name) is None:
            setattr(args, name, tiny if args.tiny else min(usual, os.cpu_count() or usual))
    args.steps, args.warmup = max(args.steps, 1), max(args.warmup, 0)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('no CUDA device found; --device cpu --tiny checks that the script runs')
    return args


def sniper_config(data: Path, workers: int, tiny: bool) -> Config:
    """The R-101 config as it is, but for weights, learning rate and data."""
    cfg = Config.fromfile(SNIPER_CONFIG)
    if tiny:
        cfg.train_dataloader.batch_size = 2
    return _for_benchmark(cfg, data, workers, tiny)


def stock_config(data: Path, workers: int, tiny: bool) -> Config:
    """MMDetection's config as it is, but for weights, learning rate and data."""
    return _for_benchmark(get_config(STOCK_CONFIG), data, workers, tiny)


def _for_benchmark(cfg: Config, data: Path, workers: int, tiny: bool) -> Config:
    cfg.model.backbone.init_cfg = None
    cfg.optim_wrapper.optimizer.lr = HARMLESS_LR
    read_coco_like(cfg.train_dataloader, data, workers)
    if tiny:
        _shrink(cfg.model)
    return cfg


def _shrink(model: Any) -> None:
    """The same model with the fewest layers and channels."""
    model.backbone.update(depth=18, base_channels=8)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)


def time_training(
    cfg: Config, batches: list[dict], args: argparse.Namespace, *, amp: bool
) -> dict[str, Any]:
    """Train on the batches, in turn, and measure the steps.

    Returns:
        dict: Median and spread of a step's seconds, samples per second and peak memory.
    """
    _forget_memory(args.device)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(args.device).train()
    wrapper = dict(cfg.optim_wrapper)
    wrapper.update(type='AmpOptimWrapper' if amp else 'OptimWrapper')
    if amp:
        wrapper.setdefault('loss_scale', 'dynamic')
    optim_wrapper = build_optim_wrapper(model, wrapper)
    torch.backends.cudnn.benchmark = bool(cfg.get('env_cfg', {}).get('cudnn_benchmark'))

    seconds: list[float] = []
    losses: dict[str, torch.Tensor] = {}
    for step in progress(range(args.warmup + args.steps), 'training', unit=' steps'):
        batch = batches[step % len(batches)]
        start = now(args.device)
        losses = model.train_step(batch, optim_wrapper)
        if step >= args.warmup:
            seconds.append(now(args.device) - start)
    size, loss = len(batches[0]['inputs']), float(losses['loss'])
    if not math.isfinite(loss):
        raise RuntimeError(f'the loss is {loss}: with it the steps are not those of a training')
    return {
        'batch_size': size,
        'mixed_precision': amp,
        'parameters': sum(p.numel() for p in model.parameters()),
        'timed_steps': len(seconds),
        'step_seconds': float(np.median(seconds)),
        'step_seconds_min_max': [min(seconds), max(seconds)],
        'per_second': size / float(np.median(seconds)),
        'final_loss': loss,
        **_peak_memory(args.device),
    }


def _forget_memory(device: str) -> None:
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(device: str) -> dict[str, float]:
    """Peak memory in GB (1e9 bytes); on a CPU that of the process so far."""
    if device == 'cuda':
        return {
            'peak_memory_gb': torch.cuda.max_memory_reserved() / 1e9,
            'peak_memory_allocated_gb': torch.cuda.max_memory_allocated() / 1e9,
        }
    unit = 1 if sys.platform == 'darwin' else 1024
    return {'peak_memory_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


def epoch_hours(
    images_per_second: float, chips_per_second: float, chips_per_image: float
) -> dict[str, Any]:
    """Hours of a COCO epoch of each training, from the speeds of one GPU.

    Eight GPUs are taken to be eight times as fast.

    Args:
        images_per_second (float): Of stock training.
        chips_per_second (float): Of SNIPER.
        chips_per_image (float): Chips of an epoch per image.
    """
    stock = COCO_IMAGES / images_per_second / 3600
    sniper = COCO_IMAGES * chips_per_image / chips_per_second / 3600
    return {
        'images': COCO_IMAGES,
        'chips_per_image': chips_per_image,
        'sniper': {'gpus_1': sniper, 'gpus_8': sniper / 8},
        'stock': {'gpus_1': stock, 'gpus_8': stock / 8},
        'sniper_over_stock': sniper / stock,
    }


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    name = torch.cuda.get_device_name() if device == 'cuda' else platform.processor() or 'cpu'
    packages = (mmsniper, mmdet, mmcv, mmengine, torch, np)
    return {
        'device': name,
        'cpu_count': os.cpu_count(),
        'versions': {
            'python': platform.python_version(),
            **{p.__name__: p.__version__ for p in packages},
            'cuda': torch.version.cuda,
            'cudnn': torch.backends.cudnn.version() if device == 'cuda' else None,
        },
    }


def run(args: argparse.Namespace, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All measurements; ``report`` is called with what is known after each.

    Returns:
        dict: The result, see the keys below.
    """
    register_all_modules()
    result: dict[str, Any] = {'tiny': args.tiny, 'goal_peak_memory_gb': GOAL_GB}
    result.update(machine(args.device))
    amp = args.device == 'cuda'
    trainings: Iterable[tuple[str, Callable[..., Config], bool]] = (
        ('sniper', sniper_config, amp),
        ('stock', stock_config, False),
        ('stock_mixed_precision', stock_config, True),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_coco_like(Path(folder), 8 if args.tiny else 160)
        for name, config, with_amp in trainings:
            if with_amp and not amp:
                continue
            cfg = config(Path(folder), args.workers, args.tiny)
            batches, loaded, epoch = load_batches(cfg, args.warmup + args.steps)
            result[name] = time_training(cfg, batches, args, amp=with_amp)
            result[name]['loaded_per_second'] = loaded
            result[name]['loader_processes'] = args.workers
            result[name]['samples_in_epoch_of_made_images'] = epoch
            report(result)
    result['coco_epoch_hours'] = epoch_hours(
        result['stock']['per_second'], result['sniper']['per_second'], args.chips_per_image
    )
    if amp:
        result['coco_epoch_hours_stock_mixed_precision'] = epoch_hours(
            result['stock_mixed_precision']['per_second'],
            result['sniper']['per_second'],
            args.chips_per_image,
        )
    report(result)
    return result


def print_summary(result: dict[str, Any]) -> None:
    print(f'\n{result["device"]}, torch {result["versions"]["torch"]}')
    for name, unit in (
        ('sniper', 'chips'),
        ('stock', 'images'),
        ('stock_mixed_precision', 'images'),
    ):
        if name in result:
            r = result[name]
            print(
                f'{name:22s} batch {r["batch_size"]:2d}: {r["per_second"]:8.2f} {unit}/s, '
                f'peak memory {r["peak_memory_gb"]:5.2f} GB; the loader delivers '
                f'{r["loaded_per_second"]:.1f} {unit}/s from {r["loader_processes"]} processes'
            )
    hours = result['coco_epoch_hours']
    for name in ('sniper', 'stock'):
        one, eight = hours[name]['gpus_1'], hours[name]['gpus_8']
        print(f'COCO epoch, {name:8s}: {one:7.2f} h on 1 GPU, {eight:6.2f} h on 8')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    MMLogger.get_instance('mmengine', log_level='WARNING')
    report = (lambda result: write_json(args.out, result)) if args.out else (lambda result: None)
    print_summary(run(args, report))
    if args.out:
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
