"""mmcv's files are compiled in groups, which is seen to go on, and never fails for the groups."""

import io
import re
import shutil
import sys

import pytest

# Stands in for pip, setup.py and ninja: it compiles what is there and has not been compiled.
COMPILER = """
import subprocess, sys
from pathlib import Path

source = Path(sys.argv[1])
left = [f for f in sorted(source.rglob('*.cpp')) if not f.with_suffix('.o').exists()]
for number, file in enumerate(left, 1):
    done = subprocess.run(['g++', '-c', file, '-o', file.with_suffix('.o')])
    if done.returncode:
        print(f'FAILED: [code=1] {file.with_suffix(".o").relative_to(source)}')
        sys.exit(1)
    print(f'[{number}/{len(left)}] g++ {file.name}')
"""


@pytest.fixture
def tool(load_tool):
    return load_tool('dev/mmcv_build')


@pytest.fixture
def source(tool, tmp_path):
    """Make an archive of files: ``source(nms='text', **{'cpu/nms': 'text'})``."""

    def source(**texts):
        (tmp_path / tool.SOURCES / 'cpu').mkdir(parents=True)
        for name, text in texts.items():
            (tmp_path / tool.SOURCES / f'{name}.cpp').write_text(text)
        return tmp_path

    return source


def names(source):
    return sorted(path.name for path in source.rglob('*') if path.is_file())


def compile_it(tool, source):
    (source / 'compiler.py').write_text(COMPILER)
    tool.build([sys.executable, source / 'compiler.py', source], source, {}, 60)
    return {path.stem for path in source.rglob('*.o')}


def test_small_files_are_put_together_in_their_folder(tool, source):
    folder = source(
        a='int a() {\n}\n', b='int b() {\n}\n', **{'cpu/a': 'int c() {\n}\n', 'cpu/b': '// b\n'}
    )
    tool.group_sources(folder)
    assert names(folder) == ['a.inc', 'a.inc', 'b.inc', 'b.inc', 'group_0.cpp', 'group_0.cpp']
    [group] = (folder / tool.SOURCES).glob('*.cpp')
    assert group.read_text() == '#include "a.inc"\n#include "b.inc"\n'


def test_a_large_file_stays_alone(tool, source):
    folder = source(large='x' * tool.GROUP, small='int y;')
    tool.group_sources(folder)
    assert names(folder) == ['large.cpp', 'small.cpp']


@pytest.mark.parametrize(
    'text',
    [
        'Tensor add(\n    const Tensor a,\n    int b) {\n}\n',
        'template <typename T>\nstatic inline void add(T* a, std::function<int(int)> b) {\n}\n',
        'struct add {\n};\n',
        'const int add = 3;\n',
        '#define add(a) a\n',
    ],
)
def test_what_defines_the_same_name_is_not_put_together(tool, source, text):
    assert tool.names_defined(text) == {'add'}
    folder = source(a=text, b=text, c='int c() { add(3); }\n')
    tool.group_sources(folder)
    assert {'a.inc', 'b.inc'} - set(names(folder))


def test_what_is_only_declared_or_used_is_no_definition(tool):
    text = 'int nms_impl(Tensor a);\nREGISTER(nms, CPU, a);\nvoid f() {\n  if (a) {\n  }\n}\n'
    assert tool.names_defined(text) == {'f'}


def test_macros_come_last_so_that_they_change_no_other_file(tool, source):
    folder = source(a='#define min(a, b) a\n' + '//' * 100, b='int b() {\n}\n')
    tool.group_sources(folder)
    [group] = folder.rglob('group_0.cpp')
    assert group.read_text() == '#include "b.inc"\n#include "a.inc"\n'


@pytest.mark.skipif(not shutil.which('g++'), reason='g++ is not installed')
def test_a_group_that_does_not_compile_is_taken_apart(tool, source, capsys):
    folder = source(
        a='typedef int number;\nnumber a() {\n  return 1;\n}\n',
        b='typedef long number;\nnumber b() {\n  return 1;\n}\n',
        **{'cpu/c': 'int c() {\n  return 1;\n}\n', 'cpu/d': 'int d() {\n  return 1;\n}\n'},
    )
    tool.group_sources(folder)
    # The one of cpu/ is compiled once and stays.
    assert compile_it(tool, folder) == {'a', 'b', 'group_0'}
    assert 'trying them one by one' in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which('g++'), reason='g++ is not installed')
def test_a_file_that_does_not_compile_alone_ends_the_build(tool, source, capsys):
    folder = source(a='int a() {\n}\n', b='no C++;\n')
    tool.group_sources(folder)
    with pytest.raises(tool.BuildError, match=re.escape(str(folder / 'build.log'))):
        compile_it(tool, folder)
    assert 'b.cpp' in capsys.readouterr().out
    assert names(folder)[:2] == ['a.cpp', 'a.o']


def test_an_interruption_while_a_group_is_taken_apart_loses_no_file(tool, source):
    folder = source(a='', b='')
    tool.group_sources(folder)
    (folder / tool.SOURCES / 'a.inc').rename(folder / tool.SOURCES / 'a.cpp')
    [group] = folder.rglob('group_0.cpp')
    tool.take_apart(group)
    assert names(folder) == ['a.cpp', 'b.cpp']


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_terminal_shows_one_line_that_changes(tool):
    clock, out = Clock(), Terminal()
    progress = tool.Progress(100, out, clock)
    clock.now = 10
    progress.tick()
    progress.tick()  # at most once a second
    clock.now = 20
    progress.step(2, 10)
    clock.now = 200
    progress.step(10, 10)
    progress.end()
    assert out.getvalue().split('\r')[1:] == [
        '  compiled no part yet after 10 s, about 1.5 min left\x1b[K',
        '  compiled 2 of 10 parts after 20 s, about 80 s left\x1b[K',
        '  compiled 10 of 10 parts after 3.3 min\x1b[K\n',
    ]


def test_a_log_has_a_line_now_and_then(tool):
    clock, out = Clock(), io.StringIO()
    progress = tool.Progress(100, out, clock)
    for second in range(1, 301):
        clock.now = second
        progress.tick()
        if second <= 100 and second % 10 == 0:
            progress.step(second // 10, 12)
    progress.end()
    said = re.findall(r'(\w+) of 12 parts after (.*?)[,\n]', out.getvalue())
    assert said == [
        ('2', '30 s'),
        ('5', '60 s'),
        ('8', '1.5 min'),
        ('10', '2.0 min'),
        ('10', '4.0 min'),
    ]


def test_what_a_program_says_is_read_while_it_runs_and_silence_is_noticed(tool, tmp_path):
    code = 'import time; print("[1/2] a", flush=True); time.sleep(0.4); print("[2/2] b", end="")'
    progress = tool.Progress(0, io.StringIO())
    ticks = []
    progress.tick = lambda last=False: ticks.append((progress.done, last))
    log = tmp_path / 'build.log'
    lines = tool.lines_or_silence
    tool.lines_or_silence = lambda stream, seconds: lines(stream, 0.1)
    assert tool.run_build([sys.executable, '-c', code], {}, log, progress) == 0
    assert log.read_text() == '[1/2] a\n[2/2] b\n'
    assert ticks[-1] == (2, True)
    assert (1, False) in ticks
