"""What train.py and test.py share: their common arguments, the config and the Runner."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

# On a CPU with more to do than it has cores, OpenMP's threads otherwise spin while they wait for
# one another; seen to slow training down fifty times. It is read when torch is loaded.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmsniper.convert import load_config as read_config
from mmsniper.datasets.transforms.load_large_image import in_large_version
from mmsniper.datasets.wrappers import read_datasets, type_name
from mmsniper.engine import ConsistencyHook
from mmsniper.utils.command_line import (
    add_config_arguments,
    add_launcher_arguments,
    command_parser,
    exit_on_error,
)
from mmsniper.utils.compat import allow_checkpoint_globals, use_gloo_without_gpu
from mmsniper.utils.files import check_folder

# Whether or not the config imports mmsniper: a stock detector is trained and resumed as well.
allow_checkpoint_globals()


def launch_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser of the arguments that training and testing have in common."""
    parser = command_parser(description)
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints [work_dirs/<name of the config>]'
    )
    add_launcher_arguments(parser)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """Read the config (with our fragment, its SNIPER version) as the command line says."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    check_folder(cfg.work_dir, '--work-dir')
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the config's Runner, with gloo between processes that have no GPU.

    Raises:
        SystemExit: If there is no GPU, and the config asks for mixed precision or the launcher
            needs one.
    """
    with exit_on_error(RuntimeError):
        if type_name(cfg.get('optim_wrapper')) == 'AmpOptimWrapper' and get_device() == 'cpu':
            raise ValueError(
                'mixed precision (--amp, or optim_wrapper.type AmpOptimWrapper in the config) '
                'needs a GPU, and torch sees none. Leave --amp out, or train in full precision: '
                '--cfg-options optim_wrapper.type=OptimWrapper'
            )
        use_gloo_without_gpu(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    tell_unreadable_images(runner)
    if not any(isinstance(hook, ConsistencyHook) for hook in runner.hooks):  # stock detectors
        runner.register_hook(ConsistencyHook())
    return runner


def tell_unreadable_images(runner: Runner) -> None:
    """Let validation and test say which image they cannot load, and why.

    In training ``ChipDataset`` does so. The pixels are those of the stock transform, which stays in
    the config that is dumped: ``DetInferencer`` looks for it.
    """
    for loader in (runner._val_dataloader, runner._test_dataloader):
        for dataset in read_datasets(loader['dataset']) if isinstance(loader, Mapping) else ():
            if isinstance(dataset, Mapping) and (pipeline := dataset.get('pipeline')):
                dataset['pipeline'] = [in_large_version(pipeline[0]), *pipeline[1:]]
