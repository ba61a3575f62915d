"""What of a training step is SNIPER's, and what stock MMDetection costs on the same tensors.

Takes training steps of each detector in turn: (A) SNIPER on 20 chips of 512 px; (B) the stock
detector, with the same weights, on the same tensors and boxes; (C) the stock detector on the same
pixels and boxes as 5 images of 1024 px, each of 4 chips side by side. A against B is what is ours,
B against C what any detector does image by image. It counts where A and B wait for the device, and
where A's host time goes. Random weights, data made on the spot; under 200 s on a GPU.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --device cpu --tiny     # does it run, what does it count?
    python benchmarks/training_step.py --device cpu --small-chips   # the host's work alone

With ``--small-chips`` chips have 64 px and detectors few channels. There is so little to compute
that a step is mostly the host's work, which is that of large chips, as it is on a fast GPU.
"""

from __future__ import annotations

import argparse
import copy
import gc
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn

from harness.coco_like import load_batches, read_coco_like, write_coco_like
from harness.reduced import ReducedSize, reduced
from harness.results import machine, markdown_table, write_results
from harness.step_profile import (
    HARMLESS_LR,
    OURS,
    HostTime,
    Synchronisations,
    device_activity,
    now,
    train_step,
)
from harness.stock_detector import stock_training
from mmsniper.convert import load_config
from mmsniper.datasets.wrappers import all_configs
from mmsniper.utils.command_line import at_least, command_parser, progress

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/training_step.json'
CONFIGS = ('faster_rcnn_r101', 'retinanet_r50', 'rtmdet_s', 'faster_rcnn_r50')
DATA_CONFIG = 'faster_rcnn_r101'
GOAL = 0.03
VARIANTS = {'A': 'SNIPER, chips', 'B': 'stock, the same chips', 'C': 'stock, 4 chips an image'}
PHASES = ('preprocessing', 'forward', 'backward', 'optimizer')
SIDE = 2  # chips along a side of C's images
TOP = 15
SHRINK = 8  # how many times smaller small chips are


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda', help='what it runs on')
    parser.add_argument('--tiny', action='store_true', help='tiny models, 4 chips and few steps')
    parser.add_argument(
        '--small-chips', action='store_true', help='tiny models on chips of 64 px, 20 a batch'
    )
    parser.add_argument('--configs', nargs='+', choices=CONFIGS, default=CONFIGS, help='detectors')
    parser.add_argument('--rounds', type=at_least(1), help='steps of each variant [12, tiny 2]')
    parser.add_argument('--warmup', type=at_least(0), help='rounds before those [3, tiny 1]')
    parser.add_argument('--workers', type=at_least(0), help='data loader processes [8, tiny 0]')
    parser.add_argument(
        '--out',
        type=Path,
        help='JSON file [benchmarks/results/training_step.json; of other machines and sizes none]',
    )
    args = parser.parse_args(argv)
    if args.out is None and args.device == 'cuda' and not (args.tiny or args.small_chips):
        args.out = RESULT
    for name, usual, tiny in (('rounds', 12, 2), ('warmup', 3, 1), ('workers', 8, 0)):
        if getattr(args, name) is None:
            setattr(args, name, tiny if args.tiny else usual)
    args.workers = min(args.workers, os.cpu_count() or 1)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('no CUDA device found; --device cpu --tiny checks that the script runs')
    return args


def read_config(name: str, tiny: bool, small_chips: bool = False) -> Config:
    """A SNIPER config as it is, but for pre-trained weights and learning rate."""
    cfg = load_config(ROOT / f'configs/sniper/{name}_sniper.py')
    if small_chips:
        _shrink_chips(cfg)
    if tiny or small_chips:
        # What is done for each proposal or chip stays as it is.
        cfg = reduced(cfg, ReducedSize(channels=8 if small_chips else 32, proposals=2000))
    cfg.model.backbone.init_cfg = None
    cfg.optim_wrapper.optimizer.lr = HARMLESS_LR
    return cfg


