"""Check a config, its data and its checkpoint before training; exit status 1 on an error.

An error would train or report something wrong, a warning may, a note is worth knowing. The quick
part of it runs at the start of every training and test. With --images every image file is opened as
training opens it: whether it can be, its size, EXIF orientation, channels and depth. See
docs/checks.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mmsniper.checks import ERROR, NOTE, WARNING, Finding, counted
from mmsniper.checks.everything import check_everything
from mmsniper.utils.command_line import add_config_arguments, at_least, command_parser

COLOURS = {ERROR: 'red', WARNING: 'yellow', NOTE: 'blue'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--images', action='store_true', help='open every image file of training, val and test'
    )
    parser.add_argument('--workers', type=at_least(1), help='threads of --images [the cores]')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='weights that are to be tested: do they fit?'
    )
    return parser.parse_args(argv)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, and how many there are."""
    if findings:
        table = Table('', 'where', 'what', 'what to do', show_lines=True)
        for column in table.columns[1:]:
            column.overflow = 'fold'
        for f in findings:
            kind = f'[{COLOURS[f.severity]}]{f.severity}[/]'
            table.add_row(kind, *(text.replace('[', r'\[') for text in (f.where, f.what, f.fix)))
        console.print(table)
    console.print(counted(findings))


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Run the command; returns the findings if none is an error."""
    args = parse_args(argv)
    findings = check_everything(
        args.config,
        args.cfg_options,
        images=args.images,
        workers=args.workers,
        checkpoint=args.checkpoint,
    )
    show(findings, Console())
    if any(finding.severity == ERROR for finding in findings):
        sys.exit(1)
    return findings


if __name__ == '__main__':
    main()
