"""What the pages show can be typed in: commands parse, configs load, names exist.

Nothing is trained here, and nothing installed: programs are stand-ins that note their arguments.
docs/own_data.md is typed in for good, in test_own_data.py.
"""

import ast
import builtins
import inspect
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from mmdet.registry import DATA_SAMPLERS
from mmrotate_ready import NO_MMROTATE

from mmsniper.chips import ScalePyramid
from mmsniper.convert import load_config
from mmsniper.datasets.wrappers import class_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob('docs/**/*.md'))
NAMES = [str(page.relative_to(ROOT / 'docs')) for page in PAGES]
PROGRAMS = (
    *('python', 'srun', 'make', 'mim', 'pip', 'docker'),
    *('gdal_translate', 'curl', 'jupyter'),
)
SEARCHED = ('--config', '--dataset', '--model')
# Of which only the start of the words is looked at.
PIP_INSTALLS = (
    r'(-e|--no-deps|--wheel-dir|dist|\.|rasterio|zarr|tifffile|imagecodecs|jupyterlab'
    r'|onedl-mm\w+|torchvision)'
)
MINE = """
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'configs/_base_/sniper.py',
    'my_pyramid.py',
]
data_root = 'data/mine/'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.json'))
val_dataloader = test_dataloader = dict(dataset=dict(data_root=data_root, ann_file='val.json'))
val_evaluator = test_evaluator = dict(ann_file=data_root + 'val.json')
custom_hooks = []
"""
BY_HAND = """
_base_ = 'configs/sniper/faster_rcnn_r101_sniper.py'
custom_hooks = [hook for hook in _base_.custom_hooks if hook.type != 'NegativeChipHook']
"""
# What the pages leave to the reader.
OPEN = {'np', 'open_slide'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The project's folder as the pages assume it."""
    folder = tmp_path_factory.mktemp('project')
    for name in ('configs', 'tools', 'benchmarks'):
        (folder / name).symlink_to(ROOT / name)
    suggested = (ROOT / 'configs/_base_/pyramids/hituav.py').read_text()
    (folder / 'my_pyramid.py').write_text(suggested)
    (folder / 'my_detector.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'"
    )
    (folder / 'my_config.py').write_text(MINE)
    (folder / 'my_sniper.py').write_text(MINE)
    (folder / 'my_ideas.py').write_text(blocks(ROOT / 'docs/howto/own_ideas.md', 'python')[0])
    # Of MMDetection's projects, whose code is in no package.
    theirs = folder / 'projects/CO-DETR/configs/codino/co_dino_5scale_r50_8xb2_1x_coco.py'
    theirs.parent.mkdir(parents=True)
    theirs.write_text("_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'")
    activate = folder / '.venv' / 'bin' / 'activate'
    activate.parent.mkdir(parents=True)
    activate.touch()
    (folder / 'bin').mkdir()
    for name in PROGRAMS:
        program = folder / 'bin' / name
        program.write_text(
            f'#!/bin/sh\n{{ printf "%s\\0" {name} "$@"; printf "\\n"; }} >> "$NOTED"\n'
        )
        program.chmod(0o755)
    return folder


def blocks(page, language):
    """The blocks of code of a page, also those in lists."""
    found = re.findall(rf'^( *)```{language}\n(.*?)^ *```', page.read_text(), re.M | re.S)
    return [re.sub(rf'^{indent}', '', text, flags=re.M) for indent, text in found]


def needs_mmrotate(page):
    if NO_MMROTATE and 'mmrotate::' in page.read_text():
        pytest.skip(NO_MMROTATE)


def commands_of(page, folder):
    """The words of each program that the page's commands start, as a shell takes them apart."""
    noted = folder / f'{page.stem}.txt'
    noted.unlink(missing_ok=True)
    noted.touch()
    env = {
        'PATH': f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'PYTHON': str(folder / 'bin' / 'python'),
        'NOTED': str(noted),
    }
    for text in blocks(page, 'bash'):
        done = subprocess.run(
            ['bash', '-euc', text], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f'{text}\n{done.stderr}'
    return [line.split('\0')[:-1] for line in noted.read_text().splitlines()]


@pytest.mark.parametrize('name', NAMES)
def test_the_commands_of_a_page_have_the_options_that_they_are_given(
    name, folder, load_tool, monkeypatch, capsys
):
    page = ROOT / 'docs' / name
    needs_mmrotate(page)
    monkeypatch.chdir(folder)
    for program, *words in commands_of(page, folder):
        said = ' '.join([program, *words])
        if program == 'make':
            targets = re.search(r'^\.PHONY: (.*)', (ROOT / 'Makefile').read_text(), re.M)[1].split()
            assert [w for w in words if '=' not in w and w not in targets] == [], said
        elif program == 'pip':
            assert words[0] in ('install', 'wheel'), said
            assert [word for word in words[1:] if not re.match(PIP_INSTALLS, word)] == [], said
        elif program == 'jupyter':
            assert (ROOT / words[-1]).is_file(), said
        elif program == 'mim':
            command, package, item = words[:3]
            assert package == 'mmsniper', said
            if command == 'search':
                pairs = zip(words[2:], words[3:])
                asked = {value for key, value in pairs if key in SEARCHED}
                assert asked, said
                assert asked <= searched_names(), said
                continue
            where = 'tools/**/{}.py' if command == 'run' else 'configs/**/{}'
            assert list(ROOT.glob(where.format(item))), said
        elif program == 'docker':
            check_docker(words)
        elif words[:1] == ['-c']:
            compile(words[1], name, 'exec')
        elif program in ('python', 'srun'):
            script = next(i for i, word in enumerate(words) if word.endswith('.py'))
            path = Path(words[script])
            assert (folder / path).is_file(), said
            tool = Path(os.path.relpath(folder / path, folder / 'tools'))
            if tool.parts[0] == '..':
                continue  # benchmarks
            module = load_tool(str(tool.with_suffix('')))
            try:
                args = module.parse_args(words[script + 1 :])
            except SystemExit:
                pytest.fail(f'{said}\n{capsys.readouterr().err}')
            config = getattr(args, 'config', None)
            if config is None or config.isupper():  # CONFIG
                continue
            load_config(config, getattr(args, 'cfg_options', None))


def check_docker(words):
    """The file is there, and folders of the image are those of the file."""
    file = ROOT / 'docker' / 'Dockerfile'
    text = file.read_text()
    if words[0] == 'build':
        assert ROOT / words[words.index('--file') + 1] == file
    for word in words:
        if ':/' in word:
            assert re.search(rf'^WORKDIR {Path(word.partition(":")[2]).parent}$', text, re.M), word


@pytest.mark.parametrize('name', NAMES)
def test_the_configs_of_a_page_load(name, folder, monkeypatch):
    needs_mmrotate(ROOT / 'docs' / name)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for number, text in enumerate(blocks(ROOT / 'docs' / name, 'python')):
        tree = ast.parse(text)
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
            continue
        path = folder / f'{name.replace("/", "_")}_{number}.py'
        is_whole = re.search('^_base_ =', text, re.M)
        # The fragment makes the sampler: only a config that spells it out can say more of it.
        by_hand = re.search(r'^train_dataloader = dict\(sampler=', text, re.M)
        known = BY_HAND if by_hand else "_base_ = 'my_config.py'\n"
        known += 'pyramid = _base_.pyramid\n'
        path.write_text(text if is_whole else known + text)
        cfg = load_config(path)
        sampler = cfg.train_dataloader.sampler
        assert 'ChipAwareSampler' in class_names(sampler, DATA_SAMPLERS)
        assert ScalePyramid.from_config(sampler.pyramid)


@pytest.mark.parametrize('name', NAMES)
def test_the_programs_of_a_page_use_names_that_exist(name):
    for text in blocks(ROOT / 'docs' / name, 'python'):
        tree = ast.parse(text)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        if not imports:
            continue
        known = {}
        exec(compile(ast.Module(imports, []), name, 'exec'), known)
        if set(known) - {'__builtins__', 'np'} <= chips_names():
            exec(compile(tree, name, 'exec'), known)
            continue
        check_names(tree, known)


def searched_names():
    """What `mim search` knows, in lower case as it is there."""
    models = [
        model
        for file in ROOT.glob('configs/*/metafile.yml')
        for model in yaml.safe_load(file.read_text())['Models']
    ]
    names = [name for m in models for name in (m['Name'], m['In Collection'])]
    return {name.lower() for name in names + [m['Metadata']['Training Data'] for m in models]}


def chips_names():
    import mmsniper.chips

    return set(mmsniper.chips.__all__)


def check_names(tree, known):
    """Names are imported, built in or made on the page; what is called has those arguments."""
    nodes = list(ast.walk(tree))
    made = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    made |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert used - made - set(known) - set(dir(builtins)) <= OPEN
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            named = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(known[node.func.id]).bind(*node.args, **named)


def test_pictures_of_hit_uav_are_credited():
    """HIT-UAV's licence asks for it wherever its images are."""
    for page in PAGES:
        text = page.read_text()
        if re.search(r'images/(concepts|hituav)_', text):
            assert 'HIT-UAV' in text
            assert 'CC BY 4.0' in text


def test_the_pictures_of_the_concepts_are_small():
    sizes = [file.stat().st_size for file in ROOT.glob('docs/images/concepts_*')]
    assert len(sizes) == 4
    assert max(sizes) < 300_000
