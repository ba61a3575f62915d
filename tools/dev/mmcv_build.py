"""Compile mmcv from its source archive: fewer and larger pieces, and how far it is.

Most of the time goes into the headers of torch, which each of mmcv's C++ files reads, and into
debugging symbols. So its small files are compiled in groups, a file that includes some of them, and
without symbols: 2.5 CPU minutes in the place of about 20, and the same results to the last bit.
mmcv's own setup.py takes whatever ``*.cpp`` it finds, and stays as it is. A group that does not
compile is taken apart again.

mmcv cannot be compiled in part: its Python imports the names of all operators.
Only the standard library is used, as in setup_venv.py.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TextIO

SOURCES = Path('mmcv', 'ops', 'csrc', 'pytorch')
# What one group has of mmcv's sources, in characters: eleven parts, enough for most machines.
GROUP = 40_000
# A member of a group has another suffix, so that setup.py passes over it.
MEMBER = '.inc'
# What a definition in the first column gives a name to: a function, a type, a macro, a constant.
DEFINITIONS = re.compile(
    r'^(?:[\w:<>,*&]+[ \n])+[*&]*(\w+)\s*\([^;{}()]*(?:\([^;{}()]*\)[^;{}()]*)*\)\s*(?:const\s*)?\{'
    r'|^(?:struct|class|enum|union)\s+(\w+)\s*[:{]'
    r'|^#define\s+(\w+)'
    r'|^(?:static\s+)?const(?:expr)?\s+[\w:]+\s+(\w+)\s*=',
    re.MULTILINE,
)
# Debugging symbols, which Python's own flags ask for, take longer than the code. Of the variables
# with flags only this one adds to Python's in all versions of setuptools.
WITHOUT_SYMBOLS = {'CPPFLAGS': '-g0'}


class BuildError(Exception):
    """mmcv does not compile; the message says where its output is."""


def build(command: list[str], source: Path, env: dict[str, str], expected: float) -> None:
    """Compile mmcv, and take groups apart that fail.

    Args:
        command (list[str]): What builds the unpacked archive in place.
        source (Path): The unpacked archive. The output goes to its ``build.log``.
        env (dict[str, str]): What is added to the environment of the command.
        expected (float): About how long it takes, in seconds.

    Raises:
        BuildError: A file fails that is in no group.
    """
    log = source / 'build.log'
    flags = os.environ.get('CPPFLAGS', ''), *WITHOUT_SYMBOLS.values()
    env = {**os.environ, **env, 'CPPFLAGS': ' '.join(flags).strip()}
    while run_build(command, env, log, Progress(expected)):
        failed = groups_that_failed(source, log.read_text('utf-8'))
        if not failed:
            lines = log.read_text('utf-8').splitlines()[-40:]
            print('\n'.join(lines), flush=True)
            raise BuildError(f'its last lines are above, all of them in {log}')
        print('some files do not compile together; trying them one by one', flush=True)
        for group in failed:
            take_apart(group)


# Groups ---------------------------------------------------------------------------------------


def group_sources(source: Path) -> None:
    """Have mmcv's C++ files compiled in groups; those of CUDA stay as they are.

    To be called once, right after unpacking: then an interrupted build finds what it has compiled.
    """
    for folder in (source / SOURCES, source / SOURCES / 'cpu'):
        texts = {file: file.read_text('utf-8') for file in sorted(folder.glob('*.cpp'))}
        for number, files in enumerate(groups(texts)):
            if len(files) > 1:
                put_together(folder / f'group_{number}.cpp', files)


def groups(texts: dict[Path, str]) -> list[list[Path]]:
    """Which files are compiled together: about `GROUP` characters that define no name twice."""
    made: list[list[Path]] = []
    names: list[set[str]] = []
    sizes: list[int] = []
    # The largest first, so that groups come out about even.
    for file in sorted(texts, key=lambda file: -len(texts[file])):
        text = texts[file]
        defined = names_defined(text)
        if re.search(r'^#define', text, re.MULTILINE):
            defined.add('#define')  # one such file in a group: its last
        room = (
            i for i in range(len(made)) if sizes[i] + len(text) <= GROUP and not defined & names[i]
        )
        i = next(room, len(made))
        if i == len(made):
            made.append([])
            names.append(set())
            sizes.append(0)
        made[i].append(file)
        names[i] |= defined
        sizes[i] += len(text)
    for files in made:
        files.sort(key=lambda file: '#define' in texts[file])
    return made


def names_defined(text: str) -> set[str]:
    """The names that a C++ file defines outside of functions."""
    return {name for found in DEFINITIONS.findall(text) for name in found if name}


def put_together(group: Path, files: list[Path]) -> None:
    members = [file.with_suffix(MEMBER) for file in files]
    group.write_text(''.join(f'#include "{member.name}"\n' for member in members), 'utf-8')
    for file, member in zip(files, members):
        file.rename(member)


def take_apart(group: Path) -> None:
    for name in re.findall(r'#include "(.+)"', group.read_text('utf-8')):
        member = group.parent / name
        if member.exists():  # or it was renamed before an interruption
            member.rename(member.with_suffix('.cpp'))
    group.unlink()


def groups_that_failed(source: Path, log: str) -> list[Path]:
    """The groups that ninja names as failed in the output of a build."""
    named = re.findall(r'^FAILED: .*?((?:cpu/)?group_\d+)\.o', log, re.MULTILINE)
    groups = (source / SOURCES / f'{name}.cpp' for name in dict.fromkeys(named))
    return [group for group in groups if group.exists()]


# Progress -------------------------------------------------------------------------------------


class Progress:
    """Say how far a build is: in one line on a terminal, else in a line now and then.

    Args:
        expected (float): About how long the whole takes, in seconds; used until a part is done.
        stream (TextIO, optional): Where it is said. Defaults to standard output.
        clock (Callable): What gives the time in seconds. Defaults to ``time.monotonic``.
    """

    # In a log, seconds between two lines while something happens, and while nothing does.
    EVERY, SILENT = 30, 120

    def __init__(
        self,
        expected: float,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected = expected
        self.stream = stream or sys.stdout
        self.clock = clock
        self.in_place = self.stream.isatty()
        self.start = clock()
        self.said = self.start
        self.done = self.total = self.done_when_said = 0

    def step(self, done: int, total: int) -> None:
        """Note that `done` of `total` parts are compiled."""
        self.done, self.total = done, total
        self.tick(done == total)

    def tick(self, last: bool = False) -> None:
        """Say how far it is, if it is time to."""
        news = self.done != self.done_when_said
        wait = 1 if self.in_place else self.EVERY if news else self.SILENT
        if last or self.clock() - self.said >= wait:
            text = f'  {self.text()}'
            self.stream.write(f'\r{text}\x1b[K' if self.in_place else f'{text}\n')
            self.stream.flush()
            self.said, self.done_when_said = self.clock(), self.done

    def text(self) -> str:
        passed = self.clock() - self.start
        if self.done:
            left = passed / self.done * (self.total - self.done)
        else:
            left = max(self.expected - passed, 0)
        said = f'{self.done} of {self.total} parts' if self.total else 'no part yet'
        rest = f', about {duration(left)} left' if left >= 1 else ''
        return f'compiled {said} after {duration(passed)}{rest}'

    def end(self) -> None:
        if self.in_place:
            self.stream.write('\n')
            self.stream.flush()


def duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.1f} min'


def run_build(command: list[str], env: dict[str, str], log: Path, progress: Progress) -> int:
    """Run a command, show ninja's ``[3/12]`` as progress, and keep all that it says in `log`."""
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    with open(log, 'w', encoding='utf-8') as file:
        for line in lines_or_silence(process.stdout, 1):
            if line is not None:
                file.write(line + '\n')
            counted = re.match(r'\s*\[(\d+)/(\d+)\]', line or '')
            if counted:
                progress.step(*map(int, counted.groups()))
            else:
                progress.tick()
    progress.end()
    return process.wait()


def lines_or_silence(stream: IO[bytes], seconds: float) -> Iterator[str | None]:
    """The lines of a program that runs; None where it has said nothing for some seconds."""
    rest = b''
    while True:
        if not select.select([stream], [], [], seconds)[0]:
            yield None
            continue
        said = os.read(stream.fileno(), 65536)
        if not said:
            break
        *lines, rest = (rest + said).split(b'\n')
        for line in lines:
            yield line.decode('utf-8', 'replace')
    if rest:
        yield rest.decode('utf-8', 'replace')
