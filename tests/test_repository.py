"""Workflows, templates and the Dockerfile name what exists, and the project's versions."""

import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from mmsniper.version import __version__

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / '.github'
YAML = sorted(GITHUB.rglob('*.yml'))
WORKFLOWS = sorted(GITHUB.glob('workflows/*.yml'))
ACTIONS = sorted(GITHUB.glob('actions/*/action.yml'))
PROSE = [*GITHUB.rglob('*.md'), ROOT / 'CONTRIBUTING.md', ROOT / 'CODE_OF_CONDUCT.md']
DOCKER = ROOT / 'docker' / 'Dockerfile'
MAKEFILE = (ROOT / 'Makefile').read_text()
TARGETS = set(re.findall(r'^([\w-]+):', MAKEFILE, re.M))
VARIABLES = set(re.findall(r'^(\w+) \?=', MAKEFILE, re.M)) | {'PYTEST_ARGS'}


def parsed(file):
    return yaml.safe_load(file.read_text())


def jobs():
    return {(f.stem, name): job for f in WORKFLOWS for name, job in parsed(f)['jobs'].items()}


def of_job(name):
    return pytest.param(jobs()[name], id='-'.join(name))


def matrix(job, key):
    """All values of a key of a job's matrix."""
    given = job.get('strategy', {}).get('matrix', {})
    return [*given.get(key, []), *(row[key] for row in given.get('include', []) if key in row)]


def steps():
    for file in (*WORKFLOWS, *ACTIONS):
        content = parsed(file)
        for part in content.get('jobs', {'': content.get('runs')}).values():
            yield from part['steps']


def test_all_files_are_yaml():
    assert WORKFLOWS
    assert ACTIONS
    assert all(isinstance(parsed(file), dict) for file in YAML)


