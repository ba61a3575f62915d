"""The set-up takes each stack's own versions, and says what it needs and what it will compile."""

import shutil
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


@pytest.fixture
def index(tool, monkeypatch):
    """The pages of an index: ``index[torch, device] = address``; None in it: it does not answer."""
    pages = {}

    def page_with_wheel(requirement, torch, device):
        assert requirement == 'mmcv==2.1.0'
        if None in pages:
            raise tool.mmcv_index.IndexUnreachableError('PAGE cannot be read: no network')
        return pages.get((torch, device))

    monkeypatch.setattr(tool.mmcv_index, 'page_with_wheel', page_with_wheel)
    return pages


@pytest.fixture
def gpu(tool, monkeypatch):
    monkeypatch.setattr(tool, 'gpu_visible', lambda: True)


@pytest.fixture
def no_gpu(tool, monkeypatch):
    monkeypatch.setattr(tool, 'gpu_visible', lambda: False)


@pytest.mark.parametrize(
    ('torch', 'chosen', 'constraints'),
    [
        ((2, 0), 'torch==2.0.*', 'constraints-oldest.txt'),
        ((2, 1), 'torch==2.1.2', 'constraints-oldest.txt'),  # that of STACK=oldest
        ((2, 4), 'torch==2.4.*', 'constraints-oldest.txt'),
        ((2, 13), 'torch==2.13.0', 'constraints.txt'),
    ],
)
def test_prebuilt_is_the_newest_torch_with_a_wheel_and_what_goes_with_it(
    tool, index, no_gpu, capsys, torch, chosen, constraints
):
    index[(2, 0), 'cpu'] = index[torch, 'cpu'] = 'PAGE'
    stack = tool.prebuilt_stack(tool.STACKS['official'])
    assert (stack.torch, stack.constraints) == (chosen, constraints)
    said = capsys.readouterr().out
    assert said.startswith(f'{chosen} is the newest')
    assert constraints in said


def test_prebuilt_is_one_for_cuda_where_there_is_a_gpu(tool, index, gpu):
    index[(2, 2), 'cpu'] = index[(2, 1), 'cu118'] = 'PAGE'
    assert tool.prebuilt_stack(tool.STACKS['official']).torch == 'torch==2.1.2'


def test_prebuilt_says_what_to_do_where_there_is_none(tool, index, no_gpu):
    with pytest.raises(tool.SetupError, match=r'no wheel of mmcv==2\.1\.0.*PYTHON=python3\.11'):
        tool.prebuilt_stack(tool.STACKS['official'])
    index[None] = None
    with pytest.raises(tool.SetupError, match=r'no network\. Without TORCH=prebuilt mmcv is comp'):
        tool.prebuilt_stack(tool.STACKS['official'])
    with pytest.raises(tool.SetupError, match='leave STACK out'):
        tool.prebuilt_stack(tool.STACKS['onedl'])


def test_the_torch_that_was_asked_for_is_kept(tool, tmp_path):
    stamp = tmp_path / tool.STAMP
    assert tool.asked_before(stamp, 'official') == ''
    stamp.write_text(tool.setup_key('official', 'prebuilt'))
    assert tool.asked_before(stamp, 'official') == 'prebuilt'
    assert tool.asked_before(stamp, 'onedl') == ''
    stamp.write_text(tool.setup_key('official', ''))
    assert tool.asked_before(stamp, 'official') == ''


def test_another_torch_is_another_set_up(tool, monkeypatch):
    keys = {tool.setup_key('official', asked) for asked in ('', 'prebuilt', 'torch==2.11.0')}
    stack = tool.STACKS['official']
    monkeypatch.setitem(tool.STACKS, 'official', stack._replace(torch='torch==2.14.0'))
    assert len({*keys, tool.setup_key('official', '')}) == 4


@pytest.mark.parametrize(
    ('torch', 'minor'),
    [
        ('torch==2.13.0', (2, 13)),
        ('2.1.2+cu121', (2, 1)),
        ('torch==2.4.*', (2, 4)),
        ('torch', None),
        ('torch>=2.0', None),
    ],
)
def test_the_minor_version_of_torch(tool, torch, minor):
    assert tool.minor_version(torch) == minor


@pytest.fixture
def fresh(tool, tmp_path, monkeypatch, no_gpu):
    """An environment that has nothing yet, where pip finds no wheel, and nothing is kept."""
    monkeypatch.setattr(tool, 'CACHE', tmp_path / 'cache')
    monkeypatch.setattr(tool, 'pip_succeeds', lambda *command: False)
    monkeypatch.setattr(tool, 'check_cpp', lambda venv: None)
    return tmp_path


def test_a_build_is_announced_before_torch_is_downloaded(tool, index, fresh, capsys):
    assert tool.announce_build(fresh, tool.STACKS['official'])
    said = capsys.readouterr().out
    for part in (
        'no wheel of mmcv==2.1.0',
        'pip finds none; OpenMMLab has none for torch 2.13 and cpu',
        f'about {tool.BUILD_CPU_MINUTES} CPU minutes, ',
        'make setup TORCH=prebuilt',
        'PIP_FIND_LINKS=FOLDER make',
    ):
        assert part in said


