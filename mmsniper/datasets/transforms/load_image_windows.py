"""The transforms that load an image as windows of its file, and pack it for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from mmengine.fileio import LocalBackend, get_file_backend

from mmsniper.datasets.decoding import ImageDecodingError
from mmsniper.datasets.image_windows import ImageWindows, Stretch, check_stretch
from mmsniper.datasets.reduced_jpegs import open_jpeg
from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile, in_large_version
from mmsniper.datasets.windowed_files import open_windowed_file
from mmsniper.datasets.wrappers import type_name

WINDOWS, PACK_WINDOWS = 'LoadImageWindows', 'PackImageWindows'
"""Types of the transforms."""


@TRANSFORMS.register_module()
class LoadImageWindows(LoadLargeImageFromFile):
    """Load an image as windows of its file, where its format has them, else decode it.

    ``img`` is then an :class:`~mmsniper.datasets.image_windows.ImageWindows`, of which
    ``ChipSampler`` and the levels of a test read what they see: tiled TIFF and Cloud-Optimized
    GeoTIFF with their overviews, TIFF in strips of more than 268 million pixels, JPEG 2000 (all by
    rasterio), ``.npy`` and Zarr. All else is decoded as ``LoadLargeImageFromFile`` does; with
    ``bands`` or ``stretch`` everything that GDAL knows is read by windows.

    Required Keys:

    - img_path

    Modified Keys:

    - img
    - img_shape
    - ori_shape

    Args:
        bands (Sequence[int] | None): Bands to take, in this order, from 1 on. Defaults to None: one
            band three times, three as BGR, as ``LoadImageFromFile`` does.
        stretch (tuple[float, float] | Sequence[tuple] | dict | None): Values that become 0 and 255
            of 8 bits: two numbers, two for each band, or ``dict(percentiles=(2, 98))`` of each
            image. Defaults to None, values stay as they are.
        optional (bool): Decode a TIFF or JPEG 2000 whole where rasterio is not installed, which is
            an error otherwise. Defaults to False.
        whole (bool): Make an array of all of it, for transforms and detectors that need one. Bands
            and values are the same. Defaults to False.
        reduced_jpegs (bool): Decode a JPEG at 1/2, 1/4 or 1/8 where a chip, or a level of a test,
            needs it no finer, which makes its pixels means of the image's. What is seen finer comes
            as without. Not for JPEGs that are turned by their EXIF data, with
            ``color_type='unchanged'``, ``bands`` or ``stretch``, or elsewhere than on a local disk.
            Defaults to False, they are decoded whole.
        kwargs (Any): As for ``LoadImageFromFile``.

    Raises:
        ValueError: If ``stretch`` has no lower and upper limit.

    Example:
        >>> dict(type='LoadImageWindows', bands=(3, 2, 1), stretch=dict(percentiles=(2, 98)))
    """

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        stretch: Stretch | None = None,
        optional: bool = False,
        whole: bool = False,
        reduced_jpegs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_stretch(stretch)
        self.bands, self.stretch = bands, stretch
        self.optional, self.whole, self.reduced_jpegs = optional, whole, reduced_jpegs

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Raises:
            ImageDecodingError: If bands or values are none that a detector can be given, or the
                file cannot be opened.
            ImportError: If the package that reads the file is not installed.
        """
        try:
            img = self._windows(results['img_path'])
        except (OSError, ImageDecodingError):
            if self.ignore_empty:
                return None
            raise
        if img is None:
            return super().transform(results)
        results['img'] = img[: img.shape[0], : img.shape[1]] if self.whole else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _windows(self, path: str) -> ImageWindows | None:
        """The image as windows; None if it is to be decoded."""
        chosen = self.bands is not None or self.stretch is not None
        backend = get_file_backend(path, backend_args=self.backend_args)
        is_local = isinstance(backend, LocalBackend) and backend.exists(path)
        if not is_local or (self.imdecode_backend != 'cv2' and not chosen):
            return None
        file = open_windowed_file(path, any_format=chosen, optional=self.optional and not chosen)
        if file is None:
            return self._reduced(path)
        if self._is_decoded_better(file.shape[2]) and not chosen:
            return None
        return ImageWindows(file, self.bands, self.stretch, self.color_type, self.to_float32)

    def _reduced(self, path: str) -> ImageWindows | None:
        """A JPEG as windows of what is decoded as coarse as it is seen; None of all else."""
        if not self.reduced_jpegs or self.whole or self._opencv_file(path) is None:
            return None
        file = open_jpeg(path, self.color_type)
        if file is None:
            return None
        return ImageWindows(file, None, None, self.color_type, self.to_float32)

    def _is_decoded_better(self, bands: int) -> bool:
        """Whether the colour type is one that only OpenCV makes, such as grey of colours."""
        if not isinstance(self.color_type, str) or self.color_type == 'grayscale':
            return bands > 1
        return self.color_type not in ('color', 'color_ignore_orientation', 'unchanged')

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, bands={self.bands}, stretch={self.stretch}, '
            f'optional={self.optional}, whole={self.whole}, reduced_jpegs={self.reduced_jpegs})'
        )


@TRANSFORMS.register_module()
class PackImageWindows(PackDetInputs):
    """``PackDetInputs`` that packs an image which is read by windows as it is.

    For testing with a ``PyramidDetector`` or ``AutoFocus``, which read what they see. A decoded
    image is packed as ``PackDetInputs`` does.

    Args:
        kwargs (Any): As for ``PackDetInputs``.
    """

    def transform(self, results: dict) -> dict:
        """Pack the image.

        Returns:
            dict: ``inputs``, a tensor or the :class:`ImageWindows`, and ``data_samples``.
        """
        img = results.get('img')
        if not isinstance(img, ImageWindows):
            return super().transform(results)
        others = {key: value for key, value in results.items() if key != 'img'}
        return dict(inputs=img, **super().transform(others))


def in_window_version(loading: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a transform that loads images, with ``LoadImageWindows`` for those known.

    Where rasterio is missing, images are decoded as before.

    Args:
        loading (dict): The config; one of another transform comes back as it is.
    """
    loading = in_large_version(loading)
    if type_name(loading) != 'LoadLargeImageFromFile':
        return loading
    return {**loading, 'type': f'mmdet.{WINDOWS}', 'optional': True}


def in_reduced_version(loading: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a transform that loads images, with the known ones decoding JPEGs reduced.

    Args:
        loading (dict): The config; one of another transform comes back as it is.
    """
    loading = in_window_version(loading)
    return {**loading, 'reduced_jpegs': True} if type_name(loading) == WINDOWS else loading


def in_whole_version(loading: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a transform that loads images, with the known ones giving arrays.

    Args:
        loading (dict): The config; one of another transform comes back as it is.
    """
    if type_name(loading) == WINDOWS:
        return {**loading, 'whole': True}
    return in_large_version(loading)
