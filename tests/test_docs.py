"""What the documentation says is so."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import yaml
from mmrotate_ready import lacks_mmrotate

from mmsniper.convert import load_config
from mmsniper.engine import NegativeChipHook
from mmsniper.mining import NegativeChipMiner

ROOT = Path(__file__).resolve().parents[1]
METAFILES = sorted(ROOT.glob('configs/*/metafile.yml'))
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


@pytest.mark.parametrize('method', ['ablations', 'autofocus', 'baselines', 'sniper', 'snip'])
def test_every_config_of_a_method_is_listed_in_its_readme_and_metafile(method):
    folder = ROOT / 'configs' / method
    names = {path.stem for path in folder.glob('*.py')}
    models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    assert {model['Name'] for model in models} == names
    assert {Path(model['Config']).stem for model in models} == names
    readme = (folder / 'README.md').read_text()
    assert [name for name in sorted(names) if f']({name}.py)' not in readme] == []


def models_of_the_metafiles():
    """The models that model-index.yml leads to."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert index == sorted(path.relative_to(ROOT).as_posix() for path in METAFILES)
    for file in METAFILES:
        yield from yaml.safe_load(file.read_text())['Models']


def test_the_epochs_of_the_metafile_are_those_of_the_config_or_of_what_was_measured():
    for model in models_of_the_metafiles():
        file = ROOT / model['Config']
        measured = 'Epochs' not in model['Metadata'] or 'Results' in model
        if not measured and not lacks_mmrotate(file):
            cfg = load_config(file)
            assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs, model['Name']


def test_the_results_of_the_metafiles_are_those_that_were_measured(load_tool):
    tool = load_tool('dev/metafile_results')
    for file in METAFILES:
        text = file.read_text()
        assert tool.updated(text) == text, 'run tools/dev/metafile_results.py'
    models = {model['Name']: model for model in models_of_the_metafiles()}
    assert {name for name, model in models.items() if 'Results' in model} == set(tool.MEASURED)
    for name, measured in tool.MEASURED.items():
        assert measured.configs == {models[name]['Config']}
    # As in docs/benchmarks.md.
    sniper = models['faster_rcnn_r18_sniper_bccd']
    assert sniper['Results'][0]['Metrics'] == {'box AP': 57.4}
    assert sniper['Metadata'] == {
        'Training Data': 'BCCD',
        'Epochs': 8,
        'Training Megapixels': 294,
        'Seeds': 3,
    }
    autofocus = models['faster_rcnn_r18_autofocus_toy']
    assert autofocus['Results'][0]['Metrics'] == {'box AP': 86.5}  # of 0.8733 and 0.8576


def test_what_was_not_measured_has_no_results(load_tool):
    tool = load_tool('dev/metafile_results')
    results = [dict(Task='Object Detection', Dataset='COCO', Metrics={'box AP': 99.0})]
    model = dict(Name='x', Metadata={'Epochs': 12, 'Training Data': 'COCO'})
    claimed = dict(model, Metadata={**model['Metadata'], 'Seeds': 3}, Results=results)
    assert tool.with_results(claimed) == model
