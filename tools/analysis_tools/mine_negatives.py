"""Mine negative chips beforehand (SNIPER section 3.3): a file for ChipAwareSampler(negatives=FILE).

With a checkpoint, the RPN of any detector that has one runs over the training images. Without one,
the chips are planned from a file of proposals (--proposals), whatever detector has made them:
MMDetection's DumpProposals, the results of its test.py --out, or COCO results in JSON.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

# Read when torch is loaded, see tools/_launch.py.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils.dl_utils import set_multi_processing
from rich.console import Console
from rich.table import Table
from torch import nn

from mmsniper.checks import refuse_errors
from mmsniper.checks.checkpoint_file import check_checkpoint_file
from mmsniper.checks.classes import check_numbers, saved_weights
from mmsniper.chips import COVERED, NegativeChipPool
from mmsniper.convert import load_config
from mmsniper.convert.training_chips import negative_chip_hook, positive_sampler
from mmsniper.datasets import ChipAwareSampler
from mmsniper.datasets.proposal_files import ImageProposals, read_proposals
from mmsniper.datasets.wrappers import class_names, inner_datasets, replace_datasets, type_name
from mmsniper.mining import PLACED, NegativeChipMiner, stored_pool
from mmsniper.models.proposals import proposal_head
from mmsniper.utils.command_line import (
    add_config_arguments,
    add_launcher_arguments,
    command_parser,
    exit_on_error,
)
from mmsniper.utils.compat import use_gloo_without_gpu


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config with the training data, the detector and a pyramid')
    parser.add_argument('checkpoint', nargs='?', help="weights of the config's detector")
    parser.add_argument('--out', required=True, metavar='F.npz', help='the file to write')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a file that was mined from something else'
    )
    parser.add_argument(
        '--proposals',
        metavar='P',
        help='.pkl or .json file of proposals to take instead of a checkpoint',
    )
    parser.add_argument(
        '--epoch',
        type=int,
        help='mine around the positive chips of this epoch, from 0 [that in which the '
        "config's NegativeChipHook mines, else 0]",
    )
    add_mining_arguments(parser)
    add_launcher_arguments(parser)
    args = parser.parse_args(argv)
    if bool(args.checkpoint) == bool(args.proposals):
        parser.error('give either a CHECKPOINT, whose RPN is run, or --proposals')
    if args.proposals and args.launcher != 'none':
        parser.error('planning from --proposals takes one process: leave --launcher out')
    if not args.out.endswith('.npz'):
        parser.error(f'--out {args.out}: the file must end in .npz')
    if args.min_proposals and len(args.min_proposals) == 1:
        args.min_proposals = args.min_proposals[0]
    return args


def add_mining_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the miner."""
    mining = parser.add_argument_group(
        'mining', "Without them, what the config's NegativeChipHook says counts, if it has one."
    )
    mining.add_argument(
        '--share',
        type=float,
        metavar='S',
        help='pixels that are looked at, of each level but the coarsest, as a share of the finest '
        "level's, coarse to fine where the RPN finds most; 1: all of all levels [0.1]",
    )
    mining.add_argument(
        '--num-proposals',
        type=int,
        metavar='N',
        help='proposals of an image at a level (with --proposals: of an image) that count, the '
        'best ones [300]',
    )
    mining.add_argument(
        '--score-thr', type=float, metavar='S', help='lowest score of a proposal that counts [0]'
    )
    mining.add_argument(
        '--min-proposals',
        type=int,
        nargs='+',
        metavar='M',
        help='a chip holds more proposals than this; one number, or one for each level, fine to '
        'coarse, the last for all further ones [25 10]',
    )
    mining.add_argument(
        '--max-per-image', type=int, metavar='K', help='chips of an image at most [all]'
    )
    mining.add_argument(
        '--covered',
        choices=COVERED,
        help='what a positive chip does to a proposal that needs no negative chip [enclosed]',
    )
    mining.add_argument(
        '--placed',
        choices=PLACED,
        help='epochs draw from fixed windows, or find windows anew in the proposals [fixed]',
    )
    mining.add_argument(
        '--empty-images',
        action=argparse.BooleanOptionalAction,
        help='mine in images without objects, too [yes]',
    )
    mining.add_argument(
        '--window-size',
        type=int,
        metavar='W',
        help='largest side of what the network sees at once, scaled pixels [2048]',
    )


