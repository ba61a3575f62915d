#!/usr/bin/env python3
"""Create the virtual environment that `make demo` and `make test` run in.

Only the standard library is used: this is the first thing that runs on a fresh machine. Each step
is skipped if its result is there, so an interrupted set-up goes on where it stopped:

1. the environment itself; one that cannot run pip is made anew;
2. torch;
3. mmcv with its compiled operators: from a wheel where pip or OpenMMLab's index has one that fits,
   else built from source (mmcv_build.py) under `.cache/`, where the finished wheel is kept too;
4. everything else, and mmsniper itself (editable).

What was installed is written to `.mmsniper-setup` in the environment, and compared next time. The
torch that was asked for is read from there, so that it is asked for once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mmcv_build
import mmcv_index

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
OURS = 'core.txt', 'dev.txt', 'geo.txt'
CACHE = ROOT / '.cache'
STAMP = '.mmsniper-setup'
MMCV_STAMP = '.mmcv-fits'
# As TORCH: the newest one that OpenMMLab has a wheel of mmcv for.
PREBUILT = 'prebuilt'


class Stack(NamedTuple):
    """Versions that are tested together; ``TORCH=`` replaces the one of torch."""

    family: str
    constraints: str
    torch: str
    python_below: tuple[int, int] | None = None


STACKS = {
    'official': Stack('official', 'constraints.txt', 'torch==2.13.0'),
    # torch 2.1 has no wheels for Python 3.12.
    'oldest': Stack('official', 'constraints-oldest.txt', 'torch==2.1.2', (3, 12)),
    'onedl': Stack('onedl', 'constraints.txt', 'torch==2.13.0'),
}
MMCV = {'official': 'mmcv', 'onedl': 'onedl-mmcv'}
FAMILY = {
    'official': ('mmengine', 'mmcv', 'mmcv-full', 'mmcv-lite', 'mmdet'),
    'onedl': ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmrotate'),
}
# For the tests of rotated boxes. They have a stand-in for the torchvision of rotated.txt, as to a
# torch for CPUs only pip often finds none that fits.
MMROTATE = {'official': (), 'onedl': ('onedl-mmrotate',)}
# What has to be there before mmcv is built, beside torch.
BUILD_NEEDS = ('setuptools', 'wheel', 'ninja', 'numpy')
# Measured (2.5) without CUDA, whose files come on top, once for each kind of GPU.
BUILD_CPU_MINUTES = 3
WITH_OWN_WHEEL = (
    '  PIP_FIND_LINKS=FOLDER make ...   a wheel that you have, for this Python and torch'
)
WITH_PREBUILT = (
    f'  make setup TORCH={PREBUILT}        the newest torch that OpenMMLab has a wheel for'
)


class SetupError(Exception):
    """Something that the user has to mend; the message says what and how."""


def main() -> int:
    args = parse_args()
    try:
        check_python(STACKS[args.stack])
        with locked(args.venv):
            setup(args.venv, args.stack, args.torch)
    except SetupError as error:
        say(f'set-up failed: {error}')
        return 1
    except subprocess.CalledProcessError as error:
        say(f'set-up failed: {" ".join(map(str, error.cmd))} exited with {error.returncode}; ')
        say('its own words are above. Run the same command again to go on from here.')
        return 1
    except KeyboardInterrupt:
        say('interrupted; run the same command again to go on from here')
        return 130
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv')
    parser.add_argument('--stack', choices=sorted(STACKS), default='official')
    parser.add_argument(
        '--torch',
        default='',
        help=f'requirement of torch, or {PREBUILT}: the newest that OpenMMLab has a wheel of mmcv '
        'for. The default is the one of the last time, and at first that of the stack',
    )
    args = parser.parse_args()
    args.venv = args.venv.absolute()
    return args


def setup(venv: Path, name: str, asked: str) -> None:
    stamp = venv / STAMP
    asked = asked or asked_before(stamp, name)
    key = setup_key(name, asked)
    if stamp.is_file() and stamp.read_text('utf-8') == key and runs(venv, 'import mmsniper'):
        return
    start = time.monotonic()
    stack = STACKS[name]
    if asked == PREBUILT:
        stack = prebuilt_stack(stack)
    elif asked:
        stack = stack._replace(torch=asked)
    say(f'setting up {venv.name}: {name} stack, {stack.torch}')
    make_venv(venv)
    stamp.unlink(missing_ok=True)
    forget_half_installed(venv)
    remove_other_family(venv, stack)
    announced = announce_build(venv, stack)
    say('step 1 of 3: torch (up to a few GB where it comes with CUDA)')
    had_torch = installed_version(venv, 'torch')
    pip(venv, stack, 'install', *shlex.split(stack.torch), *BUILD_NEEDS, quiet=had_torch)
    say(f'step 2 of 3: {MMCV[stack.family]} with its compiled operators, and MMDetection')
    install_stack(venv, stack, announced)
    say('step 3 of 3: mmsniper and what its tests need')
    needed = [part for name in OURS for part in ('-r', REQUIREMENTS / name)]
    pip(venv, stack, 'install', *needed)
    pip(venv, stack, 'install', '--no-deps', '--no-build-isolation', '--editable', ROOT)
    check_imports(venv)
    write_whole(stamp, key)
    say(f'{venv.name} is ready ({minutes(time.monotonic() - start)})')


def setup_key(name: str, asked: str) -> str:
    """What a finished set-up depends on; the same key means that nothing is to be done."""
    digest = hashlib.sha256(STACKS[name].torch.encode())
    for file in [*sorted(REQUIREMENTS.glob('*.txt')), ROOT / 'setup.cfg']:
        digest.update(file.read_bytes())
    parts = [name, asked, platform.python_version(), str(ROOT), f'gpu={gpu_visible()}']
    return '\n'.join([*parts, digest.hexdigest()]) + '\n'


def asked_before(stamp: Path, name: str) -> str:
    """The torch that this stack was set up with on request, or nothing."""
    lines = stamp.read_text('utf-8').splitlines() if stamp.is_file() else []
    return lines[1] if lines[:1] == [name] else ''


def prebuilt_stack(stack: Stack) -> Stack:
    """The newest torch that OpenMMLab has a wheel of mmcv for, and packages that go with it."""
    if stack.family != 'official':
        raise SetupError(f"TORCH={PREBUILT} is for OpenMMLab's own mmcv; leave STACK out")
    requirement = pinned_mmcv(stack)
    here = f'Python {python_name()} on {platform.machine()}'
    otherwise = f'Without TORCH={PREBUILT} mmcv is compiled where pip finds no wheel'
    try:
        pair = mmcv_index.newest_pair(requirement, gpu_visible())
    except mmcv_index.IndexUnreachableError as error:
        raise SetupError(f"OpenMMLab's index: {error}. {otherwise}.") from None
    if pair is None:
        raise SetupError(
            f"OpenMMLab's index has no wheel of {requirement} for {here}. "
            f'Another Python may have one: make setup PYTHON=python3.11 .... {otherwise}.'
        )
    tested = [s for s in STACKS.values() if s.family == stack.family]
    older = [s for s in tested if minor_version(s.torch) <= pair.torch]
    by_torch = sorted(older or tested, key=lambda s: minor_version(s.torch))
    chosen = by_torch[-1 if older else 0]
    if minor_version(chosen.torch) != pair.torch:
        chosen = chosen._replace(torch=f'torch=={pair.torch[0]}.{pair.torch[1]}.*')
    say(
        f'{chosen.torch} is the newest that OpenMMLab has a wheel of {requirement} for ({here}, '
        f'{pair.device}); the versions of other packages are those of {chosen.constraints}'
    )
    return chosen


def minor_version(torch: str) -> tuple[int, int] | None:
    """Major and minor version of a requirement like ``torch==2.13.0``; None if it names none."""
    found = re.match(r'(?:torch==)?(\d+)\.(\d+)', torch)
    return (int(found[1]), int(found[2])) if found else None


def python_name() -> str:
    return f'{sys.version_info[0]}.{sys.version_info[1]}'


def check_python(stack: Stack) -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 (this script may be run by an older one)
        raise SetupError(
            f'python3 is {platform.python_version()}, 3.10 or newer is needed. '
            'Name another one: make PYTHON=python3.11 ...'
        )
    if stack.python_below and sys.version_info[:2] >= stack.python_below:
        raise SetupError(
            f'{stack.torch} has no wheels for Python {platform.python_version()}; 3.10 or 3.11 is '
            'needed. Name one: make PYTHON=python3.11 STACK=oldest ...'
        )


def gpu_visible() -> bool:
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
    return Path('/dev/nvidiactl').exists() and not hidden


@contextlib.contextmanager
def locked(venv: Path) -> Iterator[None]:
    """Let one set-up of this environment run at a time, whoever starts another beside it."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f'{venv.name}.lock', 'wb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f'another set-up of {venv.name} is running; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_venv(venv: Path) -> None:
    """Make the environment, unless it is there with this Python and a working pip."""
    if runs(venv, f'import pip, sys; assert sys.version_info[:2] == {sys.version_info[:2]}'):
        return
    if venv.exists() and any(venv.iterdir()) and not (venv / 'pyvenv.cfg').exists():
        raise SetupError(f'{venv} exists and is no virtual environment; move it away')
    try:
        run(sys.executable, '-m', 'venv', '--clear', venv)
    except subprocess.CalledProcessError:
        raise SetupError(
            f'{sys.executable} cannot make a virtual environment. On Debian and Ubuntu: '
            'apt-get install python3-venv python3-dev'
        ) from None


