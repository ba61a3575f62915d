"""Why an image could not be loaded: found by looking, nothing is guessed."""

import os
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmsniper.datasets.image_faults import image_fault

NOISE = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)


def written(path, content=NOISE):
    """The path as a string, of a file with these bytes or this picture."""
    if isinstance(content, np.ndarray):
        assert cv2.imwrite(str(path), content)
    else:
        path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'tif', 'webp', 'ppm'])
def test_a_whole_image_has_no_fault(tmp_path, suffix):
    assert image_fault(written(tmp_path / f'a.{suffix}')) == ''


def test_neither_has_a_text_that_is_an_image(tmp_path):
    assert image_fault(written(tmp_path / 'a.ppm', b'P3\n1 1\n255\n1 2 3\n')) == ''


@pytest.mark.parametrize('kept', [0.02, 0.5, 0.95])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp'])
def test_an_image_that_is_cut_short(tmp_path, suffix, kept):
    path = tmp_path / f'a.{suffix}'
    written(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    message = image_fault(path)
    assert 'cut short' in message
    assert message.endswith('download or copy it again, or take it out of the annotation file')


def test_a_damaged_image_that_neither_library_reads(tmp_path):
    path = tmp_path / 'a.tif'
    written(path)
    path.write_bytes(path.read_bytes()[:-300])
    assert image_fault(path).startswith('It is damaged, OpenCV and Pillow cannot decode it (')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'It is empty (0 bytes): download or copy it again'),
        (b'\0' * 5000, 'It begins with 4096 zero bytes'),
        (b'not found', "It is text, not an image, and begins with 'not found'"),
        ('größer'.encode() * 999, 'It is text, not an image'),
        (b'12345' + 'größe'.encode() * 999, 'It is text, not an image'),  # cut within a letter
        (b'abc\xff', 'It begins with the bytes 61 62 63 ff'),
        (b'{"error": 404}', 'It is text, not an image'),
        (b'<!DOCTYPE html><html>', 'It is a web page, such as the error of a server, not an'),
        (b'<?xml version="1.0"?><svg/>', 'It is an XML file, not an image'),
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n',
            'It is a pointer of Git LFS, not an image: fetch it, git lfs pull',
        ),
        (b'RIFF\0\0\0\0AVI LIST', 'It is a video (AVI), not an image: cut it into images first'),
        (b'\0\0\0\x18ftypisom\0\0', 'It is a video (MP4), not an image'),
        (b'\0\0\0\x14ftypqt  \0\0', 'It is a video (QuickTime), not an image'),
        (b'\x1a\x45\xdf\xa3\1\0\0', 'It is a video (Matroska or WebM), not an image'),
        (b'\0\0\0\x18ftypheic\0\0', 'It is a HEIC image, which OpenCV '),
        (b'\0\0\0\x18ftyphevc\0\0', 'It is a HEIC image, which OpenCV '),
        (b'\0\0\0\x18ftypmif1\0\0', 'It is a HEIF image, which OpenCV '),
        (b'\0\0\0\x18ftypmsf1\0\0', 'It is a HEIF image, which OpenCV '),
        (b'\0\0\0\x18ftypavif\0\0', 'It is an AVIF image'),
        (b'\xff\x0a\xfa\x7f\1\0', 'It is a JPEG XL image'),
        (b'\0\0\0\x0cJXL \r\n\x87\n', 'It is a JPEG XL image'),
        (b'v/1\1\2\0\0\0', 'It is an OpenEXR image'),
        (b'8BPS\0\1\0\0', 'It is a Photoshop file, which OpenCV '),
        (b'\0\5\x16\7\0\2\0\0', 'It is what macOS keeps beside a file'),
        (b'PK\3\4\x14\0\0\0', 'It is a ZIP archive, not an image: unpack it'),
        (b'\x12\x99\xff\0', 'It begins with the bytes 12 99 ff 00, as no image that OpenCV '),
    ],
)
def test_a_file_of_another_kind_is_told_by_its_content(tmp_path, content, message):
    assert message in image_fault(written(tmp_path / 'a.jpg', content))


