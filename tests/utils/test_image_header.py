"""What a header says is what a decoder finds."""

import cv2
import numpy as np
import pytest
from PIL import Image
from small_tiff import scene, tiff_bytes

from mmsniper.utils.image_header import ImageHeader, read_header


@pytest.mark.parametrize('bands', [0, 1, 2, 3, 4, 8, 13])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'i2', 'f4', 'u4', 'f8'])
@pytest.mark.parametrize('layout', [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1)])
def test_tiffs(tmp_path, bands, dtype, layout):
    (tmp_path / 'x.tif').write_bytes(tiff_bytes(scene(30, 40, bands, dtype, 99), *layout))
    header = read_header(tmp_path / 'x.tif')
    count, bits = max(bands, 1), 8 * int(dtype[1])
    kind = dict(u='unsigned', i='signed', f='float')[dtype[0]]
    planar = bool(layout[0]) and count > 1
    assert header == ImageHeader('TIFF', 40, 30, count, bits, kind, planar)


def test_the_tiffs_of_the_tests_are_those_of_opencv(tmp_path):
    img = scene(30, 40, 3, 'u2', 60000)
    for big_endian in (False, True):
        for big_tiff in (False, True):
            content = tiff_bytes(img, False, big_endian, big_tiff)
            (tmp_path / 'x.tif').write_bytes(content)
            read = cv2.imread(str(tmp_path / 'x.tif'), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(read, img[..., ::-1])


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.pgm', '.ppm', '.jp2'])
@pytest.mark.parametrize('dtype', ['u1', 'u2'])
@pytest.mark.parametrize('bands', [0, 3, 4])
def test_files_of_opencv(tmp_path, suffix, dtype, bands):
    if suffix in ('.pgm', '.ppm') and bands != (0 if suffix == '.pgm' else 3):
        pytest.skip('not of this format')
    img = scene(30, 40, bands, dtype, 255)
    try:
        written = cv2.imwrite(str(tmp_path / f'x{suffix}'), img)
    except cv2.error:
        written = False
    if not written:
        pytest.skip(f'this OpenCV writes no such {suffix}')
    header = read_header(tmp_path / f'x{suffix}')
    assert (header.width, header.height) == (40, 30)
    assert (header.bands, header.bits) == (max(bands, 1), 8 * img.itemsize)
    assert (header.kind, header.planar) == ('unsigned', False)


def test_formats_of_floats_and_codestreams(tmp_path):
    grey = scene(30, 40, 0, 'u2', 4095)
    cv2.imwrite(str(tmp_path / 'x.hdr'), scene(30, 40, 3, 'f4', 9))
    cv2.imwrite(str(tmp_path / 'x.pfm'), scene(30, 40, 0, 'f4', 9))
    Image.fromarray(grey).save(tmp_path / 'x.j2k')
    assert read_header(tmp_path / 'x.hdr') == ImageHeader('Radiance HDR', 40, 30, 3, 32, 'float')
    assert read_header(tmp_path / 'x.pfm') == ImageHeader('PFM', 40, 30, 1, 32, 'float')
    assert read_header(tmp_path / 'x.j2k') == ImageHeader('JPEG 2000', 40, 30, 1, 16)


def test_others_say_nothing(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.jpg'), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / 'empty.tif').write_bytes(b'')
    for name in ('x.jpg', 'empty.tif', 'missing.png', '.'):
        assert read_header(tmp_path / name) is None


def test_a_header_that_is_cut_short_or_wrong_is_no_error(tmp_path):
    png = cv2.imencode('.png', np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    rng = np.random.default_rng(0)
    for content in (
        png,
        tiff_bytes(scene(3, 4, 5, 'u2', 9)),
        b'P5\n# a comment\n4 3\n255\n' + b'x' * 12,
    ):
        for length in range(0, len(content), 3):
            (tmp_path / 'x').write_bytes(content[:length])
            read_header(tmp_path / 'x')
        for _ in range(200):
            wrong = bytearray(content)
            for place in rng.integers(4, len(wrong), 3):
                wrong[place] = rng.integers(256)
            (tmp_path / 'x').write_bytes(bytes(wrong))
            read_header(tmp_path / 'x')


def test_it_is_told_in_words():
    assert str(ImageHeader('PNG', 9, 9, 1, 16)) == 'a PNG of one band of 16 bits'
    header = ImageHeader('TIFF', 9, 9, 8, 32, 'float', True)
    assert str(header) == 'a TIFF of 8 bands of 32 bits (float), stored one after the other'
