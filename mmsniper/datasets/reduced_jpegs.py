"""JPEGs that are decoded at 1/2, 1/4 or 1/8 where that is fine enough."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from numpy.typing import NDArray

from mmsniper.datasets.decoding import ImageDecodingError
from mmsniper.datasets.image_faults import image_fault, opencv_name
from mmsniper.datasets.windowed_files import PixelWindow, WindowedFile
from mmsniper.utils.image_header import jpeg_size

# By factor, what is added to the flags of grey or of colours.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class JpegFile(WindowedFile):
    """A JPEG whose overviews are made by its decoder, which leaves out the high frequencies.

    A version is decoded whole when it is first read from, and kept as long as this object. A pixel
    of a version is the mean of ``factor`` x ``factor`` pixels, from the upper left on; the last
    ones may reach beyond the image.

    Args:
        path (str): The file, which OpenCV can read.
        size (tuple[int, int]): Its width and height, px.
        color_type (str): As for ``LoadImageFromFile``, but not ``'unchanged'``.
    """

    factors = tuple(map(float, _REDUCED))

    def __init__(self, path: str, size: tuple[int, int], color_type: str = 'color') -> None:
        self.path, self._flags = path, imread_flags[color_type]
        self.shape = (*size[::-1], 3 if self._flags & cv2.IMREAD_COLOR else 1)
        self.dtype = np.dtype(np.uint8)
        self._versions: dict[int, NDArray[np.uint8]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_versions': {}}

    def size(self, version: int) -> tuple[int, int]:
        factor = int(self.factors[version])
        return -(-self.shape[1] // factor), -(-self.shape[0] // factor)

    def scale(self, version: int) -> tuple[float, float]:
        return 1 / self.factors[version], 1 / self.factors[version]

    def pixels(self, version: int, window: PixelWindow, bands: tuple[int, ...]) -> NDArray:
        if version not in self._versions:
            self._versions[version] = self._decoded(version)
        x1, y1, x2, y2 = window
        part = self._versions[version][y1:y2, x1:x2]
        return part if bands == tuple(range(part.shape[2])) else part[..., list(bands)]

    def _decoded(self, version: int) -> NDArray:
        flags = self._flags | _REDUCED[int(self.factors[version])]
        name = opencv_name(self.path)
        img = None if name is None else cv2.imread(name, None, flags)
        width, height = self.size(version)
        if img is None or img.shape[:2] != (height, width):
            found = 'nothing' if img is None else f'{img.shape[1]}x{img.shape[0]} px'
            raise ImageDecodingError(
                f'{self.path} should be decoded to {width}x{height} px, and OpenCV gives {found}. '
                f'{image_fault(self.path) or "Load it with reduced_jpegs=False"}'
            )
        return img.reshape(height, width, -1)


def open_jpeg(path: str, color_type: str) -> JpegFile | None:
    """Open a JPEG that can be decoded reduced.

    Args:
        path (str): A file that OpenCV can read.
        color_type (str): As for ``LoadImageFromFile``.

    Returns:
        JpegFile | None: None if the file is to be decoded whole: it is no JPEG, its EXIF data turn
        it, or OpenCV has no reduced mode of the colour type (``'unchanged'``).
    """
    if color_type == 'unchanged' or color_type not in imread_flags:
        return None
    size = jpeg_size(path)
    return size and JpegFile(path, size, color_type)
