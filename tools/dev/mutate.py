#!/usr/bin/env python3
"""Would the tests notice? Change single lines of the package and see whether a test fails.

    python tools/dev/mutate.py                            # 200 of all mutants
    python tools/dev/mutate.py --only 'chips/*' --sample 50 --seed 1

A *mutant* is the package with one operator, constant, call or statement changed. Each is made in a
copy of the package, in a temporary folder; the working tree stays as it is. A mutant of
`mmsniper/chips/cover.py` is given to the tests in `tests/chips/` that run the changed lines, those
of `test_cover.py` first, until one fails. Which tests run which lines is measured once, and again
where a file has changed.

- **killed**: a test fails. Where only tests on random examples (hypothesis) fail, they must also
  fail with three other seeds; otherwise the mutant is **by luck**, which counts as survived.
- **timed out**: the tests took several times as long as they should. Counts as killed.
- **survived**: no test fails. Look at it: a test is missing, or the line does nothing.
- **equivalent**: it is in `equivalent_mutants.json`, with the reason why no test can fail.

Each result is written as it comes, so a killed run goes on where it stopped. What is known stays
known: a kill until the changed file changes, a survivor until its tests change as well.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

# Read when torch is loaded; the processes that run the tests are forked from this one.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import core as hypothesis_core

from mmsniper.utils.command_line import at_least, command_parser, exit_on_error, progress
from mmsniper.utils.files import write_text

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ('chips', 'datasets', 'engine', 'models')
SEEDS = (1, 2, 3)
# A test in which a function was called so often without a new line is taken to run no more of it:
# to note every line of a training takes minutes.
QUIET_CALLS = 100
EQUIVALENT = Path(__file__).with_name('equivalent_mutants.json')

COMPARISONS = {
    ast.Lt: ('<', '<='),
    ast.LtE: ('<=', '<'),
    ast.Gt: ('>', '>='),
    ast.GtE: ('>=', '>'),
    ast.Eq: ('==', '!='),
    ast.NotEq: ('!=', '=='),
    ast.Is: ('is', 'is not'),
    ast.IsNot: ('is not', 'is'),
    ast.In: ('in', 'not in'),
    ast.NotIn: ('not in', 'in'),
}
ARITHMETIC = {
    ast.Add: ('+', '-'),
    ast.Sub: ('-', '+'),
    ast.Mult: ('*', '/'),
    ast.Div: ('/', '*'),
    ast.FloorDiv: ('//', '/'),
    ast.Mod: ('%', '*'),
    ast.Pow: ('**', '*'),
    ast.BitAnd: ('&', '|'),
    ast.BitOr: ('|', '&'),
}
BOOLEAN = {ast.And: ('and', 'or'), ast.Or: ('or', 'and')}
FUNCTIONS = dict(min='max', minimum='maximum', any='all', floor='ceil', argmin='argmax')
FUNCTIONS |= {after: before for before, after in FUNCTIONS.items()}
LIMITS = ('min', 'max', 'minimum', 'maximum', 'clip', 'clamp')
SYMMETRIC = (*LIMITS, 'isinstance', 'issubclass', 'logical_and', 'logical_or', 'array_equal')
MESSAGES = ('warn', 'warning', 'info', 'print_log', 'print')


@dataclass(frozen=True)
class Mutant:
    """A change of one place in a file.

    Attributes:
        file (str): Path from the project's root.
        line (int): Its number, from 1.
        before (str): The line as it is, without its indent.
        after (str): The line as it becomes.
        span (tuple[int, int]): First and last line of what runs when the change has an effect.
        place (tuple[int, int]): Bytes of the file that are replaced.
        text (str): What they are replaced by.
    """

    file: str
    line: int
    before: str
    after: str
    span: tuple[int, int]
    place: tuple[int, int]
    text: str

    def __str__(self) -> str:
        return f'{self.file}:{self.line}\n    - {self.before}\n    + {self.after}'

    def apply(self, source: bytes) -> bytes:
        """The file's content with the change."""
        start, end = self.place
        return source[:start] + self.text.encode() + source[end:]


