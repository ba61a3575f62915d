"""Why an image file could not be loaded: what is found when one looks at it."""

from __future__ import annotations

import os
import re
import stat
import sys
import warnings
from collections.abc import Sequence

import cv2
from PIL import Image

from mmsniper.utils.image_header import any_size
from mmsniper.utils.missing_files import GIT_LFS, missing_file

ANNOTATIONS = 'the annotation file'

APPLE_DOUBLE = b'\0\5\x16\7'
"""How files begin that macOS keeps beside others."""

# Of the beginning and of the end of a file, so many bytes are looked at.
_LOOKED_AT = 4096
_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'

# An address in place of a file, possibly behind the folder that data sets put before it.
_ADDRESS = re.compile(r'(?:^|[/\\])((?:https?|ftp|s3|gs|az|hdfs|oss):/|data:image/)', re.IGNORECASE)

_CONVERT = 'convert it to PNG or JPEG'
_FETCH = 'download or copy it again'
_FRAMES = 'cut it into images first, such as with: ffmpeg -i {name} folder/%06d.png'

# What is no image, and what to do about it: (position, bytes, what, remedy).
_NO_IMAGES = (
    (0, GIT_LFS, 'a pointer of Git LFS', 'fetch it, git lfs pull'),
    (0, b'/annex/objects/', 'a pointer of git-annex', 'fetch it, git annex get'),
    (0, APPLE_DOUBLE, 'what macOS keeps beside a file (AppleDouble)', 'delete it'),
    (8, b'AVI ', 'a video (AVI)', _FRAMES),
    (0, b'\x1a\x45\xdf\xa3', 'a video (Matroska or WebM)', _FRAMES),
    (0, b'\0\0\1\xba', 'a video (MPEG)', _FRAMES),
    (0, b'\0\0\1\xb3', 'a video (MPEG)', _FRAMES),
    (0, b'FLV\1', 'a video (Flash)', _FRAMES),
    (0, b'\x30\x26\xb2\x75\x8e\x66\xcf\x11', 'a video (WMV)', _FRAMES),
    (4, b'ftypisom', 'a video (MP4)', _FRAMES),
    (4, b'ftypiso2', 'a video (MP4)', _FRAMES),
    (4, b'ftypmp4', 'a video (MP4)', _FRAMES),
    (4, b'ftypM4V', 'a video (MP4)', _FRAMES),
    (4, b'ftypqt', 'a video (QuickTime)', _FRAMES),
    (4, b'ftyp3gp', 'a video (3GP)', _FRAMES),
    (4, b'moov', 'a video (QuickTime)', _FRAMES),
    (0, b'%PDF', 'a PDF document', _CONVERT),
    (0, b'PK\3\4', 'a ZIP archive', 'unpack it'),
    (0, b'\x1f\x8b', 'a gzip archive', 'unpack it'),
    (0, b'\x93NUMPY', 'an array of NumPy', 'load it with LoadImageWindows'),
    (0, b'\x89HDF', 'an HDF5 file', _CONVERT),
    (0, b'MATLAB 5.0', 'a file of MATLAB', _CONVERT),
    (0, b'SIMPLE  =', 'a FITS file', _CONVERT),
    (0, b'ZISRAWFILE', 'a microscopy file of Zeiss (CZI)', _CONVERT),
    (0, b'\xda\xce\xbe\x0a', 'a microscopy file of Nikon (ND2)', _CONVERT),
    (128, b'DICM', 'a DICOM file', _CONVERT),
)
# Texts that are no image, by how they begin in lower case.
_TEXTS = (
    ('<svg', 'an SVG drawing'),
    ('<!doctype html', 'a web page, such as the error of a server'),
    ('<html', 'a web page, such as the error of a server'),
    ('<?xml', 'an XML file'),
)
# Images that not every OpenCV can decode: (position, bytes, what).
_IMAGES = (
    (4, b'ftyphei', 'a HEIC image'),
    (4, b'ftyphev', 'a HEIC image'),
    (4, b'ftypmif1', 'a HEIF image'),
    (4, b'ftypmsf1', 'a HEIF image'),
    (4, b'ftypavi', 'an AVIF image'),
    (0, b'\xff\x0a', 'a JPEG XL image'),
    (4, b'JXL \r\n', 'a JPEG XL image'),
    (4, b'jP  \r\n', 'a JPEG 2000 image'),
    (0, b'GIF8', 'a GIF image'),
    (0, b'8BPS', 'a Photoshop file'),
    (0, b'v/1\1', 'an OpenEXR image'),
)

