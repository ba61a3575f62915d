"""What command lines share: defaults in the help, errors in one line, bars of progress."""

import argparse
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmsniper.utils.command_line import (
    add_config_arguments,
    add_launcher_arguments,
    at_least,
    command_parser,
    exit_on_error,
    progress,
)


def help_of(*names, **options):
    """The line of the help about one argument."""
    parser = command_parser('What it is for.')
    parser.add_argument(*names, help='number of things, 100%%', **options)
    (line,) = [line for line in parser.format_help().splitlines() if 'number of things' in line]
    return line.partition('number of things, ')[2]


@pytest.mark.parametrize(
    ('default', 'shown'),
    [
        (3, ' [3]'),
        (0, ' [0]'),
        (0.005, ' [0.005]'),
        ('none', ' [none]'),
        ([25, 10], ' [25 10]'),
        (('0', '0.02'), ' [0 0.02]'),
        ('50%', ' [50%]'),
        (Path('/elsewhere/a'), ' [/elsewhere/a]'),
        (Path.cwd() / 'work_dirs' / 'demo', ' [work_dirs/demo]'),
        (None, ''),
        ([], ''),
    ],
)
def test_a_default_is_shown_as_it_would_be_typed(default, shown):
    assert help_of('--number', default=default) == f'100%{shown}'


def test_what_has_no_value_by_default_shows_none():
    assert help_of('--flag', action='store_true') == '100%'
    assert help_of('--no-flag', action='store_false') == '100%'
    assert help_of('--number', required=True, type=int) == '100%'
    assert help_of('number') == '100%'
    assert help_of('number', nargs='?', default='auto') == '100% [auto]'
    assert '-h, --help  show this help message and exit\n' in command_parser('').format_help()


def test_the_description_is_printed_as_it_is_written():
    text = 'First line.\n\n    python tool.py CONFIG\n\nA list:\n- one\n- two'
    assert text in command_parser(text).format_help()


def test_a_config_and_its_settings():
    parser = command_parser('')
    add_config_arguments(parser, 'config with a pyramid')
    args = parser.parse_args(['c.py', '--cfg-options', 'a.b=1', 'c=[2,3]', 'd=x,y'])
    assert (args.config, args.cfg_options) == ('c.py', {'a.b': 1, 'c': [2, 3], 'd': ['x', 'y']})
    assert parser.parse_args(['c.py']).cfg_options is None
    assert 'config with a pyramid' in parser.format_help()


def test_settings_without_a_config():
    parser = command_parser('')
    add_config_arguments(parser, None)
    assert parser.parse_args(['--cfg-options', 'a=1']) == argparse.Namespace(cfg_options={'a': 1})


def test_launchers_name_themselves_and_the_rank():
    parser = command_parser('')
    add_launcher_arguments(parser)
    assert vars(parser.parse_args([])) == dict(launcher='none', local_rank=0)
    for option in ('--local-rank', '--local_rank'):
        args = parser.parse_args(['--launcher', 'pytorch', option, '3'])
        assert vars(args) == dict(launcher='pytorch', local_rank=3)
    assert 'rank' not in parser.format_help()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('0', 'argument --jobs: must be at least 1, got 0'),
        ('-2', 'argument --jobs: must be at least 1, got -2'),
        ('two', "argument --jobs: invalid integer value: 'two'"),
        ('1.5', "argument --jobs: invalid integer value: '1.5'"),
    ],
)
def test_numbers_that_are_too_small_are_refused(capsys, given, message):
    parser = command_parser('')
    parser.add_argument('--jobs', type=at_least(1))
    assert parser.parse_args(['--jobs', '1']).jobs == 1
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args(['--jobs', given])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'error',
    [
        ValueError('no pyramid'),
        FileNotFoundError('no file'),
        FileExistsError('in the way'),
        PermissionError('not yours'),
        SyntaxError('not Python'),
    ],
)
def test_mistakes_of_the_user_end_the_process_with_their_message(error):
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise error
    assert caught.value.code == f'error: {error}'


