"""What the documentation says is so."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import yaml

from mmsniper.convert import load_config
from mmsniper.engine import NegativeChipHook
from mmsniper.mining import NegativeChipMiner

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/*/*.md')])
PAGES += ROOT.glob('demo/**/*.md')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_links_to_exists(page):
    links = [link for link in re.findall(r'\]\(([^)]+)\)', page.read_text()) if '://' not in link]
    files = [link.partition('#')[0] for link in links]
    assert [file for file in files if file and not (page.parent / file).exists()] == []


def test_the_options_of_the_negative_chip_hook_have_the_defaults_of_the_table():
    text = (ROOT / 'docs' / 'negative_chips.md').read_text()
    rows = re.findall(r'^\| `(\w+)` \| ([^|]+) \|', text, re.M)
    arguments = inspect.signature(NegativeChipHook).parameters.values()
    defaults = {a.name: a.default for a in arguments if a.kind is not a.VAR_KEYWORD}
    defaults |= {field.name: field.default for field in dataclasses.fields(NegativeChipMiner)}
    named = {name for name, _ in rows}
    assert named == set(defaults) - {'num_workers'}
    for name, said in rows:
        if name == 'batch_pixels':
            assert defaults[name] is None
        else:
            assert ast.literal_eval(said.strip().strip('`')) == defaults[name], name


def test_commands_name_tools_that_exist():
    text = ''.join(page.read_text() for page in PAGES)
    tools = set(re.findall(r'\b((?:tools|benchmarks)/[\w/]+\.(?:py|sh))\b', text))
    assert len(tools) > 5
    assert [tool for tool in sorted(tools) if not (ROOT / tool).exists()] == []


@pytest.mark.parametrize('method', ['ablations', 'autofocus', 'sniper', 'snip'])
def test_every_config_of_a_method_is_listed_in_its_readme_and_metafile(method):
    folder = ROOT / 'configs' / method
    names = {path.stem for path in folder.glob('*.py')}
    models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    assert {model['Name'] for model in models} == names
    assert {Path(model['Config']).stem for model in models} == names
    readme = (folder / 'README.md').read_text()
    assert [name for name in sorted(names) if f']({name}.py)' not in readme] == []


def test_the_epochs_of_the_metafile_are_those_of_the_config():
    for metafile in sorted(ROOT.glob('configs/*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text())['Models']:
            if 'Epochs' in model['Metadata']:
                cfg = load_config(ROOT / model['Config'])
                assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs, model['Name']