# OpenCV's limits of an image, by the names of their variables, with their defaults.
_LIMITS = {
    'OPENCV_IO_MAX_IMAGE_PIXELS': 1 << 30,
    'OPENCV_IO_MAX_IMAGE_WIDTH': 1 << 20,
    'OPENCV_IO_MAX_IMAGE_HEIGHT': 1 << 20,
}
_UNITS = {'': 1, 'kb': 1 << 10, 'mb': 1 << 20}


class ImageFileError(OSError):
    """An image file could not be loaded; the message says why, as far as that was found out."""


def image_fault(
    path: str | os.PathLike[str], named_in: str = ANNOTATIONS, folders: Sequence[str] = ()
) -> str:
    """Find out why an image file could not be loaded, by looking at it.

    For a file of which it is known that it could not. Nothing is guessed.

    Args:
        path (str | os.PathLike): The file.
        named_in (str): Where the path is written. Defaults to 'the annotation file'.
        folders (Sequence[str]): Folders in which the file ought to be. Defaults to none.

    Returns:
        str: What is wrong and what to do, sentences without a full stop at the end; '' if nothing
        was found.

    Example:
        >>> image_fault('IMG_0001.HEIC')
        'It is a HEIC image, which OpenCV 4.11.0 cannot decode: convert it to PNG or JPEG'
    """
    path = os.fspath(path)
    if address := _ADDRESS.search(path):
        return (
            f'{path[address.start(1) :][:80]} is an address, not a file: download the images, and '
            f'write their files in {named_in}'
        )
    try:
        mode = os.stat(path).st_mode
    except UnicodeEncodeError:
        return (
            f'The file system has the encoding {sys.getfilesystemencoding()} here, which has not '
            f'all letters of the name: set the environment variable PYTHONUTF8=1'
        )
    except ValueError:
        return f'The name has a character that no name can have: correct it in {named_in}'
    except OSError:
        where = f'{named_in}, data_root or data_prefix' if named_in == ANNOTATIONS else named_in
        return missing_file(path, where, folders)
    if stat.S_ISDIR(mode):
        return f'It is a folder, not a file: correct the name in {named_in}'
    if not stat.S_ISREG(mode):
        return 'It is a device, pipe or socket, not a file'
    try:
        with open(path, 'rb') as file:
            head = file.read(_LOOKED_AT)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _LOOKED_AT, 0))
            tail = file.read()
    except PermissionError:
        rights = stat.filemode(mode)
        return f'It may not be read by this user (its permissions are {rights}): chmod a+r {path}'
    except OSError as error:
        return f'Reading it fails ({error.strerror}): is the disk in order?'
    remove = f', or take it out of {named_in}'
    if not size:
        return f'It is empty (0 bytes): {_FETCH}{remove}'
    if other := _no_image(os.path.basename(path), head):
        return other + remove
    if cut := _cut(head, tail, size):
        return f'It is {cut}: {_FETCH}{remove}'
    return _too_large(path) or _undecodable(path, head, remove)


