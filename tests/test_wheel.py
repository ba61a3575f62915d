"""The wheel works alone, from an empty folder: by mim, and from Python."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from mmsniper.version import __version__

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[1]
# What .gitignore names.
NOT_COPIED = ('.git', '.venv*', '.*cache', '.hypothesis', '*.egg-info', 'build', 'dist', 'site')
NOT_COPIED += ('data', 'work_dirs', 'epoch_*.pth', '*.pkl', '.coverage*', '__pycache__')
TOY = 'faster_rcnn_r18_sniper_toy.py'
# As small as it gets; by --cfg-options, so that mim must find the config by its name.
SMALL = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=9',
    'train_dataloader.batch_size=8',
    'model.test_cfg.rpn.nms_pre=50',
    'model.test_cfg.rpn.max_per_img=20',
    *(
        f'{split}_dataloader.{option}'
        for split in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ),
]
CONFIG = f"""
_base_ = 'mmsniper::sniper/{TOY}'
train_cfg = dict(max_epochs=1, val_interval=9)
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
work_dir = 'api'
"""
PYTHON = """
import json
import sys

import mmsniper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmsniper.apis import SNIPERInferencer
from mmsniper.chips import (
    AnnotationTable, PositiveChipPlanner, ScalePyramid, plan_statistics, suggest_pyramid)
from mmsniper.convert import load_config

cfg = load_config('config.py')
runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
runner.train()
metrics = runner.test()
infer = SNIPERInferencer('config.py', 'api/epoch_1.pth', 'pyramid', device='cpu')
found = infer('work_dirs/toy_data/val')
table = AnnotationTable.from_coco('work_dirs/toy_data/annotations/train.json')
pyramid = ScalePyramid.from_config(cfg.pyramid)
plan = PositiveChipPlanner(table, pyramid).plan()
seen = dict(
    package=mmsniper.__file__,
    metrics=list(metrics),
    images=len(found['images']['images']),
    detections=len(found['detections']),
    coverage=plan_statistics(table, pyramid, plan).coverage,
    levels=suggest_pyramid(table).pyramid.num_levels,
)
with open('seen.json', 'w') as file:
    json.dump(seen, file)
