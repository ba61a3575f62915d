"""Files of which a window is read without the rest: GeoTIFF, JPEG 2000, NumPy's arrays, Zarr."""

from __future__ import annotations

import importlib
import os
import warnings
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.datasets.decoding import ImageDecodingError
from mmsniper.utils.image_header import ImageHeader, read_header

PixelWindow = tuple[int, int, int, int]
"""(x1, y1, x2, y2), whole pixels."""

_NPY = b'\x93NUMPY'
_ZARR = ('zarr.json', '.zarray', '.zgroup')

# A TIFF in strips is decoded whole up to here, pixels: fast, and as it has always been.
_DECODED_WHOLE = 2**28

# Of decoded tiles, bytes that GDAL keeps in a process. Its default is 5 % of all memory.
_GDAL_CACHE = 2**27

# What a process has inherited from the one that it was forked from. To close it there could
# disturb the other one.
_inherited: list[Any] = []


class WindowedFile:
    """A file of which windows are read.

    Attributes:
        path: The file.
        shape: Rows, columns and bands.
        dtype: Type of the values.
        factors: By what each stored version of the image is smaller than the image, fine to coarse;
            the first is 1, the others are overviews.
        is_rgb: Whether the first three bands of three or four are red, green and blue, not blue,
            green and red.
        no_data: The value that stands for no data, None if none does.
    """

    path: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    factors: tuple[float, ...] = (1.0,)
    is_rgb: bool = False
    no_data: float | None = None

    def size(self, version: int) -> tuple[int, int]:
        """Width and height of a stored version, px."""
        return self.shape[1], self.shape[0]

    def scale(self, version: int) -> tuple[float, float]:
        """Pixels of a stored version for each of the image, in x and in y."""
        width, height = self.size(version)
        return width / self.shape[1], height / self.shape[0]

    def pixels(self, version: int, window: PixelWindow, bands: tuple[int, ...]) -> NDArray:
        """Read a window.

        Args:
            version (int): Which of the stored versions, a place in ``factors``.
            window (tuple[int, int, int, int]): (x1, y1, x2, y2), whole pixels of that version,
                inside it.
            bands (tuple[int, ...]): Which bands, from 0 on.

        Returns:
            np.ndarray: (h, w, bands).

        Raises:
            ImageDecodingError: If it cannot be read. The message names the file.
        """
        raise NotImplementedError


