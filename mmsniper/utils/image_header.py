"""What the first bytes of an image file say of its pixels, without decoding them."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

NO_DATA = 1e30
"""Values of floats as large as this stand for no data, such as the -3.4e38 of some TIFFs."""


_ORIENTATION = 274  # EXIF's tag; from 5 on it exchanges rows and columns


@dataclass(frozen=True)
class ImageHeader:
    """The pixels of an image file.

    Attributes:
        format: Name of the file format.
        width: Columns, before any turning by EXIF data.
        height: Rows.
        bands: Values of a pixel.
        bits: Bits of each value.
        kind: What the values are: 'unsigned', 'signed' or 'float'.
        planar: One band is stored after the other. Defaults to False: pixel after pixel.
        alpha: The last band is marked as opacity by which colours are not multiplied. Told of TIFF
            only. Defaults to False.
        several: Another image of this size follows, a page of a TIFF. Defaults to False.
        tiled: It is stored in tiles, so that a window can be read without the rest. Told of TIFF
            only. Defaults to False.
        direct: The values are grey, 0 is black, or red, green and blue, the right way up: no
            palette, no CMYK, nothing turned. Told of TIFF only. Defaults to True.
    """

    format: str
    width: int
    height: int
    bands: int
    bits: int
    kind: str = 'unsigned'
    planar: bool = False
    alpha: bool = False
    several: bool = False
    tiled: bool = False
    direct: bool = True

    def __str__(self) -> str:
        bands = 'one band' if self.bands == 1 else f'{self.bands} bands'
        kind = '' if self.kind == 'unsigned' else f' ({self.kind})'
        order = ', stored one after the other' if self.planar else ''
        return f'a {self.format} of {bands} of {self.bits} bits{kind}{order}'


def read_header(path: str | os.PathLike[str]) -> ImageHeader | None:
    """Read the header of an image file in a format that can have more than 8 bits.

    Args:
        path (str | os.PathLike): A file on a local disk.

    Returns:
        ImageHeader | None: None for other formats than PNG, TIFF, JPEG 2000, PNM, PFM and Radiance
        HDR, and where there is no such file or its header is broken.
    """
    try:
        with open(path, 'rb') as file:
            start = file.read(64)
            for mark, read in _READERS.items():
                if start.startswith(mark):
                    return read(file, start)
    except (OSError, ValueError, LookupError, struct.error):
        pass
    return None


def turned_by_exif(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """The size of an image file without the turn by 90 degrees that its EXIF data ask for.

    Args:
        path (str | os.PathLike): A file on a local disk.

    Returns:
        tuple[int, int] | None: Width and height as stored, px; None if they ask for no such turn,
        or Pillow cannot read the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                return image.size if image.getexif().get(_ORIENTATION, 1) > 4 else None
    except Exception:  # of whatever kind: Pillow does not know all that OpenCV loads
        return None


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The size that an image file has when it is loaded, read from its header.

    Args:
        path (str | os.PathLike): A file on a local disk.

    Returns:
        tuple[int, int]: Width and height, px, turned as its EXIF data ask for.

    Raises:
        OSError: If there is no such file, or Pillow does not know its format.
    """
    with any_size(), Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) > 4 else (width, height)


@contextmanager
def any_size() -> Iterator[None]:
    """Let Pillow open images of any size without a word: it reads no pixels of them here."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def jpeg_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """The size of a JPEG that is stored the right way up.

    Args:
        path (str | os.PathLike): A file on a local disk.

    Returns:
        tuple[int, int] | None: Width and height, px; None if it is no JPEG, its EXIF data ask for
        any turn, or Pillow cannot read its header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with JpegImageFile(path) as image:  # by Image.open Pillow would refuse large ones
                return image.size if image.getexif().get(_ORIENTATION, 1) <= 1 else None
    except Exception:  # of whatever kind: broken headers raise many
        return None


def _png(file: BinaryIO, start: bytes) -> ImageHeader:
    width, height, bits, colour = struct.unpack_from('>IIBB', start, 16)
    bands = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour]  # 3: a palette
    return ImageHeader('PNG', width, height, bands, bits)


def _pnm(file: BinaryIO, start: bytes) -> ImageHeader:
    file.seek(0)
    words: list[bytes] = []
    while len(words) < 4 and (line := file.readline(256)):
        words += line.partition(b'#')[0].split()
    width, height, most = map(int, words[1:4])
    bands = 3 if words[0] in (b'P3', b'P6') else 1
    return ImageHeader('PNM', width, height, bands, 16 if most > 255 else 8)


def _jpeg_2000(file: BinaryIO, start: bytes) -> ImageHeader:
    place = start.index(b'ihdr') + 4
    height, width, bands, depth = struct.unpack_from('>IIHB', start, place)
    kind = 'signed' if depth & 0x80 else 'unsigned'
    return ImageHeader('JPEG 2000', width, height, bands, (depth & 0x7F) + 1, kind)


