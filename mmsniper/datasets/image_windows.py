"""An image of which windows are read: its bands, its values, and windows at any scale."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.image.geometric import cv2_interp_codes
from numpy.typing import NDArray

from mmsniper.datasets.decoding import ImageDecodingError, check_array, tell_once
from mmsniper.datasets.windowed_files import PixelWindow, WindowedFile
from mmsniper.utils.image_header import NO_DATA

Stretch = tuple[float, float] | Sequence[tuple[float, float]] | Mapping[str, tuple[float, float]]

_COLOURS = ('color', 'color_ignore_orientation')

# How much coarser than asked for an overview may be: what rounding to whole pixels makes.
_COARSER = 0.05

# A window of more pixels is reduced while it is read, so that memory has a bound.
_MOST_PIXELS = 2**27
_STRIP = 2**24  # pixels that are read at a time then

_MOST_WARPED = 2**15 - 2  # side of what OpenCV warps, px

# What percentiles are counted from: an overview of this longer side at least, px; or windows.
_OVERVIEW_SIDE, _SAMPLES, _SAMPLE_SIDE = 512, 8, 256


class ImageWindows:
    """An image of which windows are read, in place of an array that holds all of it.

    It has what is asked of an image before a chip is cut out: ``shape``, ``ndim``, ``dtype`` and
    ``image[y1:y2, x1:x2]``. And it has :meth:`read`, a window at the scale of a level. It can be
    pickled and used after a fork; the file is opened again in each process.

    *Bands.* ``bands`` are taken as they are given, numbered from 1 as GDAL does. Without them:
    one band is shown three times with ``color_type='color'``, and is one otherwise. Of three or
    four bands of TIFF and JPEG 2000 the first three are turned from RGB to BGR, as OpenCV does;
    ``'color'`` takes these three, ``'unchanged'`` all. A fourth band that is marked as opacity is a
    band like others. Arrays are BGR already. Other numbers of bands need ``bands``, or
    ``'unchanged'``, which takes them as they are.

    *Values.* With ``stretch`` they become 8 bits: what is at or below the lower limit is 0, at or
    above the upper one 255, linear between. Limits are two numbers for all bands, two for each, or
    ``dict(percentiles=(2, 98))``: of each band these percentiles of the whole image, never of a
    window. They are counted once from the coarsest overview of at least 512 px, or without
    overviews from 64 windows of 256 px evenly spread, without values that stand for no data.
    Without ``stretch`` values stay as they are, but that 16 bits with ``'color'`` become 8 as
    OpenCV makes them, which the log is told.

    Args:
        file (WindowedFile): The file.
        bands (Sequence[int] | None): Bands to take, from 1 on. Defaults to None, see above.
        stretch (tuple | Sequence[tuple] | dict | None): Limits. Defaults to None, see above.
        color_type (str): As for ``LoadImageFromFile``. Defaults to ``'color'``.
        to_float32 (bool): Values become float32. Defaults to False.

    Attributes:
        path (str): The file.
        shape (tuple[int, ...]): (h, w) of one band, (h, w, bands) of several.
        dtype (np.dtype): Type of the values.

    Raises:
        ImageDecodingError: If the bands or values are none that a detector can be given.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        file: WindowedFile,
        bands: Sequence[int] | None = None,
        stretch: Stretch | None = None,
        color_type: str = 'color',
        to_float32: bool = False,
    ) -> None:
        self.path, self._file = file.path, file
        self._bands, shown_thrice = _chosen_bands(file, bands, color_type)
        self._times = 3 if shown_thrice else 1
        channels = len(self._bands) * self._times
        self.shape: tuple[int, ...] = (
            file.shape[:2] if channels == 1 else (*file.shape[:2], channels)
        )
        self._limits = None if stretch is None else _limits(file, self._bands, stretch)
        self._to_eight_bits = stretch is None and bands is None and color_type in _COLOURS
        if self._to_eight_bits and file.dtype not in (np.uint8, np.uint16):
            raise ImageDecodingError(
                f'{file.path} has values of type {file.dtype}, and color_type={color_type!r} is '
                f"for 8 and 16 bits: give stretch=(low, high), or color_type='unchanged'"
            )
        if self._to_eight_bits and file.dtype == np.uint16:
            tell_once(
                'stretch',
                f'{file.path} has 16 bits, which color_type={color_type!r} cuts to 8 as if all '
                f'were used: of 12-bit data only 16 grey levels are left. '
                f"stretch=dict(percentiles=(2, 98)) uses all 8, color_type='unchanged' keeps 16",
            )
        eight = self._limits is not None or self._to_eight_bits
        self._values = np.dtype(np.uint8 if eight else file.dtype)
        self.dtype = np.dtype(np.float32) if to_float32 else self._values
        check_array(file.path, self.shape, self.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, shape={self.shape}, dtype={self.dtype})'

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray:
        """The pixels of a window, ``image[y1:y2, x1:x2]``."""
        if not (isinstance(window, tuple) and len(window) == 2) or any(
            not isinstance(part, slice) or part.step not in (None, 1) for part in window
        ):
            raise TypeError(f'{self!r} is read by windows, image[y1:y2, x1:x2], got {window!r}')
        (y1, y2, _), (x1, x2, _) = (
            part.indices(side) for part, side in zip(window, self.shape[:2])
        )
        return self._shaped(self._pixels(0, (x1, y1, x2, y2)))

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray:
        raise TypeError(
            f'{self!r} is read by windows and has no array of the whole image: in training put '
            f'ChipSampler right after LoadAnnotations, in testing pack with PackImageWindows and '
            f'test with a PyramidDetector or AutoFocus; or load with LoadLargeImageFromFile'
        )

    def read(
        self, window: PixelWindow, size: tuple[int, int], interpolation: str = 'bilinear'
    ) -> NDArray:
        """A window, resized.

        Without overviews these are the pixels of ``mmcv.imresize(image[y1:y2, x1:x2], size)``. An
        overview is taken, the coarsest, if it is at least as fine as asked for, give or take 5 %
        for what rounding has made of the size. Of a window of more than 134 million pixels that is
        shown at half its size or smaller, means of squares are resized, which need no more memory.

        Args:
            window (tuple[int, int, int, int]): (x1, y1, x2, y2), whole original pixels inside the
                image.
            size (tuple[int, int]): Width and height of the result.
            interpolation (str): As in ``mmcv.imresize``. Defaults to ``'bilinear'``.

        Returns:
            np.ndarray: (h, w) or (h, w, bands), as ``shape`` has it.

        Raises:
            ImageDecodingError: If the file cannot be read there.
        """
        version = self._version(window, size)
        x1, y1, x2, y2 = window
        if version == 0 and not self._is_too_large(window, size):
            img = mmcv.imresize(self._pixels(0, window), size, interpolation=interpolation)
            return self._shaped(img.reshape(*size[::-1], -1))
        box = np.array([x1, y1, x2, y2]) * np.tile(self._file.scale(version), 2)
        low = np.floor(box[:2] + 1e-6).astype(int)
        high = np.minimum(np.ceil(box[2:] - 1e-6).astype(int), self._file.size(version))
        hull = (*low.tolist(), *np.maximum(high, low + 1).tolist())
        box -= np.tile(low, 2)
        if self._is_too_large(hull, size):
            pixels, factor = self._reduced(version, hull, size)
            box /= factor
        else:
            pixels = self._pixels(version, hull)
        img = _resized_part(pixels, box, size, interpolation)
        return self._shaped(img.reshape(*size[::-1], -1))

    def reduced(self, max_side: int) -> NDArray:
        """The whole image, at most ``max_side`` px a side, as :meth:`read` makes it."""
        height, width = self.shape[:2]
        shrink = min(1.0, max_side / max(width, height))
        size = max(round(width * shrink), 1), max(round(height * shrink), 1)
        return self.read((0, 0, width, height), size, 'area')

    def _version(self, window: PixelWindow, size: tuple[int, int]) -> int:
        """The coarsest of the stored versions that is fine enough."""
        x1, y1, x2, y2 = window
        scale = max(size[0] / (x2 - x1), size[1] / (y2 - y1)) * (1 - _COARSER)
        return max(
            i for i, factor in enumerate(self._file.factors) if i == 0 or scale <= 1 / factor
        )

    def _is_too_large(self, window: PixelWindow, size: tuple[int, int]) -> bool:
        width, height = window[2] - window[0], window[3] - window[1]
        return width * height > _MOST_PIXELS and _means(window, size) > 1

    def _reduced(
        self, version: int, window: PixelWindow, size: tuple[int, int]
    ) -> tuple[NDArray, int]:
        """Means of squares of a window, read in strips of rows, and the squares' side."""
        side = _means(window, size)
        x1, y1, x2, y2 = window
        columns = -(-(x2 - x1) // side)
        rows = max(_STRIP // (x2 - x1) // side, 1) * side
        parts = []
        for top in range(y1, y2, rows):
            strip = self._pixels(version, (x1, top, x2, min(top + rows, y2)))
            # The last squares may be cut by the window.
            count = -(-len(strip) // side)
            below, right = count * side - len(strip), columns * side - strip.shape[1]
            if below or right:
                strip = np.pad(strip, ((0, below), (0, right), (0, 0)), 'edge')
            part = cv2.resize(strip, (columns, count), interpolation=cv2.INTER_AREA)
            parts.append(part.reshape(count, columns, -1))
        return np.concatenate(parts), side

    def _pixels(self, version: int, window: PixelWindow) -> NDArray:
        """A window of a stored version, (h, w, bands), as the image has its values."""
        img = self._file.pixels(version, window, self._bands)
        if self._limits is not None:
            img = _stretched(img, self._limits)
        elif self._to_eight_bits and img.dtype == np.uint16:
            img = _eight_bits(img)
        if self._times > 1:
            img = np.repeat(img, self._times, axis=2)
        return img.astype(self.dtype, copy=False)

    def _shaped(self, img: NDArray) -> NDArray:
        return img.reshape(*img.shape[:2], *self.shape[2:])


def check_stretch(stretch: Stretch | None) -> None:
    """Raise ValueError if limits are none."""
    if stretch is None:
        return
    if isinstance(stretch, Mapping):
        pair: Any = stretch.get('percentiles')
        fits = set(stretch) == {'percentiles'} and _is_rising(pair)
        fits = fits and pair[0] >= 0 and pair[1] <= 100
    else:
        pairs: list[Any] = [stretch] if np.ndim(stretch) == 1 else list(stretch)
        fits = bool(pairs) and all(map(_is_rising, pairs))
    if not fits:
        raise ValueError(
            f'stretch must be two numbers (low, high), two for each band, or '
            f'dict(percentiles=(low, high)), the lower one first; got {stretch!r}'
        )


def _is_rising(pair: Any) -> bool:
    try:
        low, high = pair
        return bool(low < high)
    except (TypeError, ValueError):
        return False


def _chosen_bands(
    file: WindowedFile, bands: Sequence[int] | None, color_type: str
) -> tuple[tuple[int, ...], bool]:
    """Which bands are read, from 0 on, and whether the one is shown three times."""
    count = file.shape[2]
    has = f'{file.path} has {count} band{"s" if count > 1 else ""}'
    if bands is not None:
        if not bands or not all(1 <= band <= count for band in bands):
            raise ImageDecodingError(f'{has}, numbered from 1, and bands={tuple(bands)} are asked')
        return tuple(band - 1 for band in bands), False
    if count == 1:
        return (0,), color_type in _COLOURS
    colours = (2, 1, 0) if file.is_rgb else (0, 1, 2)
    if color_type in _COLOURS and count in (3, 4):
        return colours, False
    if color_type == 'unchanged':
        return (*colours, 3)[:count] if count in (3, 4) else tuple(range(count)), False
    takes = 'one' if color_type == 'grayscale' else 'one, three or four'
    raise ImageDecodingError(
        f'{has}, and color_type={color_type!r} is for {takes}: choose bands=(...), numbered from '
        f"1, or color_type='unchanged' for all"
    )


def _limits(file: WindowedFile, bands: tuple[int, ...], stretch: Stretch) -> NDArray[np.float64]:
    """Lower and upper limits, shape (2, bands)."""
    check_stretch(stretch)
    if isinstance(stretch, Mapping):
        low, high = stretch['percentiles']
        return _percentiles(file, bands, (low, high))
    limits = np.array(stretch, np.float64).reshape(-1, 2)
    if len(limits) not in (1, len(bands)):
        raise ImageDecodingError(
            f'stretch has limits for {len(limits)} bands, and {len(bands)} are taken of {file.path}'
        )
    return np.broadcast_to(limits, (len(bands), 2)).T


_counted: dict[tuple[Any, ...], NDArray[np.float64]] = {}


def _percentiles(
    file: WindowedFile, bands: tuple[int, ...], percentiles: tuple[float, float]
) -> NDArray[np.float64]:
    """Two percentiles of each band of an image, shape (2, bands), see :class:`ImageWindows`.

    Counted once in a process, as long as the file stays as it is.
    """
    stat = os.stat(file.path)
    key = (file.path, stat.st_mtime_ns, stat.st_size, bands, percentiles)
    if key not in _counted:
        pixels = _sample(file, bands)
        pairs = [
            _band_percentiles(pixels[..., i], file.no_data, percentiles) for i in range(len(bands))
        ]
        _counted[key] = np.array(pairs).T
    return _counted[key]


def _band_percentiles(
    band: NDArray, no_data: float | None, percentiles: tuple[float, float]
) -> tuple[float, float]:
    band = band.astype(np.float64)
    keep = np.abs(band) < NO_DATA  # neither infinite nor NaN
    if no_data is not None:
        keep &= band != no_data
    values = band[keep]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, percentiles)
    if low == high:  # few pixels differ from the others
        low, high = values.min(), values.max()
    return low, high if high > low else low + 1


def _sample(file: WindowedFile, bands: tuple[int, ...]) -> NDArray:
    """Pixels that stand for those of the whole image, (h, w, bands)."""
    side = max(file.shape[:2])
    version = max(i for i, f in enumerate(file.factors) if i == 0 or side / f >= _OVERVIEW_SIDE)
    width, height = file.size(version)
    if max(width, height) <= _SAMPLES * _SAMPLE_SIDE:
        return file.pixels(version, (0, 0, width, height), bands)

    def starts(length: int) -> list[int]:
        return np.linspace(0, max(length - _SAMPLE_SIDE, 0), _SAMPLES).astype(int).tolist()

    w, h = min(width, _SAMPLE_SIDE), min(height, _SAMPLE_SIDE)
    return np.concatenate(
        [
            file.pixels(version, (x, y, x + w, y + h), bands)
            for y in starts(height)
            for x in starts(width)
        ]
    )


def _stretched(img: NDArray, limits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Values whose lower limit has become 0, and the upper one 255; NaN is 0."""
    low, high = limits.astype(np.float32)
    made = (img.astype(np.float32) - low) * (255 / (high - low))
    return (np.nan_to_num(np.clip(made, 0, 255, out=made)) + 0.5).astype(np.uint8)


def _eight_bits(img: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16 bits as 8, as OpenCV reads a TIFF: colours rounded, grey cut."""
    if img.shape[2] == 1:
        return (img >> 8).astype(np.uint8)
    return ((img.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _means(window: PixelWindow, size: tuple[int, int]) -> int:
    """Side of the squares whose means are at least as fine as a window of a size needs them."""
    return max(int(min((window[2] - window[0]) / size[0], (window[3] - window[1]) / size[1])), 1)


def _resized_part(
    img: NDArray, box: NDArray[np.float64], size: tuple[int, int], interpolation: str
) -> NDArray:
    """A part of an image whose edges may lie between pixels, resized.

    As ``cv2.resize`` does with whole pixels: the box's corners are the result's.
    """
    if max(img.shape[:2]) > _MOST_WARPED:  # then a pixel is next to nothing of the box
        return mmcv.imresize(img, size, interpolation=interpolation)
    sx, sy = (box[2:] - box[:2]) / size
    from_result = np.array(
        [[sx, 0, box[0] + sx / 2 - 0.5], [0, sy, box[1] + sy / 2 - 0.5]], np.float64
    )
    return cv2.warpAffine(
        img,
        from_result,
        size,
        flags=cv2_interp_codes[interpolation] | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
