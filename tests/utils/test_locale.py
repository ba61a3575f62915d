"""A locale that is not UTF-8: files are read and written as UTF-8, and any text is printed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    file for folder in ('mmsniper', 'tools', 'benchmarks') for file in (ROOT / folder).rglob('*.py')
)
ASCII = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', PYTHONIOENCODING='')


def without_encoding(file):
    """Lines that open a text file in the encoding of the locale."""
    for node in ast.walk(ast.parse(file.read_text('utf-8'))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, 'id', getattr(node.func, 'attr', ''))
        arguments = [ast.unparse(argument) for argument in node.args]
        named = {keyword.arg for keyword in node.keywords}
        if name == 'open' and isinstance(node.func, ast.Name):
            binary = len(arguments) > 1 and 'b' in arguments[1]
            missing = not binary and 'encoding' not in named
        elif name in ('read_text', 'write_text') and isinstance(node.func, ast.Attribute):
            needed = 1 if name == 'read_text' else 2
            missing = 'encoding' not in named and len(arguments) < needed
        else:
            continue
        if missing:
            yield node.lineno


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_text_file_is_opened_in_an_encoding_that_is_named(file):
    assert list(without_encoding(file)) == []


@pytest.fixture
def run(tmp_path):
    def run(code, *arguments):
        return _run(tmp_path / 'script.py', code, *arguments)

    return run


def _run(script, code, *arguments):
    script.write_text(code, 'utf-8')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', script, *map(os.fsencode, arguments)],
        env={**os.environ, **ASCII},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode(errors='replace')
    return done.stdout.decode()


def test_tables_bars_and_names_come_out_in_ascii(run):
    printed = run(
        'import sys\n'
        'from rich.console import Console\n'
        'from rich.table import Table\n'
        'from mmsniper.utils.command_line import command_parser, progress\n'
        'assert sys.stdout.encoding.lower() in ("ascii", "ansi_x3.4-1968", "us-ascii")\n'
        'command_parser("Größe × Anzahl").print_help()\n'
        'table = Table("Größe", "×")\n'
        'table.add_row("1", "2")\n'
        'Console().print(table)\n'
        'print("für", sys.argv[1])\n'
        'for _ in progress(range(3), "Größe", delay=0):\n'
        '    pass\n',
        'ü.png',
    )
    assert 'Gr\\xf6\\xdfe \\xd7 Anzahl' in printed
    assert 'f\\xfcr' in printed


def test_texts_and_names_are_utf_8(run, tmp_path):
    path = tmp_path / 'größe.json'
    printed = run(
        'import sys\n'
        'from mmsniper.utils.files import utf8_name, write_json, write_text\n'
        'write_text(sys.argv[1], utf8_name(sys.argv[1]))\n'
        'write_json(sys.argv[1] + "2", ["ü"])\n',
        path,
    )
    assert printed == ''
    assert path.read_text('utf-8') == str(path)
    assert path.with_name('größe.json2').is_file()


def test_images_with_umlauts_are_loaded_and_a_name_of_an_annotation_file_is_told(run, tmp_path):
    cv2.imwrite(str(tmp_path / 'größe.png'), np.zeros((20, 30, 3), np.uint8))
    printed = run(
        'import sys\n'
        'from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile\n'
        'load = LoadLargeImageFromFile()\n'
        'print(load(dict(img_path=sys.argv[1]))["img_shape"])\n'
        'try:\n'
        '    load(dict(img_path="/größe.png"))\n'
        'except OSError as error:\n'
        '    print(ascii(str(error)))\n',
        tmp_path / 'größe.png',
    )
    assert '(20, 30)' in printed
    assert 'set the environment variable PYTHONUTF8=1' in printed
