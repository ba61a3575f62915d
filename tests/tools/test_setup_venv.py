"""The set-up takes each stack's own versions, and says which Python it needs."""

import sys

import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('dev/setup_venv')


@pytest.mark.parametrize(
    ('stack', 'constraints'),
    [
        ('official', 'constraints.txt'),
        ('onedl', 'constraints.txt'),
        ('oldest', 'constraints-oldest.txt'),
    ],
)
def test_pip_installs_the_versions_of_the_stack(tool, tmp_path, stack, constraints):
    command = tool.pip_command(tmp_path, tool.STACKS[stack], 'install', 'numpy')
    assert command[-2:] == ['--constraint', str(tool.REQUIREMENTS / constraints)]


@pytest.mark.parametrize(
    ('stack', 'mmcv'),
    [('official', 'mmcv==2.1.0'), ('onedl', 'onedl-mmcv==2.3.6'), ('oldest', 'mmcv==2.1.0')],
)
def test_mmcv_is_that_of_the_stack(tool, stack, mmcv):
    assert tool.pinned_mmcv(tool.STACKS[stack]) == mmcv


@pytest.mark.parametrize(
    ('version', 'refused'),
    [
        ((3, 9), {'official', 'onedl', 'oldest'}),
        ((3, 10), set()),
        ((3, 11), set()),
        ((3, 12), {'oldest'}),
    ],
)
def test_a_python_that_does_not_fit_the_stack_is_refused(tool, monkeypatch, version, refused):
    monkeypatch.setattr(sys, 'version_info', (*version, 1))
    for name, stack in tool.STACKS.items():
        if name in refused:
            with pytest.raises(tool.SetupError, match='make PYTHON=python3.11'):
                tool.check_python(stack)
        else:
            tool.check_python(stack)