class _Edits:
    """Finds the changes that can be made in one file, as (first byte, last byte, new text)."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def place(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        first = self.starts[node.lineno - 1] + node.col_offset
        return first, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr) -> str:
        start, end = self.place(node)
        return self.source[start:end].decode()

    def operator(
        self, left: ast.expr, right: ast.expr, change: tuple[str, str]
    ) -> Iterator[tuple[int, int, str]]:
        """Change the operator between two operands, which has no place of its own in the tree."""
        before, after = change
        start, end = self.place(left)[1], self.place(right)[0]
        words = r'\s+'.join(map(re.escape, before.split()))
        pattern = rf'\b{words}\b' if before[0].isalpha() else words
        if found := re.search(pattern.encode(), self.source[start:end]):
            yield start + found.start(), start + found.end(), after

    def of(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        """All changes of a node itself, without those of its children."""
        if isinstance(node, ast.Compare):
            for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators):
                yield from self.operator(left, right, COMPARISONS[type(op)])
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            yield from self.operator(node.left, node.right, ARITHMETIC[type(node.op)])
        elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            before, after = ARITHMETIC[type(node.op)]
            yield from self.operator(node.target, node.value, (f'{before}=', f'{after}='))
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:]):
                yield from self.operator(left, right, BOOLEAN[type(node.op)])
        elif isinstance(node, ast.UnaryOp):
            if not isinstance(node.operand, ast.Constant):
                yield *self.place(node), f'({self.text(node.operand)})'
        elif isinstance(node, ast.Constant):
            yield from self._constant(node)
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.Return):
            if not (node.value is None or isinstance(node.value, ast.Constant)):
                yield *self.place(node.value), 'None'
        elif isinstance(node, ast.Raise) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            yield *self.place(node), 'pass'
        elif isinstance(node, ast.Continue):
            yield *self.place(node), 'break'
        test = getattr(node, 'test', None)
        if isinstance(test, (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)):
            yield *self.place(test), f'(not ({self.text(test)}))'

    def _constant(self, node: ast.Constant) -> Iterator[tuple[int, int, str]]:
        if isinstance(node.value, bool):
            yield *self.place(node), str(not node.value)
        elif isinstance(node.value, (int, float)):
            yield *self.place(node), repr(node.value + 1)
            if node.value == 1:
                yield *self.place(node), repr(node.value - 1)

    def _call(self, node: ast.Call) -> Iterator[tuple[int, int, str]]:
        name = _name(node.func)
        end = self.place(node.func)[1]
        if name in FUNCTIONS:
            yield end - len(name), end, FUNCTIONS[name]
        plain = not node.keywords and not any(isinstance(a, ast.Starred) for a in node.args)
        if name in LIMITS and plain and len(node.args) > 1:  # the limit is gone
            a_method = isinstance(node.func, ast.Attribute) and self.text(node.func.value) != 'np'
            kept = node.func.value if a_method and name in ('clip', 'clamp') else node.args[0]
            yield *self.place(node), f'({self.text(kept)})'
        if plain and len(node.args) == 2 and name not in SYMMETRIC:
            first, second = node.args
            if self.text(first) != self.text(second):
                swapped = f'{self.text(second)}, {self.text(first)}'
                yield self.place(first)[0], self.place(second)[1], swapped


def _name(node: ast.expr) -> str:
    """The last word of what is called."""
    return getattr(node, 'attr', getattr(node, 'id', ''))


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What may be changed below a node: no types, texts, decorators, imports or messages."""
    if isinstance(node, (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, ast.Call) and _name(node.func) in MESSAGES:
        return
    for field, value in ast.iter_fields(node):
        if field not in ('annotation', 'returns', 'decorator_list'):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield child


def _span(node: ast.AST, outer: tuple[int, int]) -> tuple[int, int]:
    """The lines that run when something directly below a node is changed."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):  # defaults: when it is called
        return node.body[0].lineno, node.end_lineno
    if isinstance(node, ast.stmt):
        body = getattr(node, 'body', None)
        return node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
    return outer


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """All mutants of a file that are Python and differ from it.

    Args:
        path (str): Path of the file from the project's root.
        source (bytes): What is in it.

    Returns:
        list[Mutant]: In the order of their lines.
    """
    edits, lines, found = _Edits(source), source.decode().splitlines(), {}
    whole = (1, len(lines))

    def visit(node: ast.AST, span: tuple[int, int], in_function: bool) -> None:
        for start, end, text in edits.of(node):
            line = source.count(b'\n', 0, start) + 1
            mutant = Mutant(path, line, lines[line - 1].strip(), '', span, (start, end), text)
            changed = mutant.apply(source)
            try:
                ast.parse(changed)
            except SyntaxError:
                continue
            after = changed.decode().splitlines()[line - 1].strip()
            found[start, end, text] = Mutant(**{**asdict(mutant), 'after': after})
        for child in _children(node):
            a_function = isinstance(child, (ast.FunctionDef, ast.Lambda))
            inside = in_function or a_function
            visit(child, _span(child, span) if inside else whole, inside)

    visit(ast.parse(source), whole, False)
    return [found[key] for key in sorted(found)]


def sample_of(mutants: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """So many mutants, spread evenly over files and lines, in random order."""
    draw, number = random.Random(seed), min(number, len(mutants))
    step = len(mutants) / max(number, 1)
    chosen = [mutants[int((i + draw.random()) * step)] for i in range(number)]
    draw.shuffle(chosen)
    return chosen


# ---------------------------------------------------------------------------- running tests


def _warm_up() -> None:
    """Import what takes seconds, once, in the process from which all others are forked."""
    import scipy.optimize
    import scipy.sparse  # noqa: F401
    from mmdet.apis import DetInferencer  # noqa: F401
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)


def _file_of(test: str) -> str:
    return test.partition('::')[0]


class _Plugin:
    """Runs certain tests in a certain order.

    Args:
        ids (Iterable[str] | None): The tests; None for all.
        seed (int | None): Where random examples begin. None: the same as in every run.
    """

    def __init__(self, ids: Iterable[str] | None, seed: int | None) -> None:
        self.order = None if ids is None else {name: i for i, name in enumerate(ids)}
        self.seed = seed

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        settings.register_profile(
            'mutation',
            settings.get_profile('mmsniper'),
            derandomize=self.seed is None,
            database=None,
            phases=[Phase.explicit, Phase.generate],  # to shrink an example takes long
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile('mutation')
        hypothesis_core.global_force_seed = self.seed

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.order is not None:
            # A name with a value in it may be another one with the mutant: then all of its file.
            gone = set(map(_file_of, self.order.keys() - {item.nodeid for item in items}))
            items[:] = sorted(
                (i for i in items if i.nodeid in self.order or _file_of(i.nodeid) in gone),
                key=lambda item: self.order.get(item.nodeid, len(self.order)),
            )


class _FirstFailure(_Plugin):
    """Stops when a test has failed that does so in every run."""

    def __init__(self, ids: Iterable[str], seed: int | None) -> None:
        super().__init__(ids, seed)
        self.failed: list[str] = []
        self.certain = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        if report.failed:
            self.failed.append(item.nodeid)
            self.certain |= not _is_random(item)
            if self.certain or self.seed is not None or len(self.failed) == 3:
                item.session.shouldfail = 'killed'
        return report

    def report(self, package: Path, code: int) -> dict[str, Any]:
        where = getattr(sys.modules.get('mmsniper'), '__file__', '')
        if not where.startswith(str(package)):
            raise RuntimeError(f'the tests ran with {where}, not with the mutant in {package}')
        if code and not self.failed:  # a test file that cannot be imported
            return dict(status='killed', failed=['collection'], certain=True)
        status = 'killed' if self.failed else 'survived'
        return dict(status=status, failed=self.failed, certain=self.certain)


class _Lines(_Plugin):
    """Finds out which lines of the package each test runs.

    The lines of a fixture that several tests share count for all of them.
    """

    def __init__(self, package: Path) -> None:
        super().__init__(None, None)
        self.package = package
        self.files: dict[str, str | None] = {}
        self.now: set[tuple[str, int]] = set()
        self.calls: Counter[CodeType] = Counter()  # of each function since its last new line
        self.tests: dict[str, tuple[pytest.Item, float, set[tuple[str, int]]]] = {}
        self.of_fixture: dict[int, set[tuple[str, int]]] = defaultdict(set)
        self.bad: set[str] = set()

    def trace(self, frame: FrameType, event: str, arg: Any) -> Callable | None:
        path = frame.f_code.co_filename
        if path not in self.files:
            inside = path.startswith(f'{self.package}{os.sep}')
            self.files[path] = str(Path(path).relative_to(self.package)) if inside else None
        if self.files[path] is None:
            return None
        if event == 'call':
            self.calls[frame.f_code] += 1
            if self.calls[frame.f_code] > QUIET_CALLS:
                return None
        place = self.files[path], frame.f_lineno
        if place not in self.now:
            self.now.add(place)
            self.calls[frame.f_code] = 0
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.now, start = set(), time.perf_counter()
        self.calls.clear()
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.tests[item.nodeid] = (item, time.perf_counter() - start, self.now)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == 'function':
            return (yield)
        outer, self.now = self.now, set()
        self.calls.clear()
        try:
            return (yield)
        finally:
            self.of_fixture[id(fixturedef)] |= self.now
            self.now |= outer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.bad.add(report.nodeid)

    def report(self, package: Path, code: int) -> dict[str, Any]:
        tests = {}
        for name, (item, seconds, lines) in self.tests.items():
            for fixtures in item._fixtureinfo.name2fixturedefs.values():
                for fixture in fixtures:
                    lines = lines | self.of_fixture.get(id(fixture), set())
            if name not in self.bad:
                by_file = defaultdict(list)
                for file, line in sorted(lines):
                    by_file[file].append(line)
                tests[name] = dict(seconds=round(seconds, 3), lines=by_file)
        return dict(status='measured', tests=tests, bad=sorted(self.bad))


def _is_random(item: pytest.Item) -> bool:
    return getattr(getattr(item, 'obj', None), 'is_hypothesis_test', False)


def _run(package: Path, files: Iterable[str], plugin: _Plugin, limit: float) -> dict[str, Any]:
    """Run test files in a process of their own, with the package in a folder.

    Args:
        package (Path): Folder that holds ``mmsniper``.
        files (Iterable[str]): Test files, from the project's root.
        plugin (_Plugin): What to run, and what to report.
        limit (float): Seconds of computing after which the process is ended; ten times as many
            by the clock, on a machine with other things to do.

    Returns:
        dict[str, Any]: The plugin's report, or one with the status 'timed out' or 'crashed'.
    """
    report, end = package / 'report.json', time.monotonic() + 10 * limit
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 10))
            with open(package / 'log.txt', 'wb') as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(ROOT)
            os.environ['PYTHONPATH'] = os.pathsep.join(
                [str(package), *filter(None, [os.environ.get('PYTHONPATH')])]
            )
            tempfile.tempdir = os.environ['TMPDIR'] = str(package / 'tmp')
            sys.path.insert(0, str(package))
            for name in [n for n in sys.modules if n.partition('.')[0] == 'mmsniper']:
                del sys.modules[name]  # the working tree's
            off = [f'-pno:{name}' for name in ('cacheprovider', 'randomly', 'xdist')]
            code = pytest.main([*off, '-q', '--tb=short', *files], plugins=[plugin])
            report.write_text(json.dumps(plugin.report(package, int(code))), 'utf-8')
        finally:
            os._exit(0)
    try:
        status = None
        while status is None and time.monotonic() < end:
            done, code = os.waitpid(process, os.WNOHANG)
            status = code if done else time.sleep(0.02)
    finally:
        _end_group(process)
        if status is None:
            os.waitpid(process, 0)
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return dict(status='timed out', failed=[], certain=True)
    if report.is_file():
        return json.loads(report.read_text('utf-8'))
    tail = (package / 'log.txt').read_text('utf-8', errors='replace')[-2000:]
    return dict(status='crashed', failed=['a crash'], certain=True, log=tail)


def _end_group(process: int) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def _copy_package(folder: str, mutant: Mutant | None = None) -> Path:
    """Copy the package, with the change of a mutant, and return the folder that holds it."""
    package = Path(folder).resolve()
    (package / 'tmp').mkdir()
    skipped = shutil.ignore_patterns('__pycache__', '.mim')
    shutil.copytree(ROOT / 'mmsniper', package / 'mmsniper', ignore=skipped)
    (package / 'mmsniper' / '.mim').symlink_to(ROOT / 'mmsniper' / '.mim')
    if mutant is not None:
        file = package / mutant.file
        file.write_bytes(mutant.apply(file.read_bytes()))
    return package


def measure(file: str) -> dict[str, Any]:
    """Run a test file with the package as it is.

    Returns:
        dict[str, Any]: ``tests``: for each that passes, the ``seconds`` it takes and the ``lines``
        of each file that it runs; ``bad``: those that fail or are skipped.
    """
    with tempfile.TemporaryDirectory(prefix='mutants-') as folder:
        package = _copy_package(folder)
        return _run(package, [file], _Lines(package), 3600)


def judge(mutant: Mutant, seconds: dict[str, float]) -> dict[str, Any]:
    """Run tests on a mutant until one fails for certain.

    Args:
        mutant (Mutant): The change.
        seconds (dict[str, float]): Tests to run, and how long each takes.

    Returns:
        dict[str, Any]: ``status``, as in this file's docstring, and ``failed``, the tests.
    """
    name = Path(mutant.file).stem
    tests = sorted(seconds, key=lambda test: (name not in _file_of(test), seconds[test]))
    # To collect the tests of a file takes longer than most of them: of one file first.
    first = [test for test in tests if _file_of(test) == _file_of(tests[0])]
    others = [test for test in tests if test not in set(first)]
    limit = 30 + 3 * sum(seconds.values())

    def run(tests: list[str], seed: int | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix='mutants-') as folder:
            package = _copy_package(folder, mutant)
            files = dict.fromkeys(map(_file_of, tests))
            return _run(package, files, _FirstFailure(tests, seed), limit)

    if not tests:
        return dict(status='survived', failed=[], tests=0)
    result = run(first, None)
    if others and not (result['status'] != 'survived' and result['certain']):
        random, result = result['failed'], run(others, None)
        if random and result['status'] == 'survived':
            result = dict(status='killed', failed=random, certain=False)
    doubtful = result['status'] == 'killed' and not result['certain']
    if doubtful and any(run(result['failed'], n)['status'] == 'survived' for n in SEEDS):
        result['status'] = 'by luck'
    return {**result, 'tests': len(tests)}


# ---------------------------------------------------------------------------- what is known


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes() if path.is_file() else b'gone')
    return digest.hexdigest()[:16]


def _test_files(folder: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / 'tests' / folder).rglob('test_*.py'))


def _shared(folder: str) -> list[Path]:
    """What the tests of a folder have in common."""
    return [*(ROOT / 'tests').glob('*.py'), *(ROOT / 'tests' / folder).rglob('conftest.py')]


class Table:
    """Which tests run which lines, kept in a file.

    Args:
        path (Path): The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of_file = json.loads(path.read_text('utf-8')) if path.is_file() else {}

    def stale(self, folders: Iterable[str]) -> list[str]:
        """Test files that have not been measured as they are, with the package as it is."""
        return [
            file
            for folder in sorted(folders)
            for file in _test_files(folder)
            if file not in self.of_file or self.of_file[file]['digest'] != self._digest_of(file)
        ]

    def _digest_of(self, file: str) -> str:
        used = {name for t in self.of_file[file]['tests'].values() for name in t['lines']}
        return _digest(ROOT / file, *_shared(Path(file).parts[1]), *(ROOT / name for name in used))

    def add(self, file: str, measured: dict[str, Any]) -> None:
        """Keep what a test file runs, and write the table."""
        self.of_file[file] = dict(tests=measured['tests'], bad=measured['bad'], digest='')
        self.of_file[file]['digest'] = self._digest_of(file)
        write_text(self.path, json.dumps(self.of_file))

    def tests_of(self, mutant: Mutant) -> dict[str, float]:
        """The tests of the mirrored folder that run the changed lines, and their seconds.

        Tests of defaults, which look at signatures, run none.
        """
        first, last = mutant.span
        folder = Path(mutant.file).parts[1]
        looks = set() if first <= mutant.line <= last else {f'test_{folder}_defaults.py'}
        return {
            name: test['seconds']
            for file in _test_files(folder)
            for name, test in self.of_file[file]['tests'].items()
            if any(first <= line <= last for line in test['lines'].get(mutant.file, ()))
            or Path(file).name in looks
        }


class Results:
    """What became of each mutant, kept in a file, a line for each.

    Args:
        path (Path): The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = {}
        if path.is_file():
            for line in path.read_text('utf-8').splitlines():
                record = json.loads(line)
                self.known[record['key']] = record

    @staticmethod
    def key(mutant: Mutant) -> str:
        """The mutant, in a file as it is now."""
        return f'{_digest(ROOT / mutant.file)} {mutant.file} {mutant.place} {mutant.text}'

    @staticmethod
    def _digest_of_tests(mutant: Mutant) -> str:
        folder = Path(mutant.file).parts[1]
        return _digest(*_shared(folder), *(ROOT / file for file in _test_files(folder)))

    def of(self, mutant: Mutant) -> dict[str, Any] | None:
        """The result, or None where it has to be found out."""
        record = self.known.get(self.key(mutant))
        if record is None or record['status'] in ('killed', 'crashed', 'timed out'):
            return record
        return record if record['digest'] == self._digest_of_tests(mutant) else None

    def add(self, mutant: Mutant, result: dict[str, Any]) -> None:
        """Keep a result, and write it."""
        record = dict(key=self.key(mutant), file=mutant.file, line=mutant.line, **result)
        record |= dict(before=mutant.before, after=mutant.after)
        record |= dict(digest=self._digest_of_tests(mutant))
        self.known[record['key']] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(record) + '\n')


def equivalent_mutants() -> set[tuple[str, str, str]]:
    """(file, before, after) of the mutants that no test can notice."""
    listed = json.loads(EQUIVALENT.read_text('utf-8'))
    return {(entry['file'], entry['before'], entry['after']) for entry in listed}


def summary(sample: list[Mutant], results: Results) -> str:
    """A table of the folders, and the mutants that are left.

    Args:
        sample (list[Mutant]): Those that were to be judged; what has no result does not count.
        results (Results): What became of them.

    Returns:
        str: The text.
    """
    equivalent, counts, left = equivalent_mutants(), defaultdict(Counter), []
    for mutant in sample:
        result, status = results.of(mutant), ''
        if result is None:
            continue
        status = result['status']
        if status in ('survived', 'by luck'):
            if (mutant.file, mutant.before, mutant.after) in equivalent:
                status = 'equivalent'
            else:
                note = status if result.get('tests') else 'survived: no test runs it'
                left.append(f'{mutant}  [{note}]')
        for row in (Path(mutant.file).parts[1], 'all'):
            counts[row][status] += 1
    kinds = ('killed', 'crashed', 'timed out', 'survived', 'by luck', 'equivalent')
    lines = [f'{"":10}' + ''.join(f'{kind:>11}' for kind in (*kinds, 'noticed'))]
    for row in (*FOLDERS, 'all'):
        if count := counts[row]:
            noticed = sum(count[kind] for kind in kinds[:3])
            share = noticed / max(1, count.total() - count['equivalent'])
            cells = ''.join(f'{count[kind]:11}' for kind in kinds)
            lines.append(f'{row:10}{cells}{share:11.1%}')
    return '\n'.join([*lines, '', *sorted(left)])


def _all_mutants(only: str) -> list[Mutant]:
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / 'mmsniper' / folder).rglob('*.py')):
            inside = str(path.relative_to(ROOT / 'mmsniper'))
            if path.name != '__init__.py' and fnmatch.fnmatch(inside, only):
                found += mutants_of(f'mmsniper/{inside}', path.read_bytes())
    if not found:
        raise ValueError(f"no file of {', '.join(FOLDERS)} in mmsniper fits --only '{only}'")
    return found


def _in_parallel(
    jobs: int, work: Callable, tasks: list[tuple], what: str, **options: Any
) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """(task, result) of each task as it is done, in processes forked from this one."""
    with ProcessPoolExecutor(jobs, get_context('fork')) as pool:
        futures = {pool.submit(work, *task): task for task in tasks}
        try:
            for future in progress(as_completed(futures), what, len(tasks), delay=0, **options):
                yield futures[future], future.result()
        finally:  # of an error or a signal
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()


@exit_on_error()
def main(argv: list[str] | None = None) -> None:
    parser = command_parser(__doc__)
    parser.add_argument('--sample', type=at_least(1), default=200, help='number of mutants')
    parser.add_argument('--seed', type=int, default=0, help='which ones')
    help = 'files, by a pattern from the folder mmsniper, such as "chips/*"'
    parser.add_argument('--only', metavar='GLOB', default='*', help=help)
    parser.add_argument('--jobs', type=at_least(1), default=1, help='processes at once')
    out = ROOT / '.cache' / 'mutants.jsonl'
    parser.add_argument('--out', type=Path, default=out, help='file of results, which is gone on')
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    sample = sample_of(_all_mutants(args.only), args.sample, args.seed)
    table, results = Table(args.out.with_suffix('.lines.json')), Results(args.out)
    new = [mutant for mutant in sample if results.of(mutant) is None]
    if new:
        _warm_up()
        stale = [(file,) for file in table.stale({Path(m.file).parts[1] for m in new})]
        what = 'which tests run which lines'
        for (file,), measured in _in_parallel(args.jobs, measure, stale, what, unit=' files'):
            if measured['status'] != 'measured':
                raise ValueError(f'{file}: its tests do not run: {measured}')
            table.add(file, measured)
        todo = [(mutant, table.tests_of(mutant)) for mutant in new]
        for (mutant, _), result in _in_parallel(args.jobs, judge, todo, 'mutants', unit=' mutants'):
            results.add(mutant, result)
    print(summary(sample, results))


if __name__ == '__main__':
    main()