def forget_half_installed(venv: Path) -> None:
    """Let pip install again what it was interrupted in: it writes RECORD last."""
    packages = next(venv.glob('lib/python*/site-packages'))
    for info in packages.glob('*.dist-info'):
        if not (info / 'RECORD').exists():
            shutil.rmtree(info)
    for leftover in packages.glob('~*'):  # moved aside by an uninstall that did not end
        shutil.rmtree(leftover, ignore_errors=True)


def remove_other_family(venv: Path, stack: Stack) -> None:
    """Uninstall the packages that share this stack's import names, and this stack's with them.

    Both families write the same folders, so removing one leaves holes in the other.
    """
    others = [name for family, names in FAMILY.items() if family != stack.family for name in names]
    if any(installed_version(venv, name) for name in others):
        pip(venv, stack, 'uninstall', '--yes', *others, *FAMILY[stack.family])


def announce_build(venv: Path, stack: Stack) -> bool:
    """Say before gigabytes are downloaded that mmcv will be compiled, if that is known by now."""
    torch = minor_version(stack.torch)
    if torch is None or (venv / MMCV_STAMP).is_file() or pip_has_wheel(venv, stack):
        return False
    requirement = pinned_mmcv(stack)
    kept = CACHE.glob(f'wheels/python{python_name()}-torch{torch[0]}.{torch[1]}.*/*.whl')
    if any(wheel_of(file.parent, requirement) for file in kept):
        return False
    device = mmcv_index.CUDA if gpu_visible() else ('cpu',)
    pages = [openmmlab_page(stack, torch, name) for name in device]
    if any(page for page, _ in pages):
        return False
    say_why(stack, pages[0][1])
    check_cpp(venv)
    return True


