"""Print a config as it is after inheritance and, with our fragment, the SNIPER version of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsniper.convert import load_config
from mmsniper.utils.command_line import add_config_arguments, command_parser, exit_on_error


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--save-path', metavar='FILE.py', help='also write it to this file')
    args = parser.parse_args(argv)
    if args.save_path and not args.save_path.endswith(('.py', '.json', '.yml', '.yaml')):
        parser.error(f'--save-path {args.save_path}: the file must end in .py, .json or .yml')
    return args


@exit_on_error()
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    print(f'Config:\n{cfg.pretty_text}')
    if args.save_path:
        Path(args.save_path).parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(args.save_path)


if __name__ == '__main__':
    main()