def _codestream(file: BinaryIO, start: bytes) -> ImageHeader:
    right, bottom, left, top = struct.unpack_from('>IIII', start, 8)
    bands, depth = struct.unpack_from('>HB', start, 40)
    kind = 'signed' if depth & 0x80 else 'unsigned'
    return ImageHeader('JPEG 2000', right - left, bottom - top, bands, (depth & 0x7F) + 1, kind)


def _pfm(file: BinaryIO, start: bytes) -> ImageHeader:
    name, width, height = start.split()[:3]
    return ImageHeader('PFM', int(width), int(height), 3 if name == b'PF' else 1, 32, 'float')


def _radiance(file: BinaryIO, start: bytes) -> ImageHeader:
    file.seek(0)
    for line in iter(lambda: file.readline(256), b''):
        words = line.split()
        if len(words) == 4 and words[0] in (b'-Y', b'+Y'):
            return ImageHeader('Radiance HDR', int(words[3]), int(words[1]), 3, 32, 'float')
    raise ValueError('it has no size')


# Tags of TIFF 6.0.
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COLOURS = 254, 256, 257, 258, 262
_BANDS, _PLANAR, _TILE_WIDTH, _EXTRA, _KIND = 277, 284, 322, 338, 339
_TAGS = (
    *(_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COLOURS, _ORIENTATION),
    *(_BANDS, _PLANAR, _TILE_WIDTH, _EXTRA, _KIND),
)
_KINDS = {1: 'unsigned', 2: 'signed', 3: 'float'}
_NUMBERS = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # types of TIFF's whole numbers
_PALETTE, _UNASSOCIATED = 3, 2  # of _COLOURS, and of _EXTRA
_DIRECT = (1, 2, 6)  # of _COLOURS: grey, RGB, YCbCr, which every library turns into RGB
_OTHERS = 1 | 4  # of _SUBFILE: an overview, a mask


def _tiff(file: BinaryIO, start: bytes) -> ImageHeader:
    order = '<' if start.startswith(b'II') else '>'
    big = struct.unpack_from(order + 'H', start, 2)[0] == 43
    (first,) = struct.unpack_from(order + ('Q' if big else 'I'), start, 8 if big else 4)
    tags, following = _directory(file, first, order, big)
    size = tags[_WIDTH][0], tags[_HEIGHT][0]
    several = False
    if following:
        page, _ = _directory(file, following, order, big)
        alike = size == tuple(page.get(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT))
        several = alike and not page.get(_SUBFILE, (0,))[0] & _OTHERS
    stored = tags.get(_BANDS, (1,))[0]
    return ImageHeader(
        'TIFF',
        *size,
        3 if tags.get(_COLOURS, (0,))[0] == _PALETTE else stored,
        max(tags.get(_BITS, (1,))),
        _KINDS.get(tags.get(_KIND, (1,))[0], 'unsigned'),
        planar=stored > 1 and tags.get(_PLANAR, (1,))[0] == 2,
        alpha=_UNASSOCIATED in tags.get(_EXTRA, ()),
        several=several,
        tiled=_TILE_WIDTH in tags,
        direct=tags.get(_COLOURS, (1,))[0] in _DIRECT and tags.get(_ORIENTATION, (1,))[0] == 1,
    )


def _directory(
    file: BinaryIO, start: int, order: str, big: bool
) -> tuple[dict[int, tuple[int, ...]], int]:
    """What a page of a TIFF says of its pixels, by tag, and where the next page is or 0."""
    place, count, size = ('Q', 'Q', 8) if big else ('I', 'H', 4)
    file.seek(start)
    (entries,) = struct.unpack(order + count, file.read(struct.calcsize(count)))
    width = 4 + 2 * size
    table = file.read(min(entries, 1000) * width)
    end = file.read(size) if entries <= 1000 else b''
    following = struct.unpack(order + place, end)[0] if len(end) == size else 0
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(0, len(table) - width + 1, width):
        tag, kind, number = struct.unpack_from(order + 'HH' + place, table, at)
        if tag not in _TAGS:
            continue
        form = f'{order}{min(number, 1000)}{_NUMBERS[kind]}'
        value = table[at + 4 + size : at + width]
        if struct.calcsize(form) > size:
            file.seek(struct.unpack(order + place, value)[0])
            value = file.read(struct.calcsize(form))
        tags[tag] = struct.unpack_from(form, value)
    return tags, following


_READERS: dict[bytes, Callable[[BinaryIO, bytes], ImageHeader]] = {
    b'\x89PNG\r\n\x1a\n': _png,
    b'II*\0': _tiff,
    b'MM\0*': _tiff,
    b'II+\0': _tiff,
    b'MM\0+': _tiff,
    b'\0\0\0\x0cjP  \r\n\x87\n': _jpeg_2000,
    b'\xff\x4f\xff\x51': _codestream,
    b'#?RADIANCE': _radiance,
    **dict.fromkeys((b'PF\n', b'Pf\n'), _pfm),
    **{b'P%d' % number: _pnm for number in (2, 3, 5, 6)},
}