def pip_has_wheel(venv: Path, stack: Stack) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        options = ['--no-deps', '--only-binary', MMCV[stack.family], '-d', folder]
        return pip_succeeds(venv, stack, 'download', *options, pinned_mmcv(stack))


def openmmlab_page(
    stack: Stack, torch: tuple[int, int] | None, device: str
) -> tuple[str | None, str]:
    """OpenMMLab's page with a wheel of mmcv for this torch, or None and why there is none."""
    if stack.family != 'official' or torch is None:
        return None, ''
    try:
        page = mmcv_index.page_with_wheel(pinned_mmcv(stack), torch, device)
    except mmcv_index.IndexUnreachableError as error:
        return None, f"OpenMMLab's index: {error}"
    return page, f'OpenMMLab has none for torch {torch[0]}.{torch[1]} and {device}'


def say_why(stack: Stack, reason: str) -> None:
    requirement = pinned_mmcv(stack)
    reasons = '; '.join(filter(None, ['pip finds none', reason]))
    say(
        f'There is no wheel of {requirement} for Python {python_name()} and this torch ({reasons}).'
    )
    jobs, expected = build_time()
    say(
        f'Its operators have to be compiled, once: about {BUILD_CPU_MINUTES} CPU minutes, '
        f'{minutes(expected)} with MAX_JOBS={jobs}'
        + (', longer for the GPU.' if gpu_visible() else '.')
    )
    say('To avoid it, stop here (Ctrl-C) and use')
    say(WITH_OWN_WHEEL)
    if stack.family == 'official':
        say(WITH_PREBUILT)


def build_time() -> tuple[int, float]:
    """How many files are compiled at a time, and about how many seconds all take."""
    cores = len(os.sched_getaffinity(0))
    jobs = int(os.environ.get('MAX_JOBS', cores))
    return jobs, BUILD_CPU_MINUTES * 60 / max(1, min(jobs, cores))


