"""Check a config, its data and its checkpoint before training; exit status 1 on an error.

An error would train or report something wrong, a warning may, a note is worth knowing. The quick
part of it runs at the start of every training and test. With --images every image file is opened as
training opens it: whether it can be, its size, EXIF orientation, channels and depth. See
docs/checks.md.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from mmsniper.checks import ERROR, NOTE, WARNING, Finding, counted
from mmsniper.checks.everything import check_everything
from mmsniper.utils.command_line import add_config_arguments, at_least, command_parser

COLOURS = {ERROR: 'red', WARNING: 'yellow', NOTE: 'blue'}
INDENT = '    '


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
    """Print the findings, each with its place and what to do, and how many there are."""
    for f in findings:
        heading = Text.assemble((f.severity, COLOURS[f.severity]), f' in {f.where}')
        # A path is never broken, so that it can be copied.
        console.print(heading, soft_wrap=True)
        for text in (f.what, f.fix and f'To do: {f.fix}'):
            for line in text.splitlines():
                wrapped = textwrap.wrap(
                    line,
                    console.width,
                    initial_indent=INDENT,
                    subsequent_indent=INDENT,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                console.print('\n'.join(wrapped), soft_wrap=True, markup=False, highlight=False)
        console.print()
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