def _shrink_chips(cfg: Config) -> None:
    """Chips with the same objects on fewer pixels, and anchors for them; changed in place."""
    pyramid = copy.deepcopy(cfg.pyramid)
    pyramid.chip_size //= SHRINK
    for level in pyramid.levels:
        level.resize = {name: size / SHRINK for name, size in level.resize.items()}
    for _, piece in all_configs({'': cfg.model, 'data': cfg.train_dataloader}):
        if 'pyramid' in piece:
            piece.pyramid = pyramid
    cfg.pyramid = pyramid
    cfg.model.data_preprocessor.batch_augments[0].size = (pyramid.chip_size, pyramid.chip_size)
    for head in ('rpn_head', 'bbox_head'):
        anchors = cfg.model.get(head, {}).get('anchor_generator', {})
        if 'scales' in anchors:
            anchors.scales = [scale / SHRINK for scale in anchors.scales]
        elif 'octave_base_scale' in anchors:
            anchors.octave_base_scale /= SHRINK


def make_batches(count: int, args: argparse.Namespace) -> list[dict]:
    """Batches of 20 chips (tiny: 4), as the pipeline gives them."""
    cfg = read_config(DATA_CONFIG, tiny=False, small_chips=args.small_chips)
    if args.tiny:
        cfg.train_dataloader.batch_size = SIDE**2
    with tempfile.TemporaryDirectory() as folder:
        write_coco_like(Path(folder), 8 if args.tiny else 40)
        read_coco_like(cfg.train_dataloader, Path(folder), args.workers)
        return load_batches(cfg, count)[0]


def side_by_side(batch: Mapping[str, Any], chip_size: int) -> dict[str, Any]:
    """The same chips and boxes, in images of 2 x 2 chips.

    Args:
        batch (dict): ``inputs`` of at most ``chip_size`` px and ``data_samples``. Left as it is.
        chip_size (int): Side of a chip.

    Returns:
        dict: A batch of a quarter as many images.
    """
    count, side = SIDE**2, SIDE * chip_size
    images, samples = [], []
    for first in range(0, len(batch['inputs']) - count + 1, count):
        image = batch['inputs'][first].new_zeros(3, side, side)
        parts: dict[str, list[InstanceData]] = defaultdict(list)
        for i in range(count):
            chip, sample = batch['inputs'][first + i], batch['data_samples'][first + i]
            y, x = (chip_size * v for v in divmod(i, SIDE))
            image[:, y : y + chip.shape[1], x : x + chip.shape[2]] = chip
            for key in ('gt_instances', 'ignored_instances'):
                parts[key].append(_moved(sample.get(key), x, y))
        shape = dict(img_shape=(side, side), ori_shape=(side, side), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=shape)
        for key, instances in parts.items():
            setattr(sample, key, InstanceData.cat(instances))
        images.append(image)
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _moved(instances: InstanceData, x: int, y: int) -> InstanceData:
    boxes = get_box_tensor(instances.bboxes) + torch.tensor([x, y, x, y])
    return InstanceData(bboxes=boxes, labels=instances.labels)


def for_images(model: ConfigDict) -> ConfigDict:
    """A stock detector's config for images of 4 chips: as many proposals and samples in all."""
    model = copy.deepcopy(model)
    model.data_preprocessor.batch_augments = None  # the images have one shape
    train = model.train_cfg
    for part, key in (
        (train.get('rpn_proposal'), 'nms_pre'),
        (train.get('rpn_proposal'), 'max_per_img'),
        ((train.get('rpn') or {}).get('sampler'), 'num'),
        ((train.get('rcnn') or {}).get('sampler'), 'num'),
    ):
        if part and part.get(key, -1) > 0:
            part[key] *= SIDE**2
    if 'rpn_proposal' in train:
        # Of more boxes mmcv's NMS takes class by class, which fails in mixed precision.
        train.rpn_proposal.nms.split_thr = 1_000_000
    return model


