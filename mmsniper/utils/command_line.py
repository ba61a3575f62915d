"""What command lines share: arguments, defaults in the help, errors in one line, progress.

Nothing here imports torch: a tool that only plans the chips of a file starts without it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmsniper.utils.registrations import registration_fault

FOREIGN_WARNINGS = (
    'pkg_resources is deprecated as an API',  # mmengine imports it for each mmdet:: in a config
    r'`torch\.cuda\.amp\.autocast\(',  # MMDetection's, in CSPDarknet and SimOTA at each batch
)
"""How warnings begin that no user of a tool can do anything about."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        optional = bool(action.option_strings) or action.nargs in ('?', '*')
        default = _as_typed(action.default) if optional else ''
        return f'{action.help} [{default.replace("%", "%%")}]' if default else action.help


def _as_typed(default: Any) -> str:
    if default in (None, argparse.SUPPRESS) or isinstance(default, bool):  # nothing, or a flag
        return ''
    if isinstance(default, (list, tuple)):
        return ' '.join(map(_as_typed, default))
    if isinstance(default, Path) and default.is_relative_to(Path.cwd()):
        default = default.relative_to(Path.cwd())
    return f'{default:g}' if isinstance(default, float) else str(default)


def command_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows ``[default]`` behind each argument, as it would be typed.

    From then on, what a locale has no letters for is printed as ``\\xfc`` instead of an error, and
    what others ask of their own packages brings no warnings (:data:`FOREIGN_WARNINGS`).
    """
    # Behind all other filters: whoever asks for it (python -W) still gets it.
    for message in FOREIGN_WARNINGS:
        warnings.filterwarnings('ignore', message, append=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    return argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter)


def add_config_arguments(parser: argparse.ArgumentParser, what: str | None = 'config file') -> None:
    """Add ``config``, with the help ``what`` (None: leave it out), and ``--cfg-options``."""
    from mmengine.config import DictAction

    if what is not None:
        parser.add_argument('config', help=what)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config, such as train_cfg.max_epochs=3; a list is written '
        'key="[a,b]" or key=a,b',
    )


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and, for old launchers, which do not use the environment, the rank."""
    kinds, what = ['none', 'pytorch', 'slurm', 'mpi'], 'what started the processes'
    parser.add_argument('--launcher', choices=kinds, default='none', help=what)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def at_least(bound: int) -> Callable[[str], int]:
    """The ``type`` of an argument that is a whole number of at least ``bound``."""

    def integer(text: str) -> int:  # argparse says 'invalid integer value'
        if int(text) < bound:
            raise argparse.ArgumentTypeError(f'must be at least {bound}, got {text}')
        return int(text)

    return integer


@contextmanager
def exit_on_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn a user's mistakes into ``error: ...`` on stderr and exit status 1. Also a decorator.

    Such are ``ValueError``, ``OSError`` (of files), ``SyntaxError`` (of configs), types that
    nobody has registered, and ``kinds``.
    """
    mistakes: tuple[type[Exception], ...] = (ValueError, OSError, SyntaxError, *kinds)
    try:
        with exit_on_unregistered():
            yield
    except mistakes as error:
        raise SystemExit(f'error: {error}') from error


@contextmanager
def exit_on_unregistered() -> Iterator[None]:
    """As :func:`exit_on_error`, of types and modules in a config that are not found only."""
    try:
        yield
    except (KeyError, ImportError) as error:
        fault = registration_fault(error)
        if not fault:
            raise
        raise SystemExit(f'error: {fault}') from error


def _in_main_process() -> bool:
    if 'torch' not in sys.modules:  # then there is one process; to import torch takes seconds
        return True
    from mmengine.dist import is_main_process

    return is_main_process()


def progress(
    iterable: Iterable[Any] | None = None, what: str = '', total: int | None = None, **options: Any
) -> tqdm:
    """A bar of progress on stderr: in the main process, of what takes more than 3 seconds.

    Args:
        iterable (Iterable | None): What to go through. Defaults to None: call ``update()``.
        what (str): What is done. Defaults to ''.
        total (int | None): How many there are. Defaults to None, the length of ``iterable``.
        **options: Others of ``tqdm``, such as ``unit='px', unit_scale=True`` instead of images, or
            ``delay=0`` for a bar at once.
    """
    interval = 0.5 if sys.stderr.isatty() else 30  # a log file keeps every line
    usual = dict(unit=' images', delay=3, mininterval=interval, maxinterval=30)
    return tqdm(iterable, what, total, disable=not _in_main_process(), **{**usual, **options})
