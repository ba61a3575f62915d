"""The transform that loads an image without a second copy of it."""

from __future__ import annotations

import os

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.utils import digit_version

from mmsniper.datasets.decoding import load_checked

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
# Bytes at the end in which a JPEG's last mark is looked for: a block of a file system.
_TAIL = 4096
# In older ones cv2.imread has no destination, or returns nothing when given one.
_MIN_OPENCV = digit_version('4.11')


@TRANSFORMS.register_module()
class LoadLargeImageFromFile(LoadImageFromFile):
    """``LoadImageFromFile`` in half the memory: the same pixels, decoded where they stay.

    The stock transform holds the compressed file and two copies of the decoded image: 2.1 (JPEG)
    to 2.6 (PNG) times its memory, which decides how many workers have room. Here OpenCV reads the
    file itself and decodes into the array.

    Only for files on a local disk, ``imdecode_backend='cv2'`` and OpenCV 4.11 or newer; everything
    else is loaded by the stock transform. So are files that OpenCV cannot read and JPEGs that are
    cut short, for the error. An image that its EXIF data turn is held twice while it is turned,
    here too.

    Files of which bands or bits are lost are an error, or told to the log
    (:func:`~mmsniper.datasets.decoding.load_checked`).

    Required Keys:

    - img_path

    Modified Keys:

    - img
    - img_shape
    - ori_shape

    Args:
        kwargs (Any): As for ``LoadImageFromFile``.
    """

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Raises:
            ImageDecodingError: If the file has bands or bits that the backend cannot decode.
        """
        return load_checked(self, self._load, results)

    def _load(self, results: dict) -> dict | None:
        img = self._decode(results['img_path'])
        if img is None:
            return super().transform(results)
        results['img'] = img.astype(np.float32) if self.to_float32 else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _decode(self, path: str) -> np.ndarray | None:
        if self.imdecode_backend != 'cv2' or digit_version(cv2.__version__) < _MIN_OPENCV:
            return None
        backend = get_file_backend(path, backend_args=self.backend_args)
        # Asked first, because OpenCV prints a warning of its own about a missing file.
        if not (isinstance(backend, LocalBackend) and backend.isfile(path)) or _cut_short(path):
            return None
        # Given a destination, even None, OpenCV decodes into memory of NumPy's.
        return cv2.imread(str(path), None, imread_flags.get(self.color_type, self.color_type))


def _cut_short(path: str) -> bool:
    """Whether a file is a JPEG without its end, which OpenCV reads from files in silence."""
    with open(path, 'rb') as file:
        if file.read(2) != _JPEG_START:
            return False
        # Some programs fill the last block up with zeros.
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        return not file.read().rstrip(b'\0').endswith(_JPEG_END)