@dataclass
class Variant:
    """A model and the batches that it is trained on."""

    model: nn.Module
    optim_wrapper: OptimWrapper
    batches: Sequence[dict]

    def batch(self, index: int) -> dict:
        """A copy, since models change their samples."""
        return copy.deepcopy(self.batches[index % len(self.batches)])

    def step(self, batch: dict, **kwargs: Any) -> Tensor:
        """A training step."""
        return train_step(self.model, self.optim_wrapper, batch, **kwargs)


def build_variants(cfg: Config, batches: Sequence[dict], device: str) -> dict[str, Variant]:
    """A, B and C, with the same weights."""
    stock = stock_training(cfg.model)
    tiles = [side_by_side(batch, cfg.pyramid.chip_size) for batch in batches]
    optim = dict(cfg.optim_wrapper)
    optim['type'] = 'AmpOptimWrapper' if device == 'cuda' else 'OptimWrapper'
    if device == 'cuda':
        optim.setdefault('loss_scale', 'dynamic')
    variants: dict[str, Variant] = {}
    for name, model_cfg, given in (
        ('A', cfg.model, batches),
        ('B', stock, batches),
        ('C', for_images(stock), tiles),
    ):
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
        if variants:
            model.load_state_dict(variants['A'].model.state_dict())
        else:
            model.init_weights()
        model.to(device).train()
        variants[name] = Variant(model, build_optim_wrapper(model, dict(optim)), given)
    return variants