def install_stack(venv: Path, stack: Stack, announced: bool) -> None:
    """Install MMDetection and what it stands on; mmcv from a wheel that fits, or built here."""
    packages = ['-r', REQUIREMENTS / f'{stack.family}.txt', *MMROTATE[stack.family]]
    requirement = pinned_mmcv(stack)
    fits_for = venv / MMCV_STAMP
    variant = mmcv_variant(venv)
    if fits_for.is_file() and fits_for.read_text('utf-8') != variant:
        pip(venv, stack, 'uninstall', '--yes', MMCV[stack.family])
    kept = CACHE / 'wheels' / variant
    wheel = wheel_of(kept, requirement)
    if wheel is None:
        page, reason = openmmlab_page(stack, *torch_and_device(venv))
        if not wheel_found(venv, stack, requirement, packages, page):
            if not announced:
                say_why(stack, 'the one of OpenMMLab does not fit' if page else reason)
            wheel = build_mmcv(venv, stack, requirement, kept)
    if wheel:
        pip(venv, stack, 'install', wheel, *packages)
        if not mmcv_fits(venv, verbose=True):
            wheel.unlink()  # or the next try would take it again
            raise SetupError(f'{wheel.name}, built here, cannot be imported; why is above')
    write_whole(fits_for, variant)


def wheel_of(folder: Path, requirement: str) -> Path | None:
    return next(folder.glob(f'{requirement.replace("-", "_").replace("==", "-")}-*.whl'), None)


def wheel_found(
    venv: Path, stack: Stack, requirement: str, packages: list[object], page: str | None
) -> bool:
    """Install the stack with a wheel of mmcv that somebody else built, if one fits."""
    links = ['--find-links', page] if page else []
    only_wheels = ['--only-binary', MMCV[stack.family]]
    if not pip_succeeds(venv, stack, 'install', *links, *only_wheels, *packages):
        return False
    if mmcv_fits(venv):
        return True
    say(f'the {requirement} that pip found does not fit this torch')
    pip(venv, stack, 'uninstall', '--yes', MMCV[stack.family])
    return False


def pinned_mmcv(stack: Stack) -> str:
    text = (REQUIREMENTS / stack.constraints).read_text('utf-8')
    return re.search(rf'^{MMCV[stack.family]}==\S+', text, re.MULTILINE).group()


def mmcv_fits(venv: Path, verbose: bool = False) -> bool:
    """Whether mmcv's operators load with this torch, and run on the GPU if it sees one."""
    code = (
        'import torch\n'
        'from mmcv.ops import get_compiling_cuda_version, nms, roi_align\n'
        'cpu_only = get_compiling_cuda_version() == "not available"\n'
        'assert not (cpu_only and torch.cuda.is_available()), "mmcv has no CUDA operators"\n'
    )
    return runs(venv, code, verbose)


def mmcv_variant(venv: Path) -> str:
    """Name what a compiled mmcv depends on: Python, torch and whether for CUDA."""
    code = (
        'import sys, torch\n'
        'device = "cuda" if torch.cuda.is_available() else "cpu"\n'
        'print(f"python{sys.version_info[0]}.{sys.version_info[1]}-torch{torch.__version__}", '
        'device, sep="-")'
    )
    return output(venv_python(venv), '-c', code)


def torch_and_device(venv: Path) -> tuple[tuple[int, int] | None, str]:
    """The torch that is installed, and CUDA's version if it sees a GPU, as OpenMMLab names them."""
    code = (
        'import torch\n'
        'cuda = torch.version.cuda if torch.cuda.is_available() else None\n'
        'print(torch.__version__, "cu" + cuda.replace(".", "") if cuda else "cpu")'
    )
    version, device = output(venv_python(venv), '-c', code).split()
    return minor_version(version), device


def build_mmcv(venv: Path, stack: Stack, requirement: str, kept: Path) -> Path:
    """Build mmcv's wheel from source and keep it.

    The source is unpacked under `.cache/` and built in place: what is compiled stays compiled,
    and ninja goes on with the rest after an interruption.
    """
    check_cpp(venv)
    check_cuda(venv)
    jobs, expected = build_time()
    say(f'compiling {requirement}; its wheel will be kept in {kept.relative_to(ROOT)}')
    source = unpack_source(venv, stack, requirement, CACHE / 'build' / kept.name)
    # torch looks for ninja on the PATH.
    path = f'{venv / "bin"}{os.pathsep}{os.environ["PATH"]}'
    env = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(jobs), 'PATH': path}
    fresh = source / 'wheel'
    shutil.rmtree(fresh, ignore_errors=True)
    options = ['-v', '--no-deps', '--no-build-isolation', '--no-cache-dir', '-w', fresh]
    command = pip_command(venv, stack, 'wheel', *options, source)
    try:
        mmcv_build.build(command, source, env, expected)
    except mmcv_build.BuildError as error:
        raise SetupError(f'{requirement} does not compile: {error}') from None
    wheel = next(fresh.glob('*.whl'))
    kept.mkdir(parents=True, exist_ok=True)
    wheel.replace(kept / wheel.name)
    shutil.rmtree(source)
    return kept / wheel.name