class _Mapped(WindowedFile):
    """An array (h, w) or (h, w, bands) of which parts are read, as a file has it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None
        array = self._array()
        if len(array.shape) not in (2, 3) or 0 in array.shape:
            raise ImageDecodingError(
                f'{path} is an array of shape {tuple(array.shape)}, not (h, w) or (h, w, bands)'
            )
        self.shape = (*array.shape, 1)[:3]
        self.dtype = np.dtype(array.dtype).newbyteorder('=')

    def _open(self) -> Any:
        raise NotImplementedError

    def _array(self) -> Any:
        """The array, opened once in a process."""
        if self._opened is None or self._opened[0] != os.getpid():
            if self._opened is not None:
                _inherited.append(self._opened)
            try:
                self._opened = os.getpid(), self._open()
            except FileNotFoundError:
                raise
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ImageDecodingError(f'{self.path} cannot be opened: {error}') from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_opened': None}

    def pixels(self, version: int, window: PixelWindow, bands: tuple[int, ...]) -> NDArray:
        x1, y1, x2, y2 = window
        try:
            part = np.asarray(self._array()[y1:y2, x1:x2])
        except (OSError, ValueError, RuntimeError) as error:
            raise _unreadable(self.path, window, error) from error
        part = part.reshape(*part.shape[:2], -1)
        if bands != tuple(range(part.shape[2])):
            part = part[..., list(bands)]
        return np.ascontiguousarray(part, self.dtype)


class NpyFile(_Mapped):
    """An array of an ``.npy`` file, mapped into memory."""

    def _open(self) -> NDArray:
        return np.load(self.path, mmap_mode='r')


class ZarrFile(_Mapped):
    """An array of Zarr, of which the chunks below a window are read."""

    def _open(self) -> Any:
        zarr = _package('zarr', self.path)
        array = zarr.open(self.path, mode='r')
        if not hasattr(array, 'dtype'):
            names = sorted(name for name, _ in array.arrays())
            raise ImageDecodingError(
                f'{self.path} is a group of Zarr, not an array: name one of its arrays, '
                f'{", ".join(os.path.join(self.path, name) for name in names) or "it has none"}'
            )
        return array


class RasterFile(WindowedFile):
    """A file that rasterio (GDAL) reads, with its overviews.

    Opened when it is first read from, in each process anew: GDAL's handles survive no fork.
    """

    is_rgb = True

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened: tuple[int, dict[int, Any]] = (os.getpid(), {})
        file = self._dataset(0)
        if len(set(file.dtypes)) > 1:
            raise ImageDecodingError(
                f'{path} has bands of several types, {", ".join(file.dtypes)}: write them as one'
            )
        self.shape = (file.height, file.width, file.count)
        self.dtype, self.no_data = np.dtype(file.dtypes[0]), file.nodata
        self.factors = (1.0, *map(float, sorted(file.overviews(1))))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_opened': (0, {})}

    def _dataset(self, version: int) -> Any:
        """The file at one of its versions, opened once in a process."""
        if self._opened[0] != os.getpid():
            if self._opened[1]:
                _inherited.append(self._opened)
            self._opened = (os.getpid(), {})
        handles = self._opened[1]
        if version not in handles:
            rasterio = _package('rasterio', self.path)
            options = dict(overview_level=version - 1) if version else {}
            try:
                with _gdal(rasterio), warnings.catch_warnings():
                    warnings.simplefilter('ignore')  # that it is not georeferenced
                    handles[version] = rasterio.open(self.path, **options)
            except rasterio.errors.RasterioIOError as error:
                if not os.path.exists(self.path):
                    raise FileNotFoundError(2, 'No such file or directory', self.path) from error
                raise ImageDecodingError(
                    f'{self.path} cannot be opened by GDAL: {_first_line(error)}. Download or copy '
                    f'it again'
                ) from error
        return handles[version]

    def size(self, version: int) -> tuple[int, int]:
        file = self._dataset(version)
        return file.width, file.height

    def pixels(self, version: int, window: PixelWindow, bands: tuple[int, ...]) -> NDArray:
        file, rasterio = self._dataset(version), _package('rasterio', self.path)
        x1, y1, x2, y2 = window
        numbers = [band + 1 for band in bands]
        try:
            with _gdal(rasterio):
                part = file.read(numbers, window=((y1, y2), (x1, x2)))
        except rasterio.errors.RasterioError as error:
            raise _unreadable(self.path, window, error) from error
        return np.ascontiguousarray(np.moveaxis(part, 0, 2))


def open_windowed_file(
    path: str, *, any_format: bool = False, optional: bool = False
) -> WindowedFile | None:
    """Open a file of which windows can be read.

    These are ``.npy`` files, arrays of Zarr, JPEG 2000, and TIFF that is stored in tiles, or in
    strips if it has more than 268 million pixels. A TIFF with a palette, with CMYK colours, turned
    by its tags, or of several pages is none of them.

    Args:
        path (str): The file, or the folder of Zarr.
        any_format (bool): Open every file that GDAL knows. Defaults to False.
        optional (bool): Return None, too, where rasterio is not installed. Defaults to False.

    Returns:
        WindowedFile | None: None if the file is to be decoded whole.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageDecodingError: If it cannot be opened.
        ImportError: If rasterio or Zarr is needed and not installed.
    """
    if os.path.isdir(path):
        return ZarrFile(path) if is_zarr(path) else None
    with open(path, 'rb') as file:
        if file.read(len(_NPY)) == _NPY:
            return NpyFile(path)
    header = read_header(path)
    if not (any_format or (header and has_windows(header))):
        return None
    if optional and find_spec('rasterio') is None:
        return None
    return RasterFile(path)


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is an array or a group of Zarr."""
    return any(os.path.isfile(os.path.join(path, name)) for name in _ZARR)


def has_windows(header: ImageHeader) -> bool:
    """Whether windows of an image are read, by the header of its file."""
    if header.format == 'JPEG 2000':
        return True
    plain = header.direct and not header.several and header.bits in (8, 16, 32, 64)
    large = header.width * header.height > _DECODED_WHOLE
    return header.format == 'TIFF' and plain and (header.tiled or large)


def _package(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'windows of {path} are read by {name}, which is not installed: pip install {name}, or '
            f"all that such files need, pip install 'mmsniper[geo]'"
        ) from error


def _gdal(rasterio: ModuleType) -> Any:
    """The settings under which GDAL is used."""
    return rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE)


def _unreadable(path: str, window: PixelWindow, error: Exception) -> ImageDecodingError:
    return ImageDecodingError(
        f'the window {list(window)} of {path} cannot be read: {_first_line(error)}. Download or '
        f'copy the file again'
    )


def _first_line(error: BaseException) -> str:
    """What an error says; rasterio's say it in their cause."""
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return text.partition('\n')[0].rstrip('.')