def time_steps(variants: dict[str, Variant], args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of steps and of their phases, the variants in turn.

    Phases are measured in steps of their own: to wait for the device after each takes time.

    Returns:
        dict: By variant ``step``, median seconds, ``step_min_max``, ``cpu_step``, the same in
        processor time, ``phases`` and ``loss``.
    """
    steps: dict[str, list[float]] = defaultdict(list)
    cpu_steps: dict[str, list[float]] = defaultdict(list)
    phases: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in variants}
    losses: dict[str, float] = {}
    phase_rounds = max(args.rounds // 3, 1)
    total = args.warmup + args.rounds + phase_rounds
    for i in progress(range(total), 'training', unit=' rounds'):
        in_phases = i >= args.warmup + args.rounds
        gc.collect()
        for name, variant in variants.items():
            batch = variant.batch(i)
            if in_phases:
                since = now(args.device)

                def done(phase: str, name: str = name) -> None:
                    nonlocal since
                    at = now(args.device)
                    phases[name][phase].append(at - since)
                    since = at

                loss = variant.step(batch, done=done)
            else:
                start, cpu = now(args.device), time.process_time()
                loss = variant.step(batch)
                if i >= args.warmup:
                    steps[name].append(now(args.device) - start)
                    cpu_steps[name].append(time.process_time() - cpu)
            losses[name] = loss.item()
    return {
        name: dict(
            step=median(steps[name]),
            step_min_max=[min(steps[name]), max(steps[name])],
            cpu_step=median(cpu_steps[name]),
            phases={phase: median(phases[name][phase]) for phase in PHASES},
            loss=losses[name],
        )
        for name in variants
    }


def count_synchronisations(variants: dict[str, Variant], device: str) -> dict[str, Any]:
    """Where A and B wait for the device in a step.

    Returns:
        dict: ``totals`` of each variant; ``more_in_A``, the lines at which A waits more often than
        B, most first; ``operations`` of each variant, and those of our own lines in A.
    """
    found = {}
    for name, variant in variants.items():
        batch = variant.batch(0)
        with Synchronisations(device).counting() as counter:
            variant.step(batch)
        batch = variant.batch(0)
        with counter.counting_operations():
            variant.step(batch)
        found[name] = counter
    ours, stock = found['A'], found['B']
    more = [
        dict(row, A=row.pop('count'), B=stock.counts[row['source'], row['kind']])
        for row in ours.table()
    ]
    more = [row for row in more if row['A'] > row['B']]
    return dict(
        totals={name: counter.counts.total() for name, counter in found.items()},
        more_in_A=sorted(more, key=lambda row: row['B'] - row['A']),
        operations={name: counter.ops.total() for name, counter in found.items()},
        operations_of_ours=sum(n for line, n in ours.ops.items() if line.startswith(f'{OURS}/')),
    )


def count_rois(variant: Variant) -> int:
    """Proposals that the R-CNN learns from in a step, 0 without one."""
    counts = [0]
    if roi_head := getattr(variant.model, 'roi_head', None):
        hook = roi_head.bbox_head.register_forward_pre_hook(
            lambda _, given: counts.append(len(given[0]))
        )
        variant.step(variant.batch(0))
        hook.remove()
    return sum(counts)


def host_time(variants: dict[str, Variant]) -> dict[str, Any]:
    """Where the host's time goes in a step of A, and of B.

    Returns:
        dict: ``share_of_ours``; ``functions``, A's first 15, and ``files``, with seconds of A and
        B.
    """
    spent = {}
    for name in 'AB':
        batch = variants[name].batch(0)
        with HostTime().measuring() as spent[name]:
            variants[name].step(batch)
    files = {name: time.by_file() for name, time in spent.items()}
    return dict(
        share_of_ours=spent['A'].share(),
        functions=[
            dict(function=function, A=seconds, B=spent['B'].seconds[function])
            for function, seconds in spent['A'].seconds.most_common(TOP)
        ],
        files=[
            dict(file=file, A=seconds, B=files['B'][file])
            for file, seconds in files['A'].most_common()
            if seconds > 1e-4
        ],
    )


def measure(cfg: Config, batches: Sequence[dict], args: argparse.Namespace) -> dict[str, Any]:
    """All about one detector."""
    variants = build_variants(cfg, batches, args.device)
    torch.backends.cudnn.benchmark = bool(cfg.get('env_cfg', {}).get('cudnn_benchmark'))
    result: dict[str, Any] = dict(variants=time_steps(variants, args))
    seconds = {name: variant['step'] for name, variant in result['variants'].items()}
    result['ours'] = seconds['A'] / seconds['B'] - 1
    result['image_by_image'] = seconds['B'] / seconds['C'] - 1
    result['rois'] = {name: count_rois(variant) for name, variant in variants.items()}
    result['synchronisations'] = count_synchronisations(variants, args.device)
    result['host_time'] = host_time(variants)
    if args.device == 'cuda':
        result['device'] = {}
        for name, variant in variants.items():
            batch = variant.batch(0)
            result['device'][name] = device_activity(lambda v=variant, b=batch: v.step(b))
    return result


def run(
    args: argparse.Namespace, report: Callable[[dict[str, Any]], None] = lambda result: None
) -> dict[str, Any]:
    """All measurements; ``report`` is called with what is known after each detector."""
    register_all_modules()
    result: dict[str, Any] = dict(
        tiny=args.tiny,
        small_chips=args.small_chips,
        goal=GOAL,
        machine=machine(torch=torch.__version__),
    )
    result['machine']['device'] = torch.cuda.get_device_name() if args.device == 'cuda' else 'cpu'
    batches = make_batches(1 if args.tiny else 3, args)
    samples = [sample for batch in batches for sample in batch['data_samples']]
    result['chips'] = len(batches[0]['inputs'])
    result['chip_size'] = int(read_config(DATA_CONFIG, False, args.small_chips).pyramid.chip_size)
    result['boxes_per_chip'] = sum(len(s.gt_instances) for s in samples) / len(samples)
    result['ignored_per_chip'] = sum(len(s.ignored_instances) for s in samples) / len(samples)
    result['detectors'] = {}
    for name in args.configs:
        result['detectors'][name] = measure(
            read_config(name, args.tiny, args.small_chips), batches, args
        )
        report(result)
        gc.collect()
        if args.device == 'cuda':
            torch.cuda.empty_cache()
    return result


def steps_table(result: Mapping[str, Any]) -> list[str]:
    """Seconds and waits of each detector and variant."""
    rows = []
    for detector, found in result['detectors'].items():
        for name, variant in found['variants'].items():
            compared = {
                'A': f'{found["ours"]:+.1%} of B',
                'B': f'{found["image_by_image"]:+.1%} of C',
            }
            device = found.get('device', {}).get(name)
            rows.append(
                (
                    detector,
                    f'{name}: {VARIANTS[name]}',
                    f'{variant["step"]:.4f}',
                    compared.get(name, ''),
                    *(f'{variant["phases"][phase]:.4f}' for phase in PHASES),
                    str(found['synchronisations']['totals'][name]),
                    str(found['synchronisations']['operations'][name]),
                    str(found['rois'][name] or ''),
                    f'{device["busy_seconds"]:.4f}, {device["launches"]}' if device else '',
                )
            )
    columns = ['detector', 'step of', 'seconds', 'more', *PHASES, 'waits', 'operations', 'RoIs']
    columns += ['GPU busy, launches']
    return markdown_table(columns, rows)


def page(result: Mapping[str, Any]) -> str:
    """The results as a page in Markdown."""
    options = ' --small-chips' if result['small_chips'] else ''
    lines = [
        '# What of a training step is SNIPER’s',
        '',
        f'`python benchmarks/training_step.py{options}`, on {result["machine"]["device"]}, torch '
        f'{result["machine"]["torch"]}. {result["chips"]} chips of '
        f'{result["chip_size"]} px with '
        f'{result["boxes_per_chip"]:.1f} valid and {result["ignored_per_chip"]:.1f} ignored boxes '
        f'each; random weights. Medians; phases were measured in steps of their own, with a wait '
        f'after each.',
        '',
        *steps_table(result),
    ]
    for detector, found in result['detectors'].items():
        counts, host = found['synchronisations'], found['host_time']
        lines += [
            f'## {detector}',
            '',
            f'A waits {counts["totals"]["A"]} times for the device in a step, B '
            f'{counts["totals"]["B"]} times. Where A waits more often:',
            '',
            *markdown_table(
                ['line', 'for', 'A', 'B', 'called by ours'],
                [
                    (r['source'], r['kind'], str(r['A']), str(r['B']), ', '.join(r['via']))
                    for r in counts['more_in_A']
                ],
            ),
            f'Functions of ours take {host["share_of_ours"]:.1%} of the host’s time in A, the '
            f'operators and waits that they call included. Where it goes, in ms under Python’s '
            f'profiler:',
            '',
            *_milliseconds('function', host['functions']),
            *_milliseconds('file', host['files'][:TOP]),
        ]
    return '\n'.join(lines)


def _milliseconds(what: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    table = [(row[what], f'{1e3 * row["A"]:.1f}', f'{1e3 * row["B"]:.1f}') for row in rows]
    return markdown_table([what, 'A', 'B'], table)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    MMLogger.get_instance('mmengine', log_level='WARNING')

    def report(result: dict[str, Any]) -> None:
        if args.out:
            write_results(args.out, result, page(result))

    result = run(args, report)
    print('\n'.join(steps_table(result)))
    for name, found in result['detectors'].items():
        for row in found['synchronisations']['more_in_A'][:TOP]:
            print(f'{name}: {row["A"]} - {row["B"]} {row["kind"]}: {row["source"]} {row["via"]}')
        for variant, measured in found['variants'].items():
            if not math.isfinite(measured['loss']):
                print(
                    f'{name}: the loss of {variant} is {measured["loss"]}, its steps mean nothing'
                )
    if args.out:
        print(f'wrote {args.out}')
    return result


if __name__ == '__main__':
    main()