@pytest.mark.parametrize(
    ('option', 'said'),
    [((), ['other']), (('-W', 'default'), ['pkg_resources', '`torch.cuda.amp.autocast', 'other'])],
)
def test_what_others_are_warned_of_is_left_out_unless_it_is_asked_for(option, said):
    code = (
        'import warnings\n'
        'from mmsniper.utils.command_line import command_parser\n'
        'command_parser("")\n'
        'warnings.warn("pkg_resources is deprecated as an API. See https://...")\n'
        'warnings.warn("`torch.cuda.amp.autocast(args...)` is deprecated.", FutureWarning)\n'
        'warnings.warn("other things are deprecated as an API")'
    )
    done = subprocess.run([sys.executable, *option, '-c', code], capture_output=True, text=True)
    warned = re.findall(r'(?:User|Future)Warning: ([^ (]+)', done.stderr)
    assert warned == said


def test_an_error_is_one_line_on_stderr_and_status_1():
    code = (
        'from mmsniper.utils.command_line import exit_on_error\n'
        '@exit_on_error()\n'
        'def main():\n'
        '    open("none.json")\n'
        'main()'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == "error: [Errno 2] No such file or directory: 'none.json'\n"


def test_other_errors_keep_their_traceback_unless_they_are_named():
    with pytest.raises(RuntimeError), exit_on_error():
        raise RuntimeError('a bug')
    with pytest.raises(SystemExit, match='^error: out of luck$'), exit_on_error(RuntimeError):
        raise RuntimeError('out of luck')


def test_a_decorated_function_may_fail_more_than_once():
    @exit_on_error()
    def half(number):
        """Half of an even number."""
        if number % 2:
            raise ValueError(f'{number} is odd')
        return number // 2

    assert half(4) == 2
    for _ in range(2):
        with pytest.raises(SystemExit, match='error: 3 is odd'):
            half(3)
    assert half.__doc__ == 'Half of an even number.'


class Terminal(io.StringIO):
    def isatty(self):
        return True


def to(stream, monkeypatch):
    """Send stderr to a stream, from within a test: pytest sets its own before each."""
    monkeypatch.setattr(sys, 'stderr', stream)
    return stream


either = pytest.mark.parametrize('stream', [Terminal, io.StringIO])


@either
def test_progress_counts_what_it_goes_through(stream, monkeypatch):
    stderr = to(stream(), monkeypatch)
    assert list(progress(iter('abc'), 'letters', 3, unit=' letters', delay=0)) == ['a', 'b', 'c']
    assert 'letters: 100%' in stderr.getvalue()
    assert '3/3' in stderr.getvalue()


def test_progress_of_pixels_is_told_in_large_units(monkeypatch):
    stderr = to(Terminal(), monkeypatch)
    with progress(what='mining', total=2_000_000, unit='px', unit_scale=True, delay=0) as bar:
        bar.update(2_000_000)
    assert '2.00M/2.00M' in stderr.getvalue()


@either
def test_what_is_done_at_once_shows_no_progress(stream, monkeypatch):
    stderr = to(stream(), monkeypatch)
    list(progress(range(1000), 'images'))
    assert stderr.getvalue() == ''


def test_a_log_file_gets_few_lines_and_a_terminal_many(monkeypatch):
    shown = {}
    for stream in (Terminal, io.StringIO):
        clock = iter(range(10_000))  # each look at it is a second later
        stderr = to(stream(), monkeypatch)
        bar = progress(range(100), 'images', miniters=1)
        bar._time = lambda clock=clock: next(clock)
        bar.start_t = bar.last_print_t = next(clock)
        list(bar)
        shown[stream] = stderr.getvalue().count('images:')
    assert shown[Terminal] > 50
    assert 1 < shown[io.StringIO] < 10


def test_only_the_main_process_shows_progress(monkeypatch):
    stderr = to(Terminal(), monkeypatch)
    monkeypatch.setattr('mmengine.dist.is_main_process', lambda: False)
    import torch  # noqa: F401 (with it there may be several processes)

    assert list(progress(range(3), 'images', delay=0)) == [0, 1, 2]
    assert stderr.getvalue() == ''


def test_torch_is_not_imported_for_it():
    code = (
        'import sys\n'
        'from mmsniper.utils.command_line import command_parser, progress\n'
        'command_parser("").format_help()\n'
        'list(progress([1, 2], "numbers"))\n'
        'assert "torch" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
