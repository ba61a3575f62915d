"""What mining negative chips costs, beside a plain inference pass over the same images and levels.

In one process, in turn and several times:

- NegativeChipMiner over the training images of a config, planning of chips included;
- the whole detector over the same images, at every level, by stock pieces and with a batch of one
  image, as tools/test.py does;
- the same as far as the RPN.

Writes benchmarks/results/mining.json and .md.

    OMP_NUM_THREADS=1 python benchmarks/mining.py
    python benchmarks/mining.py --config CONFIG --checkpoint FILE --images 100
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import mmdet
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn
from torch.utils.data import DataLoader

from harness.results import machine, write_results
from mmsniper.chips import ScalePyramid
from mmsniper.convert import load_config
from mmsniper.convert.training_chips import negative_chip_hook, positive_sampler
from mmsniper.datasets import ChipAwareSampler, ChipDataset
from mmsniper.datasets.wrappers import all_datasets, read_datasets
from mmsniper.mining import NegativeChipMiner
from mmsniper.models.proposals import evaluating, propose
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset
from mmsniper.utils.command_line import at_least, command_parser, progress

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/sniper/faster_rcnn_r18_sniper_negatives_toy.py'
RESULT = ROOT / 'benchmarks/results/mining.json'
PASSES = {
    'mining': 'mining, chips planned',
    'detector': 'whole detector, stock pieces',
    'rpn': 'as far as the RPN, stock pieces',
}
GOAL = 1.1
# Arguments of NegativeChipHook that are not the miner's.
NOT_THE_MINERS = ('type', 'priority', 'warmup_epochs', 'interval', 'chips_per_image')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--config', type=Path, default=CONFIG, help='config with a ChipAwareSampler'
    )
    parser.add_argument('--checkpoint', type=Path, help='weights of the detector [random ones]')
    parser.add_argument(
        '--images', type=at_least(1), default=24, help='the first so many training images'
    )
    parser.add_argument(
        '--repeats', type=at_least(1), default=3, help='runs of each, of which the median counts'
    )
    parser.add_argument(
        '--num-workers',
        type=at_least(0),
        default=0,
        help='processes that load images, for all passes',
    )
    parser.add_argument(
        '--toy-scenes',
        action='store_true',
        help="make the images, as many toy scenes, instead of reading the config's",
    )
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file')
    return parser.parse_args(argv)


def read_toy_scenes(cfg: Config, folder: Path, count: int) -> None:
    """Make toy scenes in a folder, for a config of theirs to train on; it is changed in place."""
    make_toy_dataset(folder, ToyDatasetSpec(num_train=count, num_val=1), processes=1)
    for config in read_datasets(cfg.train_dataloader.dataset):
        config.data_root = str(folder)


def build_sampler(cfg: Config, images: int) -> ChipAwareSampler:
    """The config's sampler, of the first so many images."""
    for config in read_datasets(cfg.train_dataloader.dataset):
        config.indices = images
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return DATA_SAMPLERS.build(dict(positive_sampler(cfg), dataset=dataset))


def build_model(cfg: Config, checkpoint: Path | None) -> nn.Module:
    """The config's detector on the GPU, if there is one."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    if checkpoint is not None:
        load_checkpoint(model, str(checkpoint), map_location='cpu')
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def miner_of(cfg: Config) -> NegativeChipMiner:
    """The miner as the config's NegativeChipHook has it, if there is one, but of all pixels."""
    options = {k: v for k, v in negative_chip_hook(cfg).items() if k not in NOT_THE_MINERS}
    return NegativeChipMiner(**options | {'share': 1.0})


