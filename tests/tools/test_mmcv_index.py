"""The set-up finds the wheels of mmcv that OpenMMLab has built, in an index as theirs."""

import platform
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

# Written by hand in the form of theirs: relative and whole addresses, escaped or not.
PAGE = """<!DOCTYPE html>
<html><body>
<a href="../torch2.1.0/mmcv-2.0.1-cp311-cp311-manylinux1_x86_64.whl">mmcv-2.0.1</a><br>
<a href="mmcv-2.1.0-cp310-cp310-manylinux1_x86_64.whl">mmcv-2.1.0</a><br>
<a href="https://host.invalid/a/mmcv-2.1.0-cp311-cp311-manylinux1_x86_64.whl#sha256=0">m</a><br>
<a href="mmcv-2.1.0-cp38-cp38-win_amd64.whl">mmcv-2.1.0</a><br>
<a href="mmcv_full-1.7.0%2Bcpu-cp311-cp311-linux_x86_64.whl">old</a><br>
<a name="bottom">no link</a>
</body></html>
"""
NEWER = PAGE.replace('2.1.0-cp', '2.2.0-cp')


@pytest.fixture
def index(load_tool):
    return load_tool('dev/mmcv_index')


@pytest.fixture(autouse=True)
def python311(monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 11, 7))
    monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(index, tmp_path, monkeypatch):
    """A folder that is the index; it has wheels for torch 2.1, and newer mmcv for torch 2.2."""
    pages = {('cpu', 1): PAGE, ('cpu', 2): NEWER, ('cu118', 0): PAGE, ('cu118', 1): PAGE}
    pages['cu121', 1] = PAGE
    for (device, minor), text in pages.items():
        folder = tmp_path / device / f'torch2.{minor}.0'
        folder.mkdir(parents=True)
        (folder / 'index.html').write_text(text)
    handler = partial(Quiet, directory=tmp_path)
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        monkeypatch.setattr(index, 'INDEX', address)
        monkeypatch.setenv('no_proxy', '*')
        yield address
        server.shutdown()


def test_the_files_of_a_page_are_what_it_links_to(index):
    assert index.files_of(PAGE) == [
        'mmcv-2.0.1-cp311-cp311-manylinux1_x86_64.whl',
        'mmcv-2.1.0-cp310-cp310-manylinux1_x86_64.whl',
        'mmcv-2.1.0-cp311-cp311-manylinux1_x86_64.whl',
        'mmcv-2.1.0-cp38-cp38-win_amd64.whl',
        'mmcv_full-1.7.0+cpu-cp311-cp311-linux_x86_64.whl',
    ]


@pytest.mark.parametrize(
    ('name', 'does'),
    [
        ('mmcv-2.1.0-cp311-cp311-manylinux1_x86_64.whl', True),
        ('mmcv-2.1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl', True),
        ('mmcv-2.1.0-cp311-cp311-linux_x86_64.whl', True),
        ('mmcv-2.1.0-cp310-cp310-manylinux1_x86_64.whl', False),
        ('mmcv-2.2.0-cp311-cp311-manylinux1_x86_64.whl', False),
        ('mmcv_lite-2.1.0-cp311-cp311-manylinux1_x86_64.whl', False),
        ('mmcv-2.1.0-cp311-cp311-manylinux1_aarch64.whl', False),
        ('mmcv-2.1.0-cp311-cp311-win_amd64.whl', False),
        ('mmcv-2.1.0.tar.gz', False),
        ('', False),
    ],
)
def test_a_wheel_fits_this_python_and_machine(index, name, does):
    assert index.fits(name, 'mmcv==2.1.0') == does


def test_the_page_of_a_torch_is_named_if_it_has_the_wheel(index, served):
    address = f'{served}/cpu/torch2.1.0/index.html'
    assert index.page_with_wheel('mmcv==2.1.0', (2, 1), 'cpu') == address
    assert index.page_with_wheel('mmcv==2.1.0', (2, 2), 'cpu') is None  # 2.2.0 only
    assert index.page_with_wheel('mmcv==2.1.0', (2, 13), 'cpu') is None  # no page


@pytest.mark.parametrize(('gpu', 'device'), [(False, 'cpu'), (True, 'cu121')])
def test_the_newest_torch_with_a_wheel_is_chosen(index, served, gpu, device):
    pair = index.newest_pair('mmcv==2.1.0', gpu)
    assert pair == ((2, 1), device, f'{served}/{device}/torch2.1.0/index.html')


def test_there_may_be_no_torch_with_a_wheel(index, served):
    assert index.newest_pair('mmcv==2.0.9', False) is None


def test_an_index_that_does_not_answer_is_not_an_index_without_wheels(index, served, monkeypatch):
    with ThreadingHTTPServer(('127.0.0.1', 0), Quiet) as server:
        closed = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(index, 'INDEX', closed)
    with pytest.raises(index.IndexUnreachableError, match='cannot be read: .*refused'):
        index.newest_pair('mmcv==2.1.0', False)