"""


def run(*command, **options):
    """What a command says; a failure shows it."""
    command = [str(part) for part in command]
    options = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) | options
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """The repository as it is cloned: a build in the checkout leaves files, and takes old ones."""
    folder = tmp_path_factory.mktemp('source') / 'mmsniper'
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return folder


@pytest.fixture(scope='module')
def sdist(source):
    """The sdist, unpacked."""
    code = 'from setuptools.build_meta import build_sdist; build_sdist("dist")'
    run(sys.executable, '-c', code, cwd=source)
    [archive] = (source / 'dist').glob('*.tar.gz')
    shutil.unpack_archive(archive, source.parent / 'unpacked', filter='data')
    [folder] = (source.parent / 'unpacked').iterdir()
    return folder


@pytest.fixture(scope='module')
def wheel(sdist):
    """The wheel that is made of the sdist."""
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    run(
        *pip,
        'wheel',
        '--no-deps',
        '--no-build-isolation',
        '--no-index',
        '-w',
        'dist',
        '.',
        cwd=sdist,
    )
    [file] = (sdist / 'dist').glob('*.whl')
    return file


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """Python of an environment that has the wheel and, of the running one, all but mmsniper."""
    folder = tmp_path_factory.mktemp('venv')
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--python', python]
    run(*pip, 'install', '--no-deps', '--no-index', wheel)
    # Of a folder that a .pth file names, the .pth files are not read: no editable install is seen.
    [packages] = folder.glob('lib/python*/site-packages')
    names = {sysconfig.get_path(kind) for kind in ('purelib', 'platlib')}
    (packages / 'others.pth').write_text('\n'.join(sorted(names)))
    return python


@pytest.fixture
def work(python, tmp_path, monkeypatch):
    """Run commands of that environment in a folder that is empty but for the toy data."""
    for name in ('PYTHONPATH', 'PYTHONHOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setenv('PYTHONWARNINGS', 'ignore')
    (tmp_path / 'config.py').write_text(CONFIG)
    [tools] = python.parents[1].glob('lib/python*/site-packages/mmsniper/.mim/tools')
    make = ['--num-train', 4, '--num-val', 2, '--min-side', 200, '--max-side', 240]
    run(python, tools / 'dataset_tools/make_toy_dataset.py', *make, '--processes', 1, cwd=tmp_path)

    def work(*command):
        return run(python, *command, cwd=tmp_path)

    return work


def test_the_sdist_is_the_repository_and_has_no_links(source, sdist):
    def files(folder):
        paths = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
        made = {'dist', 'build', 'mmsniper.egg-info', '__pycache__', 'PKG-INFO'}
        return {str(path) for path in paths if not made & set(path.parts)}

    assert {name for name in files(sdist) if '/.mim/' not in name} == {
        name for name in files(source) if '/.mim/' not in name
    }
    assert not any(path.is_symlink() for path in sdist.rglob('*'))


def test_the_wheel_has_configs_tools_and_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith('/METADATA')]
        metadata = archive.read(metadata).decode()
    mim = {name.removeprefix('mmsniper/.mim/') for name in names if '/.mim/' in name}
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/*.py')} <= mim
    assert {'model-index.yml', 'tools/train.py', 'tools/_launch.py', 'tools/dist_train.sh'} <= mim
    assert 'mmsniper/visualization/report.html' in names
    # The notebook needs no checkout.
    notebook = (ROOT / 'demo' / 'images_to_detector.ipynb').read_text('utf-8')
    bases = re.findall(r'\{BASES\}/([\w/]+\.py)', notebook)
    tools = re.findall(r"run\('([\w/]+\.py)'", notebook)
    assert bases
    assert tools
    assert {f'configs/_base_/{name}' for name in bases} <= mim
    assert {f'tools/{name}' for name in tools} <= mim
    # They need the checkout.
    assert not [name for name in mim if name.startswith(('tools/demo', 'tools/dev/'))]
    assert not [name for name in names if name.startswith(('tests/', 'benchmarks/', 'tools/'))]
    assert 'mmsniper/py.typed' in names  # or a type checker would pass over the package
    for link in ('Project-URL: Documentation, https://', 'Project-URL: Issues, https://'):
        assert link in metadata
    targets = re.findall(r'\]\(([^)]+)\)', metadata)
    assert [target for target in targets if not target.startswith(('https://', '#'))] == []
    assert [
        target for target in targets if target.endswith('/raw/main/docs/images/concepts_chips.jpg')
    ]


def test_by_mim(work, tmp_path):
    pytest.importorskip('mim', reason='openmim is not installed')
    data = 'work_dirs/toy_data'
    work('-m', 'mim', 'train', 'mmsniper', TOY, '--work-dir', 'w', '--cfg-options', *SMALL)
    assert (tmp_path / 'w' / 'epoch_1.pth').is_file()
    checkpoint = ['--checkpoint', 'w/epoch_1.pth', '--work-dir', 't', '--out', 'found.pkl']
    work('-m', 'mim', 'test', 'mmsniper', TOY, *checkpoint, '--cfg-options', *SMALL)
    assert (tmp_path / 'found.pkl').is_file()
    mim_run = ['-m', 'mim', 'run', 'mmsniper']
    images = [f'{data}/val', 'config.py', 'w/epoch_1.pth']
    work(*mim_run, 'infer', *images, '--mode', 'autofocus', '--out-dir', 'out', '--no-pictures')
    assert len(json.loads((tmp_path / 'out' / 'images.json').read_text())['images']) == 2
    work(*mim_run, 'chip_stats', 'config.py', '--out', 'stats.json')
    assert json.loads((tmp_path / 'stats.json').read_text())['images'] == 4
    annotations = f'{data}/annotations/train.json'
    work(*mim_run, 'suggest_pyramid', '--ann-file', annotations, '--out', 'pyramid.py')
    assert 'chip_size' in (tmp_path / 'pyramid.py').read_text()


def test_mim_lists_and_searches(work, python, tmp_path):
    pytest.importorskip('mim', reason='openmim is not installed')
    listed = work('-m', 'mim', 'list')
    assert re.search(rf'^mmsniper +{re.escape(__version__)} ', listed, re.M)

    def search(*options):
        work('-m', 'mim', 'search', 'mmsniper', *options, '--json', 'found.json')
        return json.loads((tmp_path / 'found.json').read_text())

    found = search('--model', 'sniper', '--dataset', 'bccd')
    assert set(found['model'].values()) == {'sniper'}
    assert set(found['training_data'].values()) == {'bccd'}
    assert found['bccd/box_ap']['faster_rcnn_r18_sniper_bccd'] == 57.4
    [mim] = python.parents[1].glob('lib/python*/site-packages/mmsniper/.mim')
    configs = search('--field', 'config')['config']
    assert {mim / path for path in configs.values()} == set(mim.glob('configs/[!_]*/*.py'))
    assert 'tools/serve.py' in work('-m', 'mim', 'run', 'mmsniper', 'serve', '--', '--help')


def test_from_python(work, python, tmp_path):
    work('-c', PYTHON)
    seen = json.loads((tmp_path / 'seen.json').read_text())
    assert Path(seen['package']).is_relative_to(python.parents[1])
    assert 'coco/bbox_mAP' in seen['metrics']
    assert (seen['images'], seen['coverage']) == (2, 1.0)
    assert seen['detections'] > 0
    assert seen['levels'] > 0