@pytest.mark.parametrize('file', WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_only_read_and_gives_way_to_a_newer_one(file):
    content = parsed(file)
    assert content['permissions'] == {'contents': 'read'}
    assert {'group', 'cancel-in-progress'} == set(content['concurrency'])
    assert {'push', 'pull_request'} <= set(content[True])  # YAML's `on`
    assert 'secrets' not in file.read_text()


@pytest.mark.parametrize('job', [of_job(name) for name in jobs()])
def test_a_job_ends_and_waits_for_jobs_that_exist(job):
    assert 0 < job['timeout-minutes'] <= 180
    assert job.get('needs') in {None, *(name for _, name in jobs())}


def test_pythons_and_stacks_are_those_of_the_project(load_tool):
    setup = ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    lowest = setup['options']['python_requires'].removeprefix('>=')
    stacks = load_tool('dev/setup_venv').STACKS
    tests = jobs()['test', 'test']['strategy']['matrix']['include']
    assert {row['stack'] for row in tests} == set(stacks)
    for name, stack in stacks.items():
        pythons = [version(row['python']) for row in tests if row['stack'] == name]
        assert all(stack.python_below is None or p < stack.python_below for p in pythons)
    official = [version(row['python']) for row in tests if row['stack'] == 'official']
    assert min(official) == version(lowest)
    assert sorted(matrix(jobs()['test', 'wheel'], 'python')) == sorted(
        row['python'] for row in tests if row['stack'] == 'official'
    )
    named = [
        step['with'].get('python') or step['with'].get('python-version', '')
        for step in steps()
        if 'with' in step
    ]
    assert all(version(name) in official for name in named if re.fullmatch(r'[\d.]+', name))


def version(text):
    return tuple(map(int, text.split('.')))


def test_make_is_asked_for_what_it_has():
    text = '\n'.join(file.read_text() for file in (*YAML, *PROSE))
    text = re.sub(r'\$\{\{.*?\}\}', 'x', text)
    commands = [
        shlex.split(line) for line in re.findall(r'(?:run: |^|`)make ([^\n`#]+)', text, re.M)
    ]
    words = {word for command in commands for word in command}
    targets = {word for word in words if '=' not in word}
    assert {'coverage', 'format', 'lint', 'setup', 'test'} <= targets <= TARGETS
    assert {word.partition('=')[0] for word in words - targets} <= VARIABLES


def test_used_actions_and_hashed_files_exist():
    for step in steps():
        uses = step.get('uses', '')
        if uses.startswith('./'):
            assert (ROOT / uses / 'action.yml').is_file()
        elif uses:
            assert re.fullmatch(r'actions/[\w/-]+@v\d+', uses)
        settings = step.get('with', {})
        patterns = settings.get('cache-dependency-path', '').split()
        patterns += re.findall(r"'([^']+)'", settings.get('key', '').partition('hashFiles')[2])
        assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


def test_forms_have_what_is_asked_for():
    forms = {f.stem: parsed(f) for f in (GITHUB / 'ISSUE_TEMPLATE').glob('*.yml')}
    for link in forms.pop('config')['contact_links']:
        at = re.fullmatch(
            r'https://github.com/mmsniper/mmsniper/(?:tree|blob)/main/(.+)', link['url']
        )
        assert (ROOT / at[1]).exists()
    for form in forms.values():
        assert {'name', 'description', 'body'} <= form.keys()
        ids = [part['id'] for part in form['body']]
        assert len(ids) == len(set(ids))
        assert all(part['attributes']['label'] for part in form['body'])
    bug = {part['id'] for part in forms['bug_report']['body']}
    assert {'command', 'config', 'log', 'versions'} <= bug


def test_named_files_exist():
    text = '\n'.join(file.read_text() for file in (*YAML, *PROSE)).replace('mmsniper/mmsniper', '')
    folders = 'benchmarks|configs|docs|mmsniper|requirements|tests|tools'
    named = set(re.findall(rf'\b((?:{folders})/[\w/.]*\w)', text))
    assert len(named) > 10
    assert [n for n in sorted(named) if 'NAME' not in n and not (ROOT / n).exists()] == []


def test_the_image_has_the_versions_of_a_stack(load_tool):
    text = DOCKER.read_text()
    [pytorch] = re.findall(r'^ARG PYTORCH=(\S+)', text, re.M)
    [constraints] = re.findall(r'PIP_CONSTRAINT=/mmsniper/requirements/(\S+)', text)
    stacks = load_tool('dev/setup_venv').STACKS.values()
    assert (constraints, f'torch=={pytorch}') in {(s.constraints, s.torch) for s in stacks}
    for name in re.findall(r'requirements/\S+\.txt', text):
        assert (ROOT / name).is_file()


def docker_ignores(path):
    """Whether the last line that is about a path, or a folder that it is in, leaves it out."""
    left_out = False
    for line in (DOCKER.parent / 'Dockerfile.dockerignore').read_text().splitlines():
        if line and not line.startswith('#'):
            pattern = re.escape(line.removeprefix('!')).replace(r'\*\*/', '(.+/)?')
            pattern = pattern.replace(r'\*', '[^/]*')
            if re.fullmatch(f'{pattern}(/.+)?', path):
                left_out = not line.startswith('!')
    return left_out


def test_the_image_has_the_files_of_a_clone_and_no_others():
    folders = 'benchmarks', 'configs', 'demo', 'docs', 'mmsniper', 'requirements', 'tests', 'tools'
    named = 'setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'Makefile'
    made = {'__pycache__', 'work_dirs', '.ipynb_checkpoints'}
    files = [path for name in folders for path in (ROOT / name).rglob('*') if path.is_file()]
    paths = [path.relative_to(ROOT) for path in files]
    paths = [*(p.as_posix() for p in paths if not made.intersection(p.parts)), *named]
    assert len(paths) > 500
    assert [path for path in paths if docker_ignores(path)] == []
    for path in (
        '.git/HEAD',
        '.venv-onedl/bin/python',
        'data/a.jpg',
        'demo/work_dirs/a.pth',
        'work_dirs/a/epoch_1.pth',
        'tests/__pycache__/a.pyc',
        'epoch_1.pth',
        '.coverage.a',
    ):
        assert docker_ignores(path), path


def test_what_the_image_can_be_told_is_what_the_page_says():
    page = (ROOT / 'docs' / 'howto' / 'installation.md').read_text()
    said = re.findall(r'--build-arg (\w+)=', page)
    arguments = re.findall(r'^ARG (\w+)', DOCKER.read_text(), re.M)
    assert len(said) > 1
    assert set(said) <= set(arguments)


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == __version__
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    heads = re.findall(r'^## \[(.+)\](?: - \d{4}-\d\d-\d\d)?$', changelog, re.M)
    assert heads[:2] == ['Unreleased', __version__]


def test_no_host_of_packages_is_named():
    files = [*YAML, *PROSE, DOCKER, ROOT / 'Makefile', *ROOT.glob('requirements/*.txt')]
    hosts = r'pypi|pythonhosted|download\.pytorch|docker\.io|ghcr\.io|quay\.io|nvcr\.io|index-url'
    assert [file.name for file in files if re.search(hosts, file.read_text())] == []