def cut_short(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a JPEG without its end, which OpenCV reads from files in silence."""
    with open(path, 'rb') as file:
        if file.read(2) != _JPEG_START:
            return False
        file.seek(max(file.seek(0, os.SEEK_END) - _LOOKED_AT, 0))
        return not _ends_as_jpeg(file.read())


def opencv_name(path: str | os.PathLike[str]) -> str | None:
    """A path as OpenCV wants it, UTF-8 whatever the locale; None if its bytes are no UTF-8.

    Given the surrogates that Python has for such bytes, OpenCV crashes.
    """
    try:
        return os.fsencode(path).decode('utf-8')
    except UnicodeError:
        return None


def _ends_as_jpeg(tail: bytes) -> bool:
    # Some programs fill the last block up with zeros.
    return tail.rstrip(b'\0').endswith(_JPEG_END)


def _no_image(name: str, head: bytes) -> str:
    """What a file is that is no image, and what to do about it; '' if it may be one."""
    for start, mark, what, remedy in _NO_IMAGES:
        if head[start:].startswith(mark):
            return f'It is {what}, not an image: {remedy.format(name=name)}'
    if not head.strip(b'\0'):
        return f'It begins with {len(head)} zero bytes, as a copy that was broken off: {_FETCH}'
    text = _as_text(head)
    for beginning, what in _TEXTS:
        if text.lower().startswith(beginning):
            return f'It is {what}, not an image: {_FETCH}'
    if text and not re.match('P[1-7F]', text):  # Netpbm
        return f'It is text, not an image, and begins with {text[:40]!r}: {_FETCH}'
    return ''


def _as_text(head: bytes) -> str:
    """The beginning of a text file; '' if it is none."""
    text = head.decode('utf-8-sig', 'replace').strip()
    if len(head) == _LOOKED_AT:
        text = text.rstrip('\ufffd')  # half a letter
    odd = '\ufffd' in text or not all(sign.isprintable() or sign.isspace() for sign in text)
    return '' if odd else text


def _cut(head: bytes, tail: bytes, size: int) -> str:
    """What an image is whose end is missing; '' if it is not."""
    if head.startswith(_JPEG_START) and not _ends_as_jpeg(tail):
        return f'a JPEG that is cut short, its {size} bytes lack the end mark'
    if head.startswith(_PNG_START) and _PNG_END not in tail:
        return f'a PNG that is cut short, its {size} bytes lack the end mark'
    if head.startswith(b'BM'):
        said = int.from_bytes(head[2:6], 'little')
    elif head.startswith(b'RIFF') and head[8:12] == b'WEBP':
        said = int.from_bytes(head[4:8], 'little') + 8
    else:
        return ''
    return f'cut short, it has {size} of the {said} bytes that it says' if size < said else ''


def _too_large(path: str, known: str = '') -> str:
    """What to do about an image that is larger than OpenCV may decode; '' if it is not.

    Args:
        path (str): The file.
        known (str): The variable whose limit OpenCV has refused. Defaults to '', as the environment
            says.
    """
    size = _size(path)
    if size is None:
        return ''
    width, height = size
    values = dict(zip(_LIMITS, (width * height, width, height)))
    over = {name: n for name, n in values.items() if n > _limit(name) or name == known}
    if not over:
        return ''
    name, value = next(iter(over.items()))
    enough = ' '.join(f'{name}={1 << (n - 1).bit_length()}' for name, n in over.items())
    what = name.rpartition('_')[2].lower()
    amount = f'{value:,} pixels' if what == 'pixels' else f'a {what} of {value:,} pixels'
    limit = _limit(name)
    bound = f'no more than {limit:,}' if value > limit else 'fewer, as it was told when it started'
    return (
        f'It has {width}x{height} px, {amount}, and OpenCV decodes {bound}: set the environment '
        f'variable before the program starts, {enough} python ...'
    )


def _size(path: str) -> tuple[int, int] | None:
    """Width and height of an image by its header; None if Pillow does not know it."""
    try:
        with any_size(), Image.open(path) as image:
            return image.size
    except Exception:
        return None


def _limit(name: str) -> int:
    """OpenCV's limit, which it reads from the environment when it is loaded: 1000, 10KB or 10MB."""
    said = re.fullmatch(r'\s*(\d+)(|kb|mb)\s*', os.environ.get(name, '').lower())
    return int(said[1]) * _UNITS[said[2]] if said else _LIMITS[name]


def _undecodable(path: str, head: bytes, remove: str) -> str:
    """What can be said of an image that OpenCV may decode in size."""
    name = opencv_name(path)
    if name is None:
        return ''
    try:
        if cv2.imread(name, cv2.IMREAD_UNCHANGED) is not None:
            return ''
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            return ''
        if refused := re.search(r'\bCV_(IO_MAX_IMAGE_[A-Z]+)', str(error)):
            return _too_large(path, f'OPENCV_{refused[1]}')
    opencv = f'OpenCV {cv2.__version__}'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                image.load()
                kind = f'{image.format} ({image.mode})'
    except MemoryError:
        return ''
    except Exception as error:
        for start, mark, what in _IMAGES:
            if head[start:].startswith(mark):
                return f'It is {what}, which {opencv} cannot decode: {_CONVERT}{remove}'
        if cv2.haveImageReader(name):
            return f'It is damaged, OpenCV and Pillow cannot decode it ({error}): {_FETCH}{remove}'
        return (
            f'It begins with the bytes {head[:8].hex(" ")}, as no image that {opencv} can decode: '
            f'{_CONVERT}{remove}'
        )
    return (
        f'{opencv} cannot decode this {kind}, but Pillow can: '
        f"LoadImageFromFile(imdecode_backend='pillow')"
    )
