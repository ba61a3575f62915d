"""Versions are checked on import, checkpoints load with weights_only on, gloo without a GPU."""

import os
import pickle
import re
import subprocess
import sys
import warnings
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader, checkpoint, save_checkpoint

from mmsniper.utils.compat import (
    SUPPORTED,
    allow_checkpoint_globals,
    check_versions,
    use_gloo_without_gpu,
)

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = {'torch': '2.13.0+cpu', 'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0'}
OLDEST = {'torch': '2.1.2+cu121', 'mmengine': '0.10.2', 'mmcv': '2.1.0', 'mmdet': '3.3.0'}
ONEDL = {
    'torch': '2.13.0+cu130',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
}


# Versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'installed',
    [
        {},
        OFFICIAL,
        ONEDL,
        OLDEST,
        {**OLDEST, 'torch': '2.5.1+cu121', 'mmengine': '0.10.5'},
        {'torch': '2.6.0rc1'},
        {'torch': '2.6'},
        {**OFFICIAL, 'torch': '2.13.0a0+git123'},
        # Patch releases of the newest and of the oldest.
        {'mmcv': '2.1.0.post1', 'mmengine': '0.10.9', 'torch': '2.13.2'},
        {'mmengine': '0.10.0', 'torch': '2.1.0'},
    ],
)
def test_what_is_tested_together_is_accepted_in_silence(installed):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_versions(installed)


@pytest.mark.parametrize(
    ('name', 'version', 'tested'),
    [
        ('torch', '2.0.1', '2.1.2 to 2.13.0'),
        ('torch', '2.14.0', '2.1.2 to 2.13.0'),
        ('torch', '3.0.0', '2.1.2 to 2.13.0'),
        ('mmengine', '0.9.1', '0.10.2 to 0.10.7'),
        ('mmcv', '2.0.1', '2.1.0'),
        ('mmdet', '3.2.0', '3.3.0'),
        ('mmdet', '3.4.0', '3.3.0'),
    ],
)
def test_a_version_that_is_not_tested_is_warned_of(name, version, tested):
    with pytest.warns(UserWarning, match='not tested') as caught:
        check_versions({**OFFICIAL, name: version})
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith(f'mmsniper is not tested with {name} {version} (tested: {tested}).')


def test_several_versions_that_are_not_tested_give_one_warning():
    with pytest.warns(UserWarning, match='not tested') as caught:
        check_versions({**ONEDL, 'torch': '2.0.0', 'onedl-mmcv': '2.4.0'})
    (warning,) = caught
    listed = 'torch 2.0.0 (tested: 2.1.2 to 2.13.0), onedl-mmcv 2.4.0 (tested: 2.3.6)'
    assert listed in str(warning.message)


def test_the_warning_is_hidden_by_what_it_says_and_comes_from_one_process_of_a_launch():
    code = 'from mmsniper.utils.compat import check_versions; check_versions({"torch": "3.0"})'
    command = [sys.executable, '-c', code]

    def stderr(**env):
        clean = {k: v for k, v in os.environ.items() if k not in ('PYTHONWARNINGS', 'LOCAL_RANK')}
        done = subprocess.run(
            command, env={**clean, **env}, check=True, capture_output=True, text=True
        )
        return done.stderr

    shown = stderr()
    assert shown.count('not tested with torch 3.0') == 1
    variable, value = re.search(r'export (\w+)="(.*)"', shown).groups()
    assert 'not tested with torch 3.0' not in stderr(**{variable: value})
    assert 'not tested with torch 3.0' in stderr(LOCAL_RANK='0')
    assert 'not tested with torch 3.0' not in stderr(LOCAL_RANK='1')


@pytest.mark.parametrize(
    ('name', 'version', 'needed'),
    [
        ('torch', '1.13.1', '>= 2.0'),
        ('mmengine', '0.7.0', '>= 0.7.1, < 1'),
        ('mmengine', '1.0.0', '>= 0.7.1, < 1'),
        ('mmcv', '2.2.0', '>= 2.0.0, < 2.2.0'),
        ('mmcv', '1.7.2', '>= 2.0.0, < 2.2.0'),
        ('mmdet', '2.28.2', '>= 3.0.0'),
    ],
)
def test_a_version_that_cannot_work_is_named_with_its_fix(name, version, needed):
    with pytest.raises(ImportError) as error:
        check_versions({**OFFICIAL, name: version})
    message = str(error.value)
    assert f'needs {name} {needed}; found {name} {version}' in message
    assert f'pip install "{name}=={SUPPORTED[name].newest}"' in message