def training_config(args: argparse.Namespace) -> Config:
    """Read the config and check that there is something to mine in it."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    needed = ['train_dataloader', *(['model'] if args.checkpoint else [])]
    for key in needed:
        if not cfg.get(key):
            raise ValueError(f'{args.config} has no {key}')
    return cfg


def start_processes(cfg: Config, local_rank: int) -> None:
    """Let the processes find each other, as mmengine's Runner does."""
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    try:
        use_gloo_without_gpu(cfg)
    except RuntimeError as error:
        raise ValueError(error) from None
    environment = cfg.get('env_cfg', {})
    distributed = cfg.launcher != 'none'
    set_multi_processing(**environment.get('mp_cfg', {}), distributed=distributed)
    if distributed and not is_distributed():
        init_dist(cfg.launcher, **environment.get('dist_cfg', {}))


def mining_options(cfg: Config, args: argparse.Namespace) -> tuple[NegativeChipMiner, int]:
    """The miner, and the epoch around whose positive chips it is to mine.

    What the command line leaves open is that of the config's ``NegativeChipHook``, so that the file
    is the one that the hook would have written.
    """
    hook = negative_chip_hook(cfg)
    names = [field.name for field in fields(NegativeChipMiner)]
    options = {name: hook[name] for name in names if name in hook}
    given = {name: getattr(args, name, None) for name in names}
    options.update({name: value for name, value in given.items() if value is not None})
    epoch = args.epoch
    if epoch is None:
        epoch = hook.get('warmup_epochs', 2) if hook else 0
    return NegativeChipMiner(**options), epoch


def with_chips(config: dict[str, Any], pyramid: Any) -> dict[str, Any]:
    """Change a data set's config so that windows can be cut out of its images.

    Args:
        config (dict): Anything that ends in a ``ChipDataset`` stays as it is; whatever else reads
            images is wrapped in one.
        pyramid (Any): The pyramid, or its config.
    """

    def replacement(dataset: dict[str, Any]) -> dict[str, Any] | None:
        if type_name(dataset) == 'ChipDataset':
            return dataset
        if type_name(dataset) == 'MultiImageMixDataset':  # shows mixtures of images
            return with_chips(dataset['dataset'], pyramid)
        if inner_datasets(dataset):
            return None
        pipeline = list(dataset.get('pipeline') or [])
        if not any('ChipSampler' in class_names(step, TRANSFORMS) for step in pipeline):
            load = [t for t in pipeline if type_name(t).startswith(('LoadImage', 'LoadMulti'))][:1]
            pipeline = [
                *(load or [{'type': 'LoadImageFromFile'}]),
                {'type': 'ChipSampler', 'pyramid': pyramid},
                {'type': 'PackDetInputs'},
            ]
        return {'type': 'ChipDataset', 'dataset': {**dataset, 'pipeline': []}, 'pipeline': pipeline}

    return replace_datasets(config, replacement)


def build_sampler(cfg: Config, epoch: int) -> ChipAwareSampler:
    """The sampler of the training data, at an epoch, without negative chips.

    Raises:
        ValueError: If the config has no pyramid, or chips cannot be planned for its data.
    """
    config = positive_sampler(cfg)
    dataset = with_chips(cfg.train_dataloader.dataset.to_dict(), config['pyramid'])
    try:
        sampler = DATA_SAMPLERS.build(dict(config, dataset=DATASETS.build(dataset)))
    except TypeError as error:
        raise ValueError(error) from None
    sampler.set_epoch(epoch)
    return sampler


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """The config's detector with the weights of a checkpoint.

    Raises:
        ValueError: If it has no RPN, or the checkpoint has not all that its proposals need.
    """
    model = MODELS.build(cfg.model)
    try:
        head = proposal_head(model)
    except ValueError:
        raise ValueError(
            f'{type(model).__name__} has no rpn_head, so there are no proposals to mine negative '
            f'chips from: mine them with the config and checkpoint of another detector, or give a '
            f'file of any proposals, --proposals FILE, without a checkpoint'
        ) from None
    refuse_errors(check_checkpoint_file(checkpoint))
    try:
        content = load_checkpoint(model, checkpoint, map_location='cpu')
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f'cannot load {checkpoint}: {str(error).splitlines()[0]}') from None
    refuse_errors(check_numbers(model, saved_weights(content), checkpoint))
    check_weights(model, head, content.get('state_dict', content), checkpoint)
    return model.to(get_device())


