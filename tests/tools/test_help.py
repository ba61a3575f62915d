"""What each tool prints for --help."""

import argparse
import re
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
NAMES = sorted(
    str(path.relative_to(TOOLS).with_suffix(''))
    for path in TOOLS.rglob('*.py')
    if 'def parse_args' in path.read_text() and path.parent.name != 'dev'
)


@pytest.fixture(params=NAMES)
def parser(request, load_tool, monkeypatch):
    parsers = []
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'print_help', lambda self: parsers.append(self))
        with pytest.raises(SystemExit):
            load_tool(request.param).parse_args(['--help'])
    return parsers[0]


def test_every_argument_has_words_and_no_default_twice(parser):
    assert [action.dest for action in parser._actions if not action.help] == []
    listed = ' '.join(parser.format_help().split()).partition('this help message and exit')[2]
    assert not re.search(r'\[[^][]*\] *\[', listed)


def test_the_tools_are_found():
    assert {'infer', 'train', 'analysis_tools/check'} <= set(NAMES)
