"""What scripts that compare trainings share: presets and command-line options."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.comparison import Comparison
from mmsniper.utils.command_line import add_config_arguments, at_least


@dataclass(frozen=True)
class Preset:
    """A comparison of the project's own, and what is said above its table.

    Args:
        title (str): Its heading.
        description (str): What is compared on what.
        comparison (Comparison): The comparison.
        prepare (Callable): Makes the data that it needs. Defaults to nothing.
        prepare_for (dict): Makes what one contestant needs besides, by its name. Defaults to
            nothing.
        others (tuple[Comparison, ...]): The same contestants, or some of them, with other pixels or
            seeds: further points of the curves. Defaults to none.
    """

    title: str
    description: str
    comparison: Comparison
    prepare: Callable[[], None] = lambda: None
    prepare_for: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    others: tuple[Comparison, ...] = ()

    @property
    def parts(self) -> tuple[Comparison, ...]:
        """All its comparisons."""
        return (self.comparison, *self.others)

    def prepare_all(self) -> None:
        """Make the data that its contestants need."""
        self.prepare()
        for name, prepare in self.prepare_for.items():
            if any(name in part.configs for part in self.parts):
                prepare()


def add_comparison_options(parser: argparse.ArgumentParser, work_dir: str, out_dir: Path) -> None:
    """Give a parser the options of a comparison.

    Args:
        parser (argparse.ArgumentParser): Gets ``--pixels``, ``--seeds``, ``--jobs``, ``--threads``,
            ``--work-dir``, ``--out-dir`` and ``--cfg-options``.
        work_dir (str): What the help says is the folder of the runs.
        out_dir (Path): Folder of the results.
    """
    parser.add_argument('--pixels', type=float, help="training pixels of each run [the preset's]")
    parser.add_argument('--seeds', type=int, nargs='+', help='random seeds [0 1 2]')
    parser.add_argument('--jobs', type=at_least(1), default=1, help='runs at a time')
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of a run')
    parser.add_argument('--work-dir', type=Path, help=f'folder of the runs [{work_dir}]')
    parser.add_argument('--out-dir', type=Path, default=out_dir, help='folder of the two files')
    add_config_arguments(parser, None)


def with_options(comparison: Comparison, args: argparse.Namespace) -> Comparison:
    """A comparison with what the command line changes of it."""
    changes = {
        'pixels': args.pixels,
        'seeds': args.seeds and tuple(args.seeds),
        'options': args.cfg_options and {**comparison.options, **args.cfg_options},
        'threads': args.threads,
    }
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(comparison, **given)


def parsed_options(words: Sequence[str]) -> dict[str, Any]:
    """Settings written KEY=VALUE, as ``--cfg-options`` takes them."""
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, None)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


def noted_command(script: str, argv: Sequence[str]) -> str:
    """The command that makes a result, without what does not matter to it.

    Args:
        script (str): Path of the script, as seen from the project's root.
        argv (Sequence[str]): Its arguments.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for name in ('--jobs', '--work-dir', '--out-dir'):
        parser.add_argument(name)
    parser.add_argument('--report-only', action='store_true')
    _, kept = parser.parse_known_args(argv)
    return shlex.join(['python', script, *kept])
