"""Print a config as it is after inheritance and, with our fragment, the SNIPER version of it."""

from __future__ import annotations

import argparse
import os
import sys

from mmengine.config import DictAction

from mmsniper.convert import load_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--save-path', metavar='FILE.py', help='also write it to this file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override those of the file',
    )
    args = parser.parse_args(argv)
    if args.save_path and not args.save_path.endswith(('.py', '.json', '.yml', '.yaml')):
        parser.error(f'--save-path {args.save_path}: the file must end in .py, .json or .yml')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        cfg = load_config(args.config, args.cfg_options)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')
    print(f'Config:\n{cfg.pretty_text}')
    if args.save_path:
        os.makedirs(os.path.dirname(args.save_path) or '.', exist_ok=True)
        cfg.dump(args.save_path)


if __name__ == '__main__':
    main()