def test_mixed_families_are_named_and_the_one_of_mmdet_is_kept():
    installed = {'mmengine': '0.10.7', 'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1'}
    with pytest.raises(ImportError) as error:
        check_versions(installed)
    message = str(error.value)
    assert 'mmengine 0.10.7 (official), onedl-mmcv 2.3.6 (onedl)' in message
    assert 'pip uninstall -y mmengine onedl-mmcv onedl-mmdetection' in message
    assert 'pip install "onedl-mmengine==0.10.12" "onedl-mmcv==2.3.6"' in message


@pytest.mark.skipif(not find_spec('pkg_resources'), reason='nothing installed needs it')
def test_the_lack_of_pkg_resources_is_named_with_its_fix(monkeypatch):
    monkeypatch.setattr('mmsniper.utils.compat._installed_versions', lambda: OFFICIAL)
    check_versions()
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    with pytest.raises(ImportError, match='pip install "setuptools<81"'):
        check_versions()


def test_mmdetection_itself_refuses_what_is_refused():
    mmdet = pytest.importorskip('mmdet')
    for name in ('mmengine', 'mmcv'):
        if not hasattr(mmdet, f'{name}_maximum_version'):
            pytest.skip('this MMDetection checks no versions')
        minimum = getattr(mmdet, f'{name}_minimum_version').removesuffix('rc4')
        assert minimum == SUPPORTED[name].min_version
        below = getattr(mmdet, f'{name}_maximum_version')
        assert below.removesuffix('.0.0') == SUPPORTED[name].below


@pytest.mark.parametrize('family', ['official', 'onedl'])
def test_what_can_work_can_be_installed(family):
    text = (ROOT / 'requirements' / f'{family}.txt').read_text()
    required = dict(re.findall(r'^([\w-]+)(>=\S+)$', text, re.MULTILINE))
    expected = {
        name: f'>={item.min_version}' + (f',<{item.below}' if item.below else '')
        for name, item in SUPPORTED.items()
        if item.family in (family, None)
    }
    assert required == expected


@pytest.mark.parametrize(
    ('stack', 'end', 'families'),
    [
        ('official', 'newest', ('official', 'onedl')),
        ('onedl', 'newest', ('official', 'onedl')),
        ('oldest', 'oldest', ('official',)),
    ],
)
def test_what_the_set_up_installs_is_what_is_tested(load_tool, stack, end, families):
    stack = load_tool('dev/setup_venv').STACKS[stack]
    text = (ROOT / 'requirements' / stack.constraints).read_text() + stack.torch
    pins = dict(re.findall(r'^([\w-]+)==(\S+)$', text, re.MULTILINE))
    expected = {
        name: getattr(item, end)
        for name, item in SUPPORTED.items()
        if item.family in (*families, None)
    }
    assert {name: version for name, version in pins.items() if name in SUPPORTED} == expected


def test_the_documentation_says_what_works_and_what_is_tested():
    page = (ROOT / 'docs' / 'howto' / 'installation.md').read_text()
    for name, item in SUPPORTED.items():
        if item.family != 'onedl':
            works = item.min_version + (f', below {item.below}' if item.below else '')
            assert f'| {name} | {works} | {item.oldest} | {item.newest} |' in page


def test_the_chips_need_neither_torch_nor_mmdetection():
    code = (
        'import sys\n'
        'for name in ("torch", "mmengine", "mmcv", "mmdet"): sys.modules[name] = None\n'
        'import mmsniper.chips\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


# Checkpoints -----------------------------------------------------------------------------------


RESTRICTED = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 6)
restricted = pytest.mark.skipif(not RESTRICTED, reason='before torch 2.6 nothing is refused')


@pytest.fixture
def no_globals_allowed():
    """Take away what was allowed so far, and give it back after the test."""
    if not RESTRICTED:
        yield
        return
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


@pytest.fixture
def full_checkpoint(tmp_path):
    """Save what the Runner saves: weights, optimizer, message hub with logs and NumPy values."""
    weight = torch.nn.Parameter(torch.arange(3.0))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    hub = MessageHub('full_checkpoint')
    for loss in (4.0, 2.0):
        hub.update_scalar('train/loss', loss)
    hub.update_scalar('train/count', 3)
    hub.update_info('best_score', np.float64(0.25))
    hub.update_info('numbers', {t: np.ones(2, t) for t in ('bool', 'uint8', 'int32', 'float16')})
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint(
        dict(
            meta=dict(epoch=1, iter=2, seed=7, dataset_meta=dict(palette=[(1, 2, 3)])),
            state_dict=OrderedDict(weight=weight.detach()),
            message_hub=hub.state_dict(),
            optimizer=optimizer.state_dict(),
            param_schedulers=[dict(last_step=1, _last_lr=[np.float32(0.5)])],
        ),
        str(path),
    )
    return str(path)


