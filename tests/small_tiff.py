"""TIFF files as other programs write them: any number of bands, any depth, either order."""

import struct

import numpy as np

SHORT, LONG, LONG8 = 3, 4, 16


def tiff_bytes(img, planar=False, big_endian=False, big_tiff=False, extra=0):
    """An image (h, w) or (h, w, bands) as an uncompressed TIFF of one page.

    ``extra`` is what bands behind the colours are marked as: 2 is opacity.
    """
    order = '>' if big_endian else '<'
    height, width = img.shape[:2]
    img = img.reshape(height, width, -1)
    bands = img.shape[2]
    stored = img.transpose(2, 0, 1) if planar else img
    data = stored.astype(img.dtype.newbyteorder(order)).tobytes()
    data += b'\0' * (len(data) % 2)
    pieces = bands if planar else 1
    start, word = (16, LONG8) if big_tiff else (8, LONG)
    size = img.nbytes // pieces
    tags = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [img.dtype.itemsize * 8] * bands),
        (259, SHORT, [1]),
        (262, SHORT, [2 if bands >= 3 else 1]),
        (273, word, [start + i * size for i in range(pieces)]),
        (277, SHORT, [bands]),
        (278, LONG, [height]),
        (279, word, [size] * pieces),
        (284, SHORT, [2 if planar else 1]),
        (338, SHORT, [extra] * (bands - 3 if bands >= 3 else bands - 1)),
        (339, SHORT, [dict(u=1, i=2, f=3)[img.dtype.kind]] * bands),
    ]
    tags = [tag for tag in tags if tag[2]]
    count, place, slot = ('Q', 'Q', 8) if big_tiff else ('H', 'I', 4)
    directory = start + len(data)
    end = directory + struct.calcsize(count) + (4 + 2 * slot) * len(tags) + slot
    entries = long_values = b''
    for tag, kind, values in tags:
        letter = {SHORT: 'H', LONG: 'I', LONG8: 'Q'}[kind]
        raw = struct.pack(f'{order}{len(values)}{letter}', *values)
        if len(raw) > slot:
            where = end + len(long_values)
            long_values += raw
            raw = struct.pack(order + place, where)
        entries += struct.pack(f'{order}HH{place}', tag, kind, len(values)) + raw.ljust(slot, b'\0')
    head = struct.pack(
        order + ('HHHQ' if big_tiff else 'HI'),
        *((43, 8, 0, directory) if big_tiff else (42, directory)),
    )
    mark = b'MM' if big_endian else b'II'
    number = struct.pack(order + count, len(tags))
    return mark + head + data + number + entries + b'\0' * slot + long_values


def scene(height, width, bands, dtype, most):
    """Values of 0 to ``most`` in which every band differs from every other."""
    rng = np.random.default_rng(bands)
    shape = (height, width, bands) if bands else (height, width)
    return (rng.random(shape) * most).astype(dtype)