class WholeImages:
    """The images of a sampler, whole, at one level, as MMDetection's pipelines load them."""

    def __init__(self, sampler: ChipAwareSampler, level: int) -> None:
        self.dataset = sampler.dataset
        chips = next(d for d in all_datasets(self.dataset) if isinstance(d, ChipDataset))
        load = chips.pipeline.transforms[0]
        self.pipeline = Compose(
            [
                load,
                dict(type='LevelResize', pyramid=sampler.pyramid, level=level),
                dict(type='PackDetInputs'),
            ]
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.pipeline(self.dataset.get_data_info(i))


def whole_images(
    sampler: ChipAwareSampler, num_workers: int, see: Callable[[dict[str, Any]], Any]
) -> None:
    """Show every image at every level, one at a time."""
    for level in range(sampler.pyramid.num_levels):
        loader = DataLoader(
            WholeImages(sampler, level),
            batch_size=1,
            num_workers=num_workers,
            collate_fn=pseudo_collate,
        )
        for data in loader:
            see(data)


def passes(
    cfg: Config, args: argparse.Namespace, model: nn.Module, sampler: ChipAwareSampler
) -> dict[str, Callable[[], Any]]:
    """What is compared."""
    miner, batch_size = miner_of(cfg), cfg.train_dataloader.batch_size

    def mining() -> None:
        miner.mine(
            model,
            sampler,
            batch_pixels=batch_size * sampler.pyramid.chip_size**2,
            num_workers=args.num_workers,
        )

    def detector() -> None:
        with torch.no_grad(), evaluating(model):
            whole_images(sampler, args.num_workers, model.test_step)

    def rpn() -> None:
        with evaluating(model):
            whole_images(sampler, args.num_workers, lambda data: propose(model, data))

    return {'mining': mining, 'detector': detector, 'rpn': rpn}


def measure(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Seconds of each pass, by the clock and of the processor, one after the other in turn.

    The two differ where other programs keep the machine busy. The first turn is not counted.
    """
    seconds = {name: {'clock': [], 'cpu': []} for name in work}
    with progress(what='passes', total=(repeats + 1) * len(work), unit=' passes') as bar:
        for turn in range(repeats + 1):
            for name, run in work.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                run()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if turn:
                    seconds[name]['cpu'].append(time.process_time() - start_cpu)
                    seconds[name]['clock'].append(time.perf_counter() - start)
                bar.update()
    return seconds


def ratios(seconds: dict[str, Any]) -> dict[str, float]:
    """Mining over the other passes, of medians."""
    found = {
        f'{name}_{kind}': median(seconds['mining'][kind]) / median(seconds[name][kind])
        for name in ('detector', 'rpn')
        for kind in ('clock', 'cpu')
    }
    return {name: round(value, 3) for name, value in found.items()}


def pixels(sampler: ChipAwareSampler, miner: NegativeChipMiner) -> dict[str, int]:
    """Scaled pixels that mining looks at, and those of the images at all levels."""
    table, pyramid = sampler.planner.table, sampler.pyramid
    size = (table.width * table.height.astype(float))[:, None]
    whole = (size * pyramid.scales(table.width, table.height) ** 2).sum()
    return {'mining': miner.pixels(sampler), 'images': round(whole)}


def facts() -> dict[str, Any]:
    """What the numbers depend on."""
    return machine(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        mmdet=mmdet.__version__,
    )


def as_table(result: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        '# What mining costs',
        '',
        f'`{result["command"]}`',
        '',
        f'{result["images"]} images at {result["levels"]} levels, '
        f'{result["pixels"]["images"] / 1e6:.1f} million scaled pixels; mining looks at '
        f'{result["pixels"]["mining"] / 1e6:.1f} million and finds {result["chips"]} chips. '
        f'{result["weights"]}. Medians of {result["repeats"]} runs, '
        f'{result["machine"]["threads"]} thread, on {result["machine"]["device"]} '
        f'(load {result["machine"]["load_before"]} of {result["machine"]["cpus"]} cores).',
        '',
        '| | seconds | of the processor | mining takes, by the clock | of the processor |',
        '|---|---|---|---|---|',
    ]
    for name, what in PASSES.items():
        clock, cpu = (median(result['seconds'][name][kind]) for kind in ('clock', 'cpu'))
        times = (
            ['', '']
            if name == 'mining'
            else [f'{result["ratios"][f"{name}_{kind}"]:.2f} times' for kind in ('clock', 'cpu')]
        )
        lines.append(f'| {what} | {clock:.2f} | {cpu:.2f} | {times[0]} | {times[1]} |')
    return '\n'.join(lines) + f'\n\nThe goal is at most {GOAL} times the whole detector.\n'


def command(args: argparse.Namespace) -> str:
    """How to run this again."""
    options = [
        f'--{name.replace("_", "-")} {shown(value) if isinstance(value, Path) else value}'
        for name, value in vars(args).items()
        if name not in ('out', 'toy_scenes') and value is not None
    ]
    options += ['--toy-scenes'] if args.toy_scenes else []
    return ' '.join(['python benchmarks/mining.py', *options])


def shown(path: Path) -> str:
    """A path as in the repository, if it is there."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name)


def compare(cfg: Config, args: argparse.Namespace, measured_on: dict[str, Any]) -> dict[str, Any]:
    """Measure the passes; returns what the JSON file holds."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    sampler, model = build_sampler(cfg, args.images), build_model(cfg, args.checkpoint)
    miner = miner_of(cfg)
    pool = miner.mine(model, sampler, batch_pixels=1)
    seconds = measure(passes(cfg, args, model, sampler), args.repeats)
    weights = f'Weights of {shown(args.checkpoint)}' if args.checkpoint else 'Random weights'
    return dict(
        command=command(args),
        weights=weights,
        images=len(sampler.dataset),
        levels=ScalePyramid.from_config(sampler.pyramid).num_levels,
        repeats=args.repeats,
        pixels=pixels(sampler, miner),
        chips=pool.statistics.chips,
        machine=measured_on,
        seconds={
            name: {kind: [round(v, 3) for v in values] for kind, values in kinds.items()}
            for name, kinds in seconds.items()
        },
        ratios=ratios(seconds),
        goal=GOAL,
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args, measured_on = parse_args(argv), facts()
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config)
        if args.toy_scenes:
            read_toy_scenes(cfg, Path(folder), args.images)
        result = compare(cfg, args, measured_on)
    table = as_table(result)
    write_results(args.out, result, table)
    sys.stdout.write(table)
    return result


if __name__ == '__main__':
    main()