@pytest.mark.parametrize(('jobs', 'minutes'), [('1', 1), ('2', 2), ('100', 4), (None, 4)])
def test_the_time_that_a_build_takes_depends_on_cores_and_jobs(tool, monkeypatch, jobs, minutes):
    monkeypatch.setattr(tool.os, 'sched_getaffinity', lambda pid: range(4))
    monkeypatch.delenv('MAX_JOBS', raising=False)
    if jobs:
        monkeypatch.setenv('MAX_JOBS', jobs)
    assert tool.build_time() == (int(jobs or 4), tool.BUILD_CPU_MINUTES * 60 / minutes)


def test_a_missing_compiler_is_said_before_torch_is_downloaded(tool, index, fresh, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(tool, 'pip_has_wheel', lambda venv, stack: False)
    monkeypatch.setattr(tool, 'openmmlab_page', lambda stack, torch, device: (None, ''))
    monkeypatch.setattr(tool.shutil, 'which', lambda name: None)
    with pytest.raises(tool.SetupError, match=r'g\+\+ is needed'):
        tool.announce_build(fresh, tool.STACKS['official']._replace(torch='torch==2.99.0'))


def test_only_openmmlabs_own_mmcv_is_prebuilt(tool, index, fresh, capsys):
    assert tool.announce_build(fresh, tool.STACKS['onedl'])
    said = capsys.readouterr().out
    assert 'no wheel of onedl-mmcv==2.3.6' in said
    assert 'PIP_FIND_LINKS' in said
    assert 'prebuilt' not in said


def test_it_says_that_the_index_did_not_answer(tool, index, fresh, capsys):
    index[None] = None
    assert tool.announce_build(fresh, tool.STACKS['official'])
    assert (
        "pip finds none; OpenMMLab's index: PAGE cannot be read: no network"
        in capsys.readouterr().out
    )


def test_no_build_is_announced_that_is_not_certain(tool, index, fresh, capsys, monkeypatch):
    official = tool.STACKS['official']
    index[(2, 1), 'cpu'] = 'PAGE'
    assert not tool.announce_build(fresh, tool.STACKS['oldest'])  # OpenMMLab has it
    assert not tool.announce_build(fresh, official._replace(torch='torch'))  # which one will it be?
    kept = tool.CACHE / 'wheels' / f'python{tool.python_name()}-torch2.13.0+cpu-cpu'
    kept.mkdir(parents=True)
    (kept / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl').touch()
    assert not tool.announce_build(fresh, official)
    shutil.rmtree(kept)
    monkeypatch.setattr(tool, 'pip_succeeds', lambda *command: True)
    assert not tool.announce_build(fresh, official)
    assert capsys.readouterr().out == ''


@pytest.fixture
def installed(tool, fresh, monkeypatch):
    """Note what pip installs, in an environment with torch 2.1 on the CPU."""
    commands = []
    monkeypatch.setattr(tool, 'mmcv_variant', lambda venv: 'python3.11-torch2.1.2-cpu')
    monkeypatch.setattr(tool, 'torch_and_device', lambda venv: ((2, 1), 'cpu'))
    monkeypatch.setattr(tool, 'mmcv_fits', lambda venv, verbose=False: True)
    monkeypatch.setattr(tool, 'pip', lambda venv, stack, *command: commands.append(command))

    def succeeds(venv, stack, *command):
        commands.append(command)
        return '--find-links' in command

    monkeypatch.setattr(tool, 'pip_succeeds', succeeds)
    return commands


def test_a_wheel_of_openmmlab_is_taken_where_one_fits(tool, index, installed, fresh, monkeypatch):
    index[(2, 1), 'cpu'] = 'PAGE'
    tool.install_stack(fresh, tool.STACKS['oldest'], announced=False)
    [command] = installed
    assert command[:5] == ('install', '--find-links', 'PAGE', '--only-binary', 'mmcv')


@pytest.mark.parametrize(('stack', 'has'), [('official', False), ('onedl', True)])
def test_the_fork_brings_mmrotate_without_torchvision(
    tool, index, installed, fresh, monkeypatch, stack, has
):
    monkeypatch.setattr(tool, 'build_mmcv', lambda *where: fresh / 'built.whl')
    tool.install_stack(fresh, tool.STACKS[stack], announced=True)
    assert ('onedl-mmrotate' in installed[-1]) == has
    assert 'torchvision' not in installed[-1]
    assert tool.REQUIREMENTS / 'rotated.txt' not in installed[-1]


@pytest.mark.parametrize('announced', [False, True])
def test_else_it_is_built_and_said_once(
    tool, index, installed, fresh, monkeypatch, capsys, announced
):
    monkeypatch.setattr(tool, 'build_mmcv', lambda *where: fresh / 'built.whl')
    tool.install_stack(fresh, tool.STACKS['oldest'], announced)
    assert installed[-1][:2] == ('install', fresh / 'built.whl')
    assert ('TORCH=prebuilt' in capsys.readouterr().out) == (not announced)
