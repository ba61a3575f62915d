"""Any image as a picture to draw on: 8 bits, three channels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.utils.image_header import NO_DATA

MAX_SIDE = 1600
"""Images are shrunk to this side before they are drawn in a figure, px; and images that are read by
windows whenever they are drawn."""

_LOW, _HIGH = 2, 98  # percentiles of an image's values that are drawn black and white
_COUNTED = 2**18  # pixels at most that percentiles are counted from
_ROWS = 256  # stretched at once: in float64 an image is eight times as large

# What OpenCV resizes, in the machine's own byte order.
_RESIZED = (np.uint8, np.uint16, np.int16, np.float32, np.float64)


def picture_name(name: str) -> str:
    """The file name of an image's picture: its own, or in a format that is written everywhere."""
    return name if name.lower().endswith(('.jpg', '.jpeg', '.png')) else f'{name}.png'


def check_image(image: NDArray | ImageWindows) -> None:
    """Raise ValueError if an array is no image: numbers, (h, w) or (h, w, bands)."""
    if isinstance(image, ImageWindows):
        return
    numbers = image.dtype == bool or np.issubdtype(image.dtype, np.number)
    if image.ndim not in (2, 3) or image.size == 0 or not numbers or np.iscomplexobj(image):
        raise ValueError(
            f'an image to draw on must be an array of numbers, (h, w) or (h, w, bands), got one of '
            f'shape {image.shape} and type {image.dtype}'
        )


def as_picture(
    image: NDArray | ImageWindows,
    max_side: int | None = None,
    limits: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Any image as 8-bit BGR.

    One band, or the first of two, is drawn grey; three are blue, green and red; of more the first
    three are. 8-bit values stay as they are. All others (16 bit, 12 bits in 16, float) are
    stretched: the 2nd percentile of the image's values, all drawn bands together, becomes black and
    the 98th white. NaN is black, and so is an image of a single value.

    Args:
        image (np.ndarray | ImageWindows): (h, w) or (h, w, bands), of any number type.
        max_side (int, optional): Reduce the image to this longer side, pixels. Defaults to None,
            its own size, or :data:`MAX_SIDE` if it is read by windows.
        limits (tuple[float, float], optional): Values that become black and white, for a part of an
            image those of the whole. Defaults to None, :func:`picture_limits`.

    Returns:
        np.ndarray: (h, w, 3) uint8 BGR, never the array that was given.

    Raises:
        ValueError: If the array is no image.
    """
    if isinstance(image, ImageWindows):
        image = image.reduced(max_side or MAX_SIDE)
    check_image(image)
    bands = shrunk(_drawn_bands(image), max_side or max(image.shape[:2]))
    if image.dtype != np.uint8:
        bands = _stretched(bands, *(limits or picture_limits(image)))
    return np.array(np.broadcast_to(bands.reshape(*bands.shape[:2], -1), (*bands.shape[:2], 3)))


def picture_limits(image: NDArray | ImageWindows) -> tuple[float, float]:
    """The values of an image that are drawn black and white, see :func:`as_picture`.

    Args:
        image (np.ndarray | ImageWindows): (h, w) or (h, w, bands). Of a large one some
            pixels are looked at, evenly spread.

    Returns:
        tuple[float, float]: Two different values; 0 and 255 for 8 bits.
    """
    if image.dtype == np.uint8:
        return 0.0, 255.0
    if isinstance(image, ImageWindows):
        image = image.reduced(MAX_SIDE)
    step = int(np.ceil(np.sqrt(np.prod(image.shape[:2]) / _COUNTED)))
    values = _drawn_bands(image)[::step, ::step].astype(np.float64)
    values = values[np.abs(values) < NO_DATA]  # neither infinite nor NaN
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [_LOW, _HIGH])
    if low == high:  # few pixels differ from the others
        low, high = values.min(), values.max()
    return float(low), float(high if high > low else np.nextafter(low, np.inf))


def _stretched(bands: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """Bands whose value ``low`` has become 0, and ``high`` 255."""
    made = np.empty(bands.shape, np.uint8)
    for start in range(0, len(bands), _ROWS):
        rows = np.nan_to_num(bands[start : start + _ROWS].astype(np.float64), nan=low)
        made[start : start + _ROWS] = (np.clip(rows, low, high) - low) / (high - low) * 255 + 0.5
    return made


def shrunk(image: NDArray, max_side: int) -> NDArray:
    """An image of up to four bands, reduced to a longer side of ``max_side`` pixels if larger."""
    shrink = max_side / max(image.shape[:2])
    if shrink >= 1:
        return image
    if image.dtype not in _RESIZED or not image.dtype.isnative:
        image = image.astype(np.float32)
    size = tuple(max(round(side * shrink), 1) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _drawn_bands(image: NDArray) -> NDArray:
    """The band, or the three, that are drawn, (h, w) or (h, w, 3)."""
    if image.ndim == 2:
        return image
    return image[..., :3] if image.shape[2] >= 3 else image[..., 0]
