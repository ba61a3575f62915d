"""The picture in docs/architecture.md is the code: imports run downward, in no circle."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmsniper'
PAGE = (ROOT / 'docs' / 'architecture.md').read_text()
FILES = sorted(PACKAGE.rglob('*.py'))


def module_of(file):
    return '.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


MODULES = set(map(module_of, FILES))

# From the ground up. What is on one floor does not import its neighbours.
FLOORS = [
    ['utils'],
    ['chips'],
    ['datasets'],
    ['models', 'visualization'],
    ['convert', 'mining'],
    ['checks'],
    ['engine'],
    ['apis', 'testing'],
]
FLOOR_OF = {folder: i for i, floor in enumerate(FLOORS) for folder in floor}


def imports_of(file):
    """The modules of ours that a file imports when it is imported."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmsniper'):
            for alias in node.names:
                below = f'{node.module}.{alias.name}'
                yield below if below in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)


def folder_of(module):
    """The folder of a module; '' for the package's own files."""
    parts = module.split('.')
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ''


# Not the package's own files, which bring the floors together.
ON_A_FLOOR = [file for file in FILES if folder_of(module_of(file))]


@pytest.mark.parametrize('file', ON_A_FLOOR, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downward(file):
    mine = folder_of(module_of(file))
    upward = [
        module
        for module in imports_of(file)
        if (theirs := folder_of(module)) not in ('', mine) and FLOOR_OF[theirs] >= FLOOR_OF[mine]
    ]
    assert upward == []


def test_no_imports_run_in_circles():
    graph = {}
    for file in FILES:
        module = module_of(file)
        # A package's __init__ collects what its files define; they name one another.
        if file.name != '__init__.py':
            graph[module] = set(imports_of(file)) - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_nothing_imports_the_private_names_of_another_file():
    private = [
        f'{file.relative_to(PACKAGE)}: {node.module}.{alias.name}'
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmsniper')
        for alias in node.names
        if alias.name.startswith('_')
    ]
    assert private in ([], ['__init__.py: mmsniper.version.__version__'])


def test_every_folder_is_in_the_picture_and_every_file_on_the_page():
    picture = PAGE.partition('```')[2].partition('```')[0]
    folders = {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').is_file()}
    assert folders == set(FLOOR_OF) == set(re.findall(r'mmsniper/(\w+)/', picture))
    named = set(re.findall(r'`([\w/]+\.py)`', PAGE))
    unnamed = [f.name for f in FILES if f.name != '__init__.py' and f.parent != PACKAGE]
    assert [name for name in unnamed if name not in {Path(n).name for n in named}] == []


def test_a_folder_is_described_file_by_file_once():
    for row in re.findall(r'^\| `\w+/` \| .*', PAGE, re.M):
        named = re.findall(r'`([\w/]+\.py)`', row)
        assert [name for name in set(named) if named.count(name) > 1] == []


def test_no_file_has_the_name_of_what_its_package_offers():
    # `import mmsniper.chips.NAME` would be a function, and the API's page lacks it.
    for file in PACKAGE.rglob('__init__.py'):
        offered = re.findall(r"'(\w+)'", file.read_text().partition('__all__')[2])
        assert [name for name in offered if (file.parent / f'{name}.py').is_file()] == []


def test_each_way_has_at_most_six_steps_and_names_files_that_exist():
    ways = re.split(
        r'^### ', PAGE.partition('## The four ways')[2].partition('\n## ')[0], flags=re.M
    )
    assert len(ways[1:]) == 4
    for way in ways[1:]:
        steps = re.findall(r'^(\d)\. (.*(?:\n   .*)*)', way, re.M)
        assert 3 <= len(steps) <= 6
        for _, text in steps:
            files = re.findall(r'`((?:mmsniper|configs)/[\w/]+\.py)`', text)
            assert files, text
            assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_core_needs_numpy_and_scipy_only():
    allowed = {'numpy', 'scipy', 'mmsniper'}
    for file in sorted((PACKAGE / 'chips').glob('*.py')):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            tops = {name.partition('.')[0] for name in names if name}
            assert tops <= allowed | set(sys.stdlib_module_names), file.name
