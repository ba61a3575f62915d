"""List which of MMDetection's configs become their SNIPER version: docs/converted.md.

Each config of the installed MMDetection is read with our fragment and COCO's pyramid, as in
``_base_ = [config, 'configs/_base_/sniper.py', 'configs/_base_/pyramids/coco_paper.py']``, and
converted; nothing is built. It takes a minute or two.

    python tools/dev/list_converted.py
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import mmdet
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmsniper.convert import sniper_version
from mmsniper.utils.command_line import command_parser, progress

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'converted.md'
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
_ADDED = [ROOT / 'configs' / '_base_' / name for name in ('sniper.py', 'pyramids/coco_paper.py')]

# What messages have beside the reason: where to read on, and what there is instead.
_BESIDE = (r' \(docs/detectors\.md[^)]*\)', r'\. SNIPERRoIMixin makes one', r'; there is one of .*')

_NO_DETECTOR = 'has no model'
_UNREADABLE = 'cannot be read with what is installed here'


def stock_configs() -> Iterator[str]:
    """Names of MMDetection's configs, such as 'atss/atss_r50_fpn_1x_coco', without bases."""
    for file in sorted(STOCK.rglob('*.py')):
        name = file.relative_to(STOCK)
        if '_base_' not in name.parts:
            yield name.with_suffix('').as_posix()


def refusal(name: str) -> str:
    """Why a config has no SNIPER version; '' if it has one."""
    try:
        cfg = Config.fromfile(STOCK / f'{name}.py', import_custom_modules=False)
    except (ImportError, OSError) as error:
        needs = re.search(r'(\w+) is not installed', str(error))
        return f'{_UNREADABLE}: ' + (f'it needs {needs[1]}' if needs else 'a file of it is missing')
    if not cfg.get('model'):
        return _NO_DETECTOR
    for file in _ADDED:
        cfg.merge_from_dict(deepcopy(_added(file)))
    try:
        sniper_version(cfg)
    except ValueError as error:
        reason = ' '.join(str(error).split())
        for beside in _BESIDE:
            reason = re.sub(beside, '', reason)
        return reason.removeprefix('there is no SNIPER version of ')
    return ''


def _added(file: Path, read: dict[Path, dict] = {}) -> dict:  # noqa: B006, one for all configs
    if file not in read:
        read[file] = Config.fromfile(file).to_dict()
        read[file].pop('custom_imports', None)
    return read[file]


def page(reasons: Mapping[str, str]) -> str:
    """The page on all configs.

    Args:
        reasons (dict[str, str]): :func:`refusal` of each config.
    """
    detectors = {
        name: reason
        for name, reason in reasons.items()
        if reason != _NO_DETECTOR and not reason.startswith(_UNREADABLE)
    }
    converted = [name for name, reason in detectors.items() if not reason]
    unreadable = [name for name, reason in reasons.items() if reason.startswith(_UNREADABLE)]
    folders = Counter(name.split('/')[0] for name in detectors)
    kept = Counter(name.split('/')[0] for name in converted)
    by_reason = defaultdict(list)
    for name, reason in detectors.items():
        if reason:
            by_reason[reason].append(name)
    rows = sorted(by_reason.items(), key=lambda row: (-len(row[1]), row[0]))
    lines = [
        '# Which configs of MMDetection convert',
        '',
        '<!-- Made by tools/dev/list_converted.py; not by hand. -->',
        '',
        f'Of the {len(detectors)} configs of MMDetection {mmdet.__version__} that have a model, '
        f'**{len(converted)} become their SNIPER version** by the fragment '
        f'([how](howto/detectors.md)), and {len(detectors) - len(converted)} are refused by name, '
        f'for the reasons below. '
        + (
            f'{len(unreadable)} more could not be read here: they need mmpretrain, or a file that '
            f'MMDetection has not. '
            if unreadable
            else ''
        )
        + 'What an object of the wrong size does in each: [Detectors](detectors.md).',
        '',
        '| configs | of them convert |',
        '|---|---|',
        *(
            f'| {folder} ({count}) | {_share(kept[folder], count)} |'
            for folder, count in sorted(folders.items())
        ),
        '',
        '## Refused',
        '',
        '| configs | there is no SNIPER version of | which |',
        '|---|---|---|',
        *(
            f'| {len(names)} | {_cell(reason)} | {", ".join(f"`{name}`" for name in names)} |'
            for reason, names in rows
        ),
    ]
    return '\n'.join(lines) + '\n'


def _share(count: int, of: int) -> str:
    return 'all' if count == of else 'none' if not count else str(count)


def _cell(text: str) -> str:
    return text.replace('|', r'\|').replace('<', '&lt;')


def main() -> None:
    """Write the page."""
    parser = command_parser(__doc__)
    parser.add_argument('--out', type=Path, default=PAGE, help='the page')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    names = list(stock_configs())
    reasons = {name: refusal(name) for name in progress(names, 'configs', unit=' configs')}
    args.out.write_text(page(reasons), 'utf-8')
    print(f'{args.out}: {sum(not reason for reason in reasons.values())} configs convert')


if __name__ == '__main__':
    main()