@pytest.mark.parametrize(
    ('variable', 'value', 'said', 'enough'),
    [
        ('PIXELS', '2999', '60x50 px, 3,000 pixels, and OpenCV decodes no more than 2,999', 4096),
        ('PIXELS', '2KB', 'no more than 2,048', 4096),
        ('WIDTH', '59', '60x50 px, a width of 60 pixels, and OpenCV decodes no more than 59', 64),
        ('HEIGHT', '7', 'a height of 50 pixels', 64),
    ],
)
def test_an_image_over_opencvs_limit(tmp_path, monkeypatch, variable, value, said, enough):
    """OpenCV has read its limits when it was loaded; what is told is what it would read."""
    monkeypatch.setenv(f'OPENCV_IO_MAX_IMAGE_{variable}', value)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)  # Pillow's own limit is another matter
    message = image_fault(written(tmp_path / 'a.png'))
    assert said in message
    assert f'OPENCV_IO_MAX_IMAGE_{variable}={enough} python ...' in message
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    ('width', 'height', 'said'),
    [
        (2**15, 2**15 + 1, '1,073,774,592 pixels, and OpenCV decodes no more than 1,073,741,824:'),
        (2**20 + 1, 5, 'a width of 1,048,577 pixels, and OpenCV decodes no more than 1,048,576:'),
        (5, 2**20 + 1, 'a height of 1,048,577 pixels, and OpenCV decodes no more than 1,048,576:'),
    ],
)
def test_opencvs_own_limits(tmp_path, monkeypatch, width, height, said):
    for name in ('PIXELS', 'WIDTH', 'HEIGHT'):
        monkeypatch.delenv(f'OPENCV_IO_MAX_IMAGE_{name}', raising=False)
    path = written(tmp_path / 'a.png')
    content = bytearray(Path(path).read_bytes())
    content[16:24] = struct.pack('>II', width, height)
    content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
    Path(path).write_bytes(content)
    assert said in image_fault(path)


@pytest.mark.parametrize('value', ['3000', '1MB', '', 'many'])
def test_an_image_within_the_limit(tmp_path, monkeypatch, value):
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', value)
    assert image_fault(written(tmp_path / 'a.png')) == ''


def test_a_limit_that_was_lifted_too_late(tmp_path, monkeypatch):
    """OpenCV has read the variable when it was loaded."""
    path = written(tmp_path / 'a.png')

    def imread(*args):
        raise cv2.error('OpenCV: (-215:Assertion failed) pixels <= CV_IO_MAX_IMAGE_PIXELS in ...')

    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '1000000')
    monkeypatch.setattr(cv2, 'imread', imread)
    assert image_fault(path) == (
        'It has 60x50 px, 3,000 pixels, and OpenCV decodes fewer, as it was told when it started: '
        'set the environment variable before the program starts, OPENCV_IO_MAX_IMAGE_PIXELS=4096 '
        'python ...'
    )


def test_what_only_pillow_reads(tmp_path, monkeypatch):
    path = written(tmp_path / 'a.png')
    monkeypatch.setattr(cv2, 'imread', lambda *args: None)
    assert image_fault(path) == (
        f'OpenCV {cv2.__version__} cannot decode this PNG (RGB), but Pillow can: '
        f"LoadImageFromFile(imdecode_backend='pillow')"
    )


@pytest.mark.parametrize('error', [MemoryError, cv2.error])
def test_a_lack_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch, error):
    path = written(tmp_path / 'a.png')

    def imread(*args):
        failure = cv2.error('Insufficient memory')
        failure.code = cv2.Error.StsNoMem if error is cv2.error else 0
        raise failure

    def load(self):
        raise MemoryError

    monkeypatch.setattr(cv2, 'imread', imread)
    monkeypatch.setattr(Image.Image, 'load', load)
    assert image_fault(path) == ''


@pytest.mark.parametrize(
    ('path', 'told'),
    [
        ('data/train/https://example.com/a.png', 'https://example.com/a.png is an address'),
        ('data/http:/example.com/a.png', 'http:/example.com/a.png is an address'),
        ('s3://bucket/a.png', 's3://bucket/a.png is an address'),
        ('data/data:image/png;base64,iVBORw0KGgo', 'data:image/png;base64,iVBORw0KGgo is an'),
    ],
)
def test_an_address_is_no_file(path, told):
    message = image_fault(path)
    assert message.startswith(told)
    assert 'download the images' in message


def test_folders_pipes_and_names_that_cannot_be(tmp_path):
    assert image_fault(tmp_path).startswith('It is a folder, not a file')
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / 'socket'))
        assert image_fault(tmp_path / 'socket') == 'It is a device, pipe or socket, not a file'
    os.mkfifo(tmp_path / 'pipe')
    assert image_fault(tmp_path / 'pipe') == 'It is a device, pipe or socket, not a file'
    assert 'a character that no name can have' in image_fault('a\0.png')


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = written(tmp_path / 'a.png')
    os.chmod(path, 0o200)

    def refuse(*args):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('builtins.open', refuse)
    assert image_fault(path) == (
        f'It may not be read by this user (its permissions are --w-------): chmod a+r {path}'
    )


def test_a_missing_file_is_told_where_it_is_named(tmp_path):
    written(tmp_path / 'a b.png')
    message = image_fault(tmp_path / 'a%20b.png')
    assert message.endswith('Correct it in the annotation file, data_root or data_prefix')
    assert image_fault(tmp_path / 'a%20b.png', 'the command').endswith('it in the command')
