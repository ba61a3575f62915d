"""Whether what was decoded is what the file has: all its bands, all its bits."""

from __future__ import annotations

import logging
from collections.abc import Callable

import cv2
import mmcv.image.io
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from numpy.typing import NDArray
from PIL import Image

from mmsniper.datasets.image_faults import opencv_name
from mmsniper.utils.image_header import NO_DATA, ImageHeader, read_header

_OPENCV_BANDS = (1, 3, 4)  # of a TIFF; of two it reads something else without an error
_RESIZED = ('uint8', 'uint16', 'int16', 'float32', 'float64')  # by OpenCV
_TIFFFILE = "imdecode_backend='tifffile' does (pip install tifffile imagecodecs)"
_told: set[str] = set()


class ImageDecodingError(ValueError):
    """An image file that a loader's backend cannot decode, or not as it is."""


def run_checked(transform: Callable[[dict], dict | None], results: dict) -> dict | None:
    """Run a transform; of MMCV's loader see whether it has decoded all of the file.

    Raises:
        ImageDecodingError: See :func:`load_checked`.
    """
    if type(transform) is LoadImageFromFile:
        return load_checked(transform, transform, results)
    return transform(results)


def load_checked(
    loader: LoadImageFromFile, load: Callable[[dict], dict | None], results: dict
) -> dict | None:
    """Load an image, and see whether all of its file was decoded.

    Bands are put last and bytes into the machine's order. The log is told, once in a process, of
    more than 8 bits that are cut to 8, further pages, colours that are multiplied by a fourth band,
    and values that are no numbers.

    Args:
        loader (LoadImageFromFile): The transform, for its settings.
        load (Callable[[dict], dict | None]): What loads, such as the transform itself.
        results (dict): What ``load`` takes: with ``img_path``, or ``img``.

    Returns:
        dict | None: As ``load`` returns.

    Raises:
        ImageDecodingError: If the file has what the backend cannot decode, or the array is none
            that a detector can be given. The message says what can.
    """
    path = results.get('img_path')
    try:
        loaded = load(results)
    except FileNotFoundError:
        raise
    except Exception as error:
        header = None if path is None else read_header(path)
        if header is None or (why := _undecodable(loader, header)) is None:
            raise
        raise ImageDecodingError(f'{path} is {header}: {why}') from error
    if loaded is None:
        return None
    header = None if path is None else read_header(path)
    if path is not None:
        if header:
            _check(loader, path, header, loaded['img'])
        else:
            _check_palette(loader, path, loaded['img'])
    img = _ordered(loaded['img'], header)
    name = path or 'the image'
    check_array(name, img.shape, img.dtype, path is not None)
    if img.dtype.kind == 'f' and (header is None or header.kind == 'float'):
        _tell_no_numbers(name, img)
    loaded['img'] = img
    loaded['img_shape'] = loaded['ori_shape'] = img.shape[:2]
    return loaded


def load_or_raise(load: Callable[[dict], dict | None], given: dict) -> dict:
    """Load an image; a loader that gives none is an error.

    Args:
        load (Callable[[dict], dict | None]): What loads, such as a pipeline's first transform.
        given (dict): What ``load`` takes: with ``img_path``, or ``img``.

    Returns:
        dict: What ``load`` returns.

    Raises:
        ImageDecodingError: If it returns None.
    """
    loaded = load(given)
    if loaded is None:
        raise ImageDecodingError(
            f'the loader gives no image of {given.get("img_path", "the array")}: without '
            f'ignore_empty=True it says why'
        )
    return loaded


def check_array(name: str, shape: tuple[int, ...], dtype: np.dtype, of_file: bool = True) -> None:
    """Check that an image is one that a detector can be given.

    Args:
        name (str): What the error calls it.
        shape (tuple[int, ...]): Its shape.
        dtype (np.dtype): Type of its values.
        of_file (bool): Whether a loader has loaded it. Defaults to True.

    Raises:
        ImageDecodingError: If it is not. The message says what can be done.
    """
    if len(shape) not in (2, 3) or dtype.name not in _RESIZED:
        raise ImageDecodingError(
            f'{name} is an array of shape {shape} and type {dtype}, not (h, w) or '
            f'(h, w, bands) of a type that OpenCV resizes ({", ".join(_RESIZED)}): '
            f'{"load it with to_float32=True" if of_file else "give it as float32"}, or as an '
            f'image of one page'
        )
    if dtype == np.uint16 and not hasattr(torch, 'uint16'):
        raise ImageDecodingError(
            f'{name} has 16 bits, for which PyTorch {torch.__version__} has no type (2.3 has): '
            f'load it with to_float32=True'
        )


def _undecodable(loader: LoadImageFromFile, header: ImageHeader) -> str | None:
    """Why a backend cannot decode a file, and what can; None if it should."""
    backend = loader.imdecode_backend
    if backend == 'tifffile':
        if header.format != 'TIFF':
            return "imdecode_backend='tifffile' decodes TIFF only, 'cv2' this one"
        if mmcv.image.io.tifffile is None:
            return "imdecode_backend='tifffile' is not installed: pip install tifffile imagecodecs"
        return None
    if header.format == 'TIFF' and header.bands not in _OPENCV_BANDS:
        return f'imdecode_backend={backend!r} decodes one, three or four bands, {_TIFFFILE}'
    if backend == 'pillow' and header.bands > 1:
        return "imdecode_backend='pillow' does not decode that, 'cv2' does"
    if (header.kind == 'float' or header.bits > 16) and loader.color_type != 'unchanged':
        return f"color_type={loader.color_type!r} is for whole numbers, 'unchanged' loads it"
    return None