@restricted
@pytest.mark.usefixtures('no_globals_allowed')
def test_torch_refuses_a_full_checkpoint_by_itself(full_checkpoint):
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer|getattr|_reconstruct'):
        torch.load(full_checkpoint)


@pytest.mark.usefixtures('no_globals_allowed')
def test_a_full_checkpoint_loads_as_torch_loads_by_default(full_checkpoint):
    allow_checkpoint_globals()
    for content in (
        torch.load(full_checkpoint, **(dict(weights_only=True) if RESTRICTED else {})),
        CheckpointLoader.load_checkpoint(full_checkpoint, 'cpu'),
    ):
        scalars = content['message_hub']['log_scalars']
        info = content['message_hub']['runtime_info']
        assert isinstance(scalars['train/loss'], HistoryBuffer)
        assert scalars['train/loss'].mean() == 3.0
        assert scalars['train/count'].statistics('max') == 3
        assert info['best_score'] == 0.25
        assert info['numbers']['uint8'].dtype == np.uint8
        assert info['numbers']['float16'].tolist() == [1.0, 1.0]
        assert content['optimizer']['state'][0]['step'] == 1
        assert content['param_schedulers'][0]['_last_lr'] == [0.5]
        assert content['meta']['seed'] == 7


@pytest.mark.parametrize('version', ['2.0.1+cu118', '2.3.1', '2.5.1'])
def test_an_older_torch_is_given_no_list(monkeypatch, version):
    # It is not there before torch 2.4, and takes no pairs before 2.6.
    monkeypatch.delattr(torch.serialization, 'add_safe_globals', raising=False)
    monkeypatch.setattr(torch, '__version__', version)
    allow_checkpoint_globals()


@restricted
@pytest.mark.usefixtures('no_globals_allowed')
@pytest.mark.parametrize('core', ['core', '_core'])
def test_a_checkpoint_saved_with_either_numpy_loads(tmp_path, core):
    allow_checkpoint_globals()
    path = tmp_path / 'scalar.pth'
    torch.save({'score': np.float64(0.5)}, path)
    # NumPy 1 calls the module numpy.core.multiarray, NumPy 2 numpy._core.multiarray.
    rename_in_pickle(path, b'numpy._core.multiarray', f'numpy.{core}.multiarray'.encode())
    assert torch.load(path)['score'] == 0.5


class RunsCode:
    """Pickled as a call, which unpickling makes."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@restricted
@pytest.mark.usefixtures('no_globals_allowed')
@pytest.mark.parametrize('harm', ['call', 'attribute', 'private'])
def test_a_checkpoint_cannot_run_code(tmp_path, monkeypatch, harm):
    # The fork's answer to a refusal: load again with the safety off.
    monkeypatch.setattr(checkpoint, '_safe_torch_load', load_unsafely, raising=False)
    allow_checkpoint_globals()
    touched = tmp_path / 'touched'
    harmful = {
        'call': RunsCode(os.mkdir, str(touched)),
        'attribute': RunsCode(getattr, np.ndarray, 'mean'),
        'private': RunsCode(getattr, HistoryBuffer, '__init__'),
    }[harm]
    path = tmp_path / 'harmful.pth'
    torch.save({'meta': harmful}, path)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert not touched.exists()
    assert checkpoint._safe_torch_load is torch.load


def load_unsafely(file, map_location=None):
    return torch.load(file, map_location, weights_only=False)


def rename_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Rewrite a checkpoint (a zip archive with one pickle) with ``old`` replaced by ``new``."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in files.items():
            archive.writestr(name, data.replace(old, new) if name.endswith('.pkl') else data)


# Processes without a GPU -----------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr('mmengine.device.get_device', lambda: 'cpu')
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures('no_gpu')
def test_one_process_is_left_alone():
    cfg = Config(dict(launcher='none'))
    use_gloo_without_gpu(cfg)
    assert 'model_wrapper_cfg' not in cfg
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures('no_gpu')
@pytest.mark.parametrize(
    ('launcher', 'message'), [('slurm', "'slurm' needs a GPU"), ('pytorch', 'torchrun sets')]
)
def test_a_launch_that_cannot_work_says_how_to_launch(launcher, message):
    with pytest.raises(RuntimeError, match=message) as error:
        use_gloo_without_gpu(Config(dict(launcher=launcher)))
    assert 'tools/dist_train.sh CONFIG N' in str(error.value)


def test_a_gpu_is_left_to_mmengine(monkeypatch):
    monkeypatch.setattr('mmengine.device.get_device', lambda: 'cuda')
    cfg = Config(dict(launcher='pytorch'))
    use_gloo_without_gpu(cfg)
    assert 'model_wrapper_cfg' not in cfg
