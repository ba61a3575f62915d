"""Types that nobody has registered: what is known of them, and what to add to the config."""

import sys

import pytest
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import DefaultScope

import mmsniper
from mmsniper.utils.command_line import exit_on_error, exit_on_unregistered
from mmsniper.utils.registrations import registration_fault


@pytest.fixture(autouse=True)
def _all_registered(monkeypatch):
    monkeypatch.setattr(sys, 'path', [entry for entry in sys.path if entry])  # as of a tool
    register_all_modules()
    mmsniper.register_all_modules()


def fault_of(registry, name):
    with pytest.raises(SystemExit) as info, exit_on_unregistered():
        registry.build(dict(type=name))
    return str(info.value)


def test_a_misspelt_name():
    assert fault_of(TRANSFORMS, 'ChipSamplr') == (
        "error: type='ChipSamplr' is not known as a transform. Did you mean ChipSampler?"
    )
    assert 'Did you mean SNIPERRoIHead' in fault_of(MODELS, 'SniperROIHead')


def test_a_type_in_the_place_of_another_kind():
    assert fault_of(TRANSFORMS, 'ChipDataset').endswith(
        "type='ChipDataset' is not known as a transform, it is a dataset: it is in the wrong place "
        'of the config'
    )


def test_a_config_without_the_scope_of_mmdetection():
    with DefaultScope.overwrite_default_scope('mmengine'):
        fault = fault_of(ROOT_TRANSFORMS, 'ChipSampler')
    assert fault.endswith(
        "in the scope mmengine, but it is in mmdet: write default_scope = 'mmdet' in the config, "
        "or type='mmdet.ChipSampler'"
    )


def test_a_class_of_ones_own_that_was_not_imported(tmp_path, monkeypatch):
    (tmp_path / 'my_transforms.py').write_text('class MyOwnThing:\n    pass\n', 'utf-8')
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'my_transforms.py'
    assert fault_of(TRANSFORMS, 'MyOwnThing').endswith(
        f"{file} has it: add custom_imports = dict(imports=['my_transforms']) to the config, and "
        f'set PYTHONPATH={tmp_path}'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fault_of(TRANSFORMS, 'MyOwnThing').endswith("(imports=['my_transforms']) to the config")
    monkeypatch.setitem(sys.modules, 'my_transforms', object())
    assert 'and was imported: does @TRANSFORMS.register_module() stand above the class?' in (
        fault_of(TRANSFORMS, 'MyOwnThing')
    )


def test_a_class_of_which_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'If it is a class of your own: custom_imports' in fault_of(TRANSFORMS, 'MyOwnThing')


@pytest.fixture
def importing(tmp_path, monkeypatch):
    """The error for a config that imports a module."""
    monkeypatch.chdir(tmp_path)

    def fault(name):
        path = tmp_path / 'config.py'
        path.write_text(f'custom_imports = dict(imports=[{name!r}])', 'utf-8')
        with pytest.raises(SystemExit) as info, exit_on_error():
            Config.fromfile(path)
        return str(info.value)

    return fault


def test_custom_imports_of_no_module(importing, tmp_path):
    assert importing('my_absent_module') == (
        'error: my_absent_module of custom_imports cannot be imported, there is no '
        'my_absent_module in the folders where Python looks: correct its name, or set PYTHONPATH '
        'to the folder that it is in'
    )
    (tmp_path / 'my_absent_module.py').touch()
    assert importing('my_absent_module').endswith(
        f'It is in the current one: set PYTHONPATH={tmp_path}'
    )


def test_custom_imports_of_a_module_that_fails_does_not_blame_the_path(
    importing, tmp_path, monkeypatch
):
    (tmp_path / 'my_failing_module.py').write_text('import a_package_i_lack', 'utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importing('my_failing_module') == (
        'error: my_failing_module of custom_imports cannot be imported: ModuleNotFoundError: No '
        "module named 'a_package_i_lack'"
    )


@pytest.mark.parametrize('error', [KeyError('x'), ImportError('x'), ValueError('x')])
def test_other_errors_are_let_through(error):
    assert registration_fault(error) == ''
    with pytest.raises(type(error)), exit_on_unregistered():
        raise error
