"""Train a detector. The command line is that of MMDetection's tools/train.py."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

from _launch import build_runner, launch_parser, load_config
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, find_latest_checkpoint

from mmsniper.checks.run import TRAINING, refuse_wrong
from mmsniper.engine import PoolError
from mmsniper.utils.command_line import exit_on_error, exit_on_unregistered


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = launch_parser(__doc__)
    parser.add_argument('--amp', action='store_true', help='train with mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint; without a value, from the last one in the work '
        'folder, or from scratch if it has none',
    )
    return parser.parse_args(argv)


def main() -> None:
    cfg = training_config(parse_args())
    # Of the processes that torchrun starts on a machine, one reads the annotation files.
    if os.environ.get('LOCAL_RANK', '0') == '0':
        with exit_on_error():
            refuse_wrong(cfg, TRAINING)
    with exit_on_unregistered():
        runner = build_runner(cfg)
        try:
            runner.train()
        except PoolError as error:
            raise SystemExit(f'error: {error}') from error


@exit_on_error()
def training_config(args: argparse.Namespace) -> Config:
    """The config, with what the command line says."""
    if args.auto_scale_lr:  # before the config is converted, which tells what it will do
        args.cfg_options = {**(args.cfg_options or {}), 'auto_scale_lr.enable': True}
    cfg = load_config(args)
    if args.amp:
        cfg.optim_wrapper.update(type='AmpOptimWrapper')
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        check_base_batch_size(cfg)
    if args.resume and args.resume != 'auto':
        cfg.load_from = args.resume
    if args.resume or cfg.get('resume'):
        prepare_resume(cfg, find=args.resume == 'auto')
    return cfg


def check_base_batch_size(cfg: Config) -> None:
    """Check that the config says which batch size its learning rate is for.

    Raises:
        ValueError: If it does not.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config: the batch size, '
            'over all GPUs, that its learning rate was chosen for'
        )


def prepare_resume(cfg: Config, find: bool = False) -> None:
    """Find the checkpoint to continue from and take over its random seed.

    mmengine restores the seed after it has built the data loader, whose sampler would by then
    have planned with another one.

    Args:
        cfg (Config): The config; ``resume``, ``load_from`` and ``randomness`` are changed in place.
        find (bool): Whether it is the last one in the work folder, and ``load_from`` holds the
            weights to begin with where that has none. Defaults to False: it is ``load_from``, if
            there is one.
    """
    begin = cfg.get('load_from')
    checkpoint = (None if find else begin) or last_checkpoint(Path(cfg.work_dir))
    if checkpoint is None:
        start = f'with the weights of {begin}' if begin else 'from scratch'
        print(f'No checkpoint in {cfg.work_dir}: training starts {start}.')
        cfg.resume = False
        return
    cfg.resume, cfg.load_from = True, checkpoint
    seed = checkpoint_seed(checkpoint)
    if seed is not None:
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}


def last_checkpoint(work_dir: Path) -> str | None:
    """Path of the checkpoint that was saved last in ``work_dir``, None if there is none.

    Raises:
        FileNotFoundError: If there was one, and it is gone.
    """
    noted = find_latest_checkpoint(str(work_dir))
    if noted is None:
        return None
    # The note holds a path as seen from where training was started, which may be elsewhere.
    for path in (Path(noted), work_dir / Path(noted).name):
        if path.is_file():
            return str(path)
    there = ', '.join(sorted(path.name for path in work_dir.glob('*.pth'))) or 'none'
    raise FileNotFoundError(
        f'{work_dir / "last_checkpoint"} names {noted!r}, which is gone. Name another checkpoint: '
        f'--resume PATH (in {work_dir}: {there}), or leave --resume out to start anew'
    )


def checkpoint_seed(checkpoint: str) -> int | None:
    """The random seed of the run that saved ``checkpoint``, None if it noted none.

    Raises:
        ValueError: If the file cannot be read, or holds weights only.
    """
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).partition('\n')[0].rstrip('.')
        raise ValueError(
            f'cannot resume from {checkpoint}: {reason}. If the file was cut short, name an '
            f'earlier one: --resume PATH'
        ) from error
    if 'meta' not in content or 'message_hub' not in content:
        raise ValueError(
            f'cannot resume from {checkpoint}: it holds weights and not the state of a training '
            f'run. To start from its weights: --cfg-options load_from={checkpoint}'
        )
    return content['meta'].get('seed')


if __name__ == '__main__':
    main()