def check_cpp(venv: Path) -> None:
    if not shutil.which(os.environ.get('CXX', 'g++')):
        raise SetupError('g++ is needed to compile mmcv. On Debian and Ubuntu: apt-get install g++')
    header = 'import os, sysconfig as s; print(os.path.join(s.get_paths()["include"], "Python.h"))'
    if not Path(output(venv_python(venv), '-c', header)).exists():
        raise SetupError(
            'the C headers of Python are needed to compile mmcv. On Debian and Ubuntu: '
            'apt-get install python3-dev'
        )


def check_cuda(venv: Path) -> None:
    cuda = 'import torch; print(torch.cuda.is_available() and torch.version.cuda or "")'
    version = output(venv_python(venv), '-c', cuda)
    nvcc = os.path.join(os.environ.get('CUDA_HOME', '/usr/local/cuda'), 'bin', 'nvcc')
    if version and not (shutil.which('nvcc') or os.path.exists(nvcc)):
        raise SetupError(
            f'torch sees a GPU, and nvcc, which compiles mmcv for it, is not found. Install the '
            f'CUDA {version} toolkit and set CUDA_HOME, or work on the CPU: '
            'CUDA_VISIBLE_DEVICES= make ...'
        )


def unpack_source(venv: Path, stack: Stack, requirement: str, folder: Path) -> Path:
    """Download mmcv's source archive and unpack it, unless that was done before."""
    source = folder / requirement
    if source.is_dir():
        say('going on with the interrupted build')
        return source
    temporary = folder / 'unpacking'
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    options = ['--no-deps', '--no-build-isolation', '--no-binary', MMCV[stack.family]]
    pip(venv, stack, 'download', *options, '-d', temporary, requirement)
    shutil.unpack_archive(next(temporary.glob('*.tar.gz')), temporary)
    unpacked = next(path for path in temporary.iterdir() if path.is_dir())
    mmcv_build.group_sources(unpacked)
    unpacked.rename(source)
    shutil.rmtree(temporary)
    return source


def check_imports(venv: Path) -> None:
    code = 'import mmsniper, cv2, mmcv.ops, mmdet.apis, mmengine.runner, pycocotools.mask'
    if not runs(venv, code, verbose=True):
        raise SetupError('the packages installed do not work together; the reason is above')


# Helpers --------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def minutes(seconds: float) -> str:
    return f'{seconds / 60:.1f} min'


def write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix('.tmp')
    temporary.write_text(text, 'utf-8')
    temporary.replace(path)


def venv_python(venv: Path) -> Path:
    return venv / 'bin' / 'python'


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def output(*command: object) -> str:
    command = [str(part) for part in command]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def runs(venv: Path, code: str, verbose: bool = False) -> bool:
    """Whether the environment's Python runs `code`; `verbose` prints why it does not."""
    if not venv_python(venv).exists():
        return False
    command = [str(venv_python(venv)), '-c', code]
    done = subprocess.run(
        command, cwd=venv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode and verbose:
        say(done.stdout)
    return done.returncode == 0


def installed_version(venv: Path, name: str) -> str | None:
    code = (
        'import sys\nfrom importlib import metadata\n'
        'try: print(metadata.version(sys.argv[1]))\n'
        'except metadata.PackageNotFoundError: pass\n'
    )
    return output(venv_python(venv), '-c', code, name) or None


def pip_command(venv: Path, stack: Stack, verb: str, *arguments: object) -> list[str]:
    command = [venv_python(venv), '-m', 'pip', '--disable-pip-version-check', verb, *arguments]
    if verb in ('install', 'download', 'wheel'):
        command += ['--constraint', REQUIREMENTS / stack.constraints]
    return [str(part) for part in command]


def pip(venv: Path, stack: Stack, verb: str, *arguments: object, quiet: object = True) -> None:
    run(*pip_command(venv, stack, verb, *(['--quiet'] if quiet else []), *arguments))


def pip_succeeds(venv: Path, stack: Stack, verb: str, *arguments: object) -> bool:
    command = pip_command(venv, stack, verb, '--quiet', *arguments)
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


if __name__ == '__main__':
    sys.exit(main())