def _check(loader: LoadImageFromFile, path: str, header: ImageHeader, img: NDArray) -> None:
    """Compare a decoded image with what its file has."""
    backend, whole = loader.imdecode_backend, loader.color_type == 'unchanged'
    mixed = header.planar if header.bands in _OPENCV_BANDS else header.format == 'TIFF'
    if backend == 'cv2' and header.bits > 8 and mixed:
        raise ImageDecodingError(
            f'{path} is {header}, which OpenCV mixes up without an error; {_TIFFFILE}'
        )
    if backend != 'tifffile' and whole and header.bands > (1 if img.ndim == 2 else img.shape[2]):
        raise ImageDecodingError(
            f'{path} is {header}, but the array that was decoded has the shape {img.shape}; '
            f'{_undecodable(loader, header) or _TIFFFILE}'
        )
    if header.kind == 'signed' and img.dtype == np.uint8 and header.bits == 8:
        raise ImageDecodingError(
            f'{path} is {header}, and color_type={loader.color_type!r} takes negative values for '
            f"large ones: color_type='unchanged', to_float32=True loads it (with 'cv2')"
        )
    if backend == 'cv2' and header.alpha and header.bits == 8:
        _check_alpha(path, header, img, whole)
    if backend != 'tifffile' and header.several:
        tell_once(
            'pages',
            f'{path} has several pages, of which the first is loaded. If they are bands of one '
            f'image, {_TIFFFILE}; if they are images, write each to a file of its own',
        )
    cut = isinstance(loader.color_type, str) and not whole and backend != 'tifffile'
    if header.bits > 8 and (cut or img.dtype.itemsize == 1):
        tell_once(
            'cut',
            f'{path} is {header}, which color_type={loader.color_type!r} of '
            f"{type(loader).__name__} (imdecode_backend={backend!r}) cuts to 8: the image's "
            f'largest value is {np.max(img[::8, ::8]):g} of 255. Of 12-bit data only 16 grey '
            f"levels are left. color_type='unchanged' (with 'cv2') loads all bits; mean and std of "
            f'the data_preprocessor are then to be those of the values',
        )


def _check_alpha(path: str, header: ImageHeader, img: NDArray, whole: bool) -> None:
    """See whether OpenCV has multiplied colours by a fourth band that is marked as opacity.

    By what is only 0 and 255, where there are data and where not, nothing is lost.
    """
    bands: NDArray | None = img
    if not whole:
        name = None if 'alpha' in _told else opencv_name(path)
        bands = None if name is None else cv2.imread(name, cv2.IMREAD_UNCHANGED)
    if bands is None or bands.ndim != 3 or bands.shape[2] != 4:
        return
    alpha = bands[..., 3]
    if not ((alpha > 0) & (alpha < 255)).any():
        return
    what = (
        f'{path} is {header}, the last of which is marked as opacity (alpha), and OpenCV '
        f"multiplies the colours by it; imdecode_backend='pillow' does not. If it is another band, "
        f'such as infrared, write the files without the mark (GDAL: ALPHA=NO)'
    )
    if whole:
        raise ImageDecodingError(what)
    tell_once('alpha', what)


def _check_palette(loader: LoadImageFromFile, path: str, img: NDArray) -> None:
    """Pillow gives indices into a palette; of PNG and TIFF the number of bands tells it."""
    if loader.imdecode_backend != 'pillow' or loader.color_type != 'unchanged' or img.ndim != 2:
        return
    try:
        with Image.open(path) as image:
            mode = image.mode
    except OSError:  # elsewhere than on this disk
        return
    if mode == 'P':
        raise ImageDecodingError(
            f"{path} has a palette, and imdecode_backend='pillow' gives places in it, not colours; "
            f"'cv2' gives the colours"
        )


def are_numbers(img: NDArray) -> bool:
    """Whether no value of an image is NaN, infinite, or stands for no data."""
    # A sum finds them without an array of their places.
    with np.errstate(invalid='ignore'):
        return bool(abs(np.sum(img, dtype=np.float64)) < NO_DATA)


def _tell_no_numbers(name: str, img: NDArray) -> None:
    """Tell the log of values that are no numbers, or stand for no data."""
    if 'numbers' in _told or are_numbers(img):
        return
    count = img.size - np.count_nonzero(np.abs(img) < NO_DATA)
    tell_once(
        'numbers',
        f'{name} has {count} values of {img.size} that are NaN, infinite or beyond '
        f'{NO_DATA:g}, as where there are no data. One is enough to make NaN of all that a '
        f'network finds: replace them in the files, or by a transform right after loading',
    )


def tell_once(what: str, message: str) -> None:
    """Tell the log, once in a process.

    Args:
        what (str): The kind of message, of which one is told.
        message (str): The message, without a full stop at the end.
    """
    if what not in _told:
        _told.add(what)
        print_log(
            f'{message}. Other files may be the same, this is said once',
            logger='current',
            level=logging.WARNING,
        )


def _ordered(img: NDArray, header: ImageHeader | None) -> NDArray:
    """The image in the machine's byte order, with its bands last."""
    if not img.dtype.isnative:
        img = img.astype(img.dtype.newbyteorder('='))
    size = (header.height, header.width) if header else img.shape[:2]
    # Bands or pages one after the other, as tifffile gives them.
    if img.ndim == 3 and img.shape[1:] == size and img.shape[:2] != size:
        img = np.ascontiguousarray(np.moveaxis(img, 0, 2))
    return img