def check_weights(
    model: nn.Module, head: nn.Module, weights: dict[str, torch.Tensor], checkpoint: str
) -> None:
    """Check that nothing that makes proposals was left at random; mmengine only warns of that."""
    shapes = {name.removeprefix('module.'): value.shape for name, value in weights.items()}
    parts = [
        name
        for name, part in model.named_children()
        if part is head or name in ('backbone', 'neck')
    ]
    needed = {
        name: value.shape
        for name, value in model.state_dict().items()
        if name.startswith(tuple(f'{part}.' for part in parts))
        and not name.endswith('num_batches_tracked')
    }
    wrong = [name for name, shape in needed.items() if shapes.get(name) != shape]
    if wrong:
        raise ValueError(
            f'{checkpoint} has not the weights of this detector: {len(wrong)} of {len(needed)} '
            f'arrays that its proposals need are missing or of another shape, such as {wrong[0]}. '
            f'Give the config that the checkpoint was trained with'
        )


def make_pool(
    cfg: Config,
    miner: NegativeChipMiner,
    sampler: ChipAwareSampler,
    source: nn.Module | list[ImageProposals],
    out: Path,
    overwrite: bool,
) -> NegativeChipPool:
    """Mine or plan, and write the file; or read it, if it is what would be mined.

    Raises:
        ValueError: If the file is there and was mined from something else.
    """
    origin = miner.origin(source, sampler)
    found = [(stored_pool(out, origin), out.exists()) if is_main_process() else None]
    broadcast_object_list(found)
    pool, exists = found[0]
    parts = out.with_suffix('.parts')
    if pool is not None:
        if is_main_process():
            print(f'{out} was mined before from the same: nothing to do')
            shutil.rmtree(parts, ignore_errors=True)  # if killed after the file was written
        return pool
    if exists and not overwrite:
        raise ValueError(
            f'{out} exists and was mined from something else (other weights or proposals, images, '
            f'positive chips or options): name another file, or add --overwrite'
        )
    if isinstance(source, nn.Module):
        pixels = cfg.train_dataloader.get('batch_size', 1) * sampler.pyramid.chip_size**2
        pool = miner.mine(
            source,
            sampler,
            batch_pixels=pixels,
            num_workers=cfg.train_dataloader.get('num_workers', 0),
            parts_dir=parts / origin,
        )
    else:
        pool = miner.plan(sampler, source)
    if is_main_process():
        pool.save(out)
        shutil.rmtree(parts, ignore_errors=True)
    return pool


def show(pool: NegativeChipPool, miner: NegativeChipMiner, out: Path, console: Console) -> None:
    """Print what was found as a table."""
    found = pool.statistics
    table = Table(title=f'negative chips in {out}', show_header=False, title_justify='left')
    table.add_row('images', f'{found.images:,}')
    table.add_row(
        'proposals kept',
        f'{found.proposals:,}  ({found.proposals / max(found.images, 1):.1f} per image)',
    )
    table.add_row('(proposal, level) pairs that are valid', f'{found.valid:,}')
    table.add_row(
        '  covered by positive chips',
        f'{found.covered:,}  ({found.covered / max(found.valid, 1):.1%})',
    )
    table.add_row('negative chips', f'{found.chips:,}')
    for level, chips in zip(pool.pyramid.levels, found.chips_per_level):
        lo, hi = level.valid_range
        table.add_row(f'  of proposals of {lo:g} to {hi:g} px', f'{chips:,}')
    if miner.max_per_image is not None:
        table.add_row(
            f'  left out, more than {miner.max_per_image} of an image', f'{found.capped:,}'
        )
    table.add_row('images with negative chips', f'{found.images_with_chips:,}')
    console.print(table)
    if not found.chips:
        print(
            f'No window holds more than {miner.min_proposals} proposals outside positive chips: '
            f'lower --min-proposals'
        )


def mine(args: argparse.Namespace) -> NegativeChipPool:
    """What the command does, with errors as they are."""
    cfg = training_config(args)
    start_processes(cfg, args.local_rank)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    miner, epoch = mining_options(cfg, args)
    source = load_model(cfg, args.checkpoint) if args.checkpoint else None
    sampler = build_sampler(cfg, epoch)
    if source is None:
        source = read_proposals(args.proposals, sampler.dataset)
    out = Path(args.out)
    pool = make_pool(cfg, miner, sampler, source, out, args.overwrite)
    if is_main_process():
        show(pool, miner, out, Console())
    if is_distributed():
        torch.distributed.destroy_process_group()
    return pool


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> NegativeChipPool:
    """Run the command; returns the pool."""
    args = parse_args(argv)
    try:
        return mine(args)
    except RuntimeError as error:
        # Of an image that cannot be read; the data loader adds the traceback of its process.
        line = str(error).strip().rpartition('\n')[2].removeprefix('RuntimeError: ')
        if not line.startswith('cannot make a sample'):
            raise
        raise ValueError(line) from None


if __name__ == '__main__':
    main()
