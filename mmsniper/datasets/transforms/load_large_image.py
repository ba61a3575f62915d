"""The transform that loads an image without a second copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.utils import digit_version

from mmsniper.datasets.decoding import load_checked
from mmsniper.datasets.image_faults import ImageFileError, cut_short, image_fault, opencv_name
from mmsniper.datasets.wrappers import type_name

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
    cut short, which fails; the error then says what is wrong with the file. An image that its EXIF
    data turn is held twice while it is turned, here too.

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

    Raises:
        ImageFileError: If the file cannot be loaded and it was found why.
    """

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Raises:
            ImageDecodingError: If the file has bands or bits that the backend cannot decode.
        """
        return load_checked(self, self._load, results)

    def _load(self, results: dict) -> dict | None:
        try:
            img = self._decode(results['img_path'])
            if img is None:
                return super().transform(results)
        except Exception as error:
            if self.ignore_empty:
                return None
            fault = image_fault(results['img_path'], 'the list of images')
            if not fault:
                raise
            raise ImageFileError(f'cannot load {results["img_path"]}. {fault}') from error
        results['img'] = img.astype(np.float32) if self.to_float32 else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _decode(self, path: str) -> np.ndarray | None:
        name = self._opencv_file(path)
        if name is None:
            return None
        # Given a destination, even None, OpenCV decodes into memory of NumPy's.
        return cv2.imread(name, None, imread_flags.get(self.color_type, self.color_type))

    def _opencv_file(self, path: str) -> str | None:
        """The name of a file that OpenCV reads itself; None if the stock transform loads it."""
        if self.imdecode_backend != 'cv2' or digit_version(cv2.__version__) < _MIN_OPENCV:
            return None
        backend = get_file_backend(path, backend_args=self.backend_args)
        # Asked first, because OpenCV prints a warning of its own about a missing file.
        if not (isinstance(backend, LocalBackend) and backend.isfile(path)) or cut_short(path):
            return None
        return opencv_name(path)


def in_large_version(loading: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a transform that loads images, with ``LoadLargeImageFromFile`` for the stock.

    Args:
        loading (dict): The config; one of another transform comes back as it is.
    """
    if type_name(loading) != 'LoadImageFromFile':
        return dict(loading)
    return {**loading, 'type': 'mmdet.LoadLargeImageFromFile'}
