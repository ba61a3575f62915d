"""Checks of image files: each is opened as training opens it, and compared with its annotations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mmdet.registry import TRANSFORMS
from PIL import Image

from mmsniper.checks.config import model_channels
from mmsniper.checks.finding import ERROR, NOTE, WARNING, Finding
from mmsniper.datasets.decoding import ImageDecodingError, are_numbers
from mmsniper.datasets.image_faults import image_fault
from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.datasets.transforms.load_image_windows import WINDOWS
from mmsniper.datasets.transforms.load_large_image import in_large_version
from mmsniper.datasets.wrappers import all_datasets, type_name
from mmsniper.utils.command_line import progress
from mmsniper.utils.image_header import read_header

_ORIENTATION = 274  # EXIF's tag; 1 is upright
_AS_LOADED = dict(P=3, PA=4, CMYK=3)  # Pillow's modes of other bands than OpenCV's
_ANIMATED = ('GIF', 'WEBP', 'PNG')
_MOST_THREADS = 16  # each holds an image
_MOST_NAMED = 5  # files of one fault that are named
_LOOKED_AT = 1024  # side of what is looked at of an image that is read by windows, px


class ImageEntry(NamedTuple):
    """An image as its annotations have it: the file, and its size in original px."""

    path: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Loading:
    """How a config loads images.

    Attributes:
        transform: The config of the transform that loads.
        channels: Number of channels that the model takes; None if that is not known.
        told_by: Key of the config that says so. Defaults to ``'model.data_preprocessor.mean'``.
    """

    transform: Mapping[str, Any]
    channels: int | None
    told_by: str = 'model.data_preprocessor.mean'


def image_entries(dataset: Any) -> list[ImageEntry]:
    """The image files of a data set that has been built, each once."""
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    entries = [ImageEntry(i['img_path'], i.get('width'), i.get('height')) for i in infos]
    return list(dict.fromkeys(entries))


def check_images(
    entries: Sequence[ImageEntry], loading: Loading, where: str, workers: int | None = None
) -> list[Finding]:
    """Open every image file, in several threads, and compare it with its annotations.

    Args:
        entries (Sequence[ImageEntry]): The images.
        loading (Loading): How they are loaded.
        where (str): Key of the data loader.
        workers (int | None): Number of threads. Defaults to None, one for each core, at most 16.

    Returns:
        list[Finding]: One for each kind of fault, with the number of files and the first of them.
    """
    transform = TRANSFORMS.build(in_large_version(loading.transform))
    faults: dict[tuple[str, str, str], list[str]] = {}
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        found = pool.map(lambda entry: list(_check_image(entry, transform, loading)), entries)
        for each in progress(found, f'{where}: images', total=len(entries), delay=0):
            for severity, kind, fix, what in each:
                faults.setdefault((severity, kind, fix), []).append(what)
    return [
        Finding(severity, where, _counted(kind, files, len(entries)), fix)
        for (severity, kind, fix), files in faults.items()
    ]


def _counted(kind: str, files: Sequence[str], total: int) -> str:
    more = f'; and {len(files) - _MOST_NAMED} more' if len(files) > _MOST_NAMED else ''
    return f'{len(files)} of {total} images {kind}: {"; ".join(files[:_MOST_NAMED])}{more}'


def _check_image(
    entry: ImageEntry, transform: Any, loading: Loading
) -> Iterator[tuple[str, str, str, str]]:
    """Severity, kind of fault, fix, and what is to be said of this file."""
    path = entry.path
    try:
        img = transform(dict(img_path=path, img_id=0))['img']
    except ImageDecodingError as error:  # the file is in order
        yield ERROR, 'cannot be loaded as they are', 'Load them as it says', str(error)
        return
    except Exception as error:  # of whatever kind: the other files are to be opened
        try:
            why = image_fault(path)
        except Exception:
            why = f'{type(error).__name__}: {str(error).partition(chr(10))[0]}'
        fix = 'Replace the files, or remove them from the annotation file'
        yield ERROR, 'cannot be loaded', fix, why if path in why else f'{path}: {why}'
        return
    orientation, bands, animated = _header(path)
    if animated:
        fix = 'Write each frame that was annotated to a file of its own'
        yield WARNING, 'are animations, of which the first frame is loaded', fix, path
    yield from _check_size(entry, img, orientation, loading)
    yield from _check_pixels(path, img, bands, loading)


def _check_size(
    entry: ImageEntry, img: np.ndarray | ImageWindows, orientation: int, loading: Loading
) -> Iterator[tuple[str, str, str, str]]:
    size, annotated = img.shape[1::-1], (entry.width, entry.height)
    if not entry.width:
        return
    what = f'{entry.path} is {size[0]}x{size[1]} px, annotated {entry.width}x{entry.height}'
    if annotated == size:
        # Upside down or mirrored, or square: the size does not tell how it was annotated.
        if orientation in (2, 3, 4) or (orientation > 4 and size[0] == size[1]):
            yield (
                WARNING,
                'are turned or mirrored by their EXIF data without another size, so that their '
                'boxes may belong to the image as it was before',
                'Look at them with browse_chips.py, or take the EXIF data out of the files',
                entry.path,
            )
        return
    if orientation < 5 or annotated != size[::-1]:
        fix = 'Take the images that were annotated, or correct width, height and boxes'
        yield ERROR, 'have another size than their annotations say', fix, what
        return
    colours = loading.transform.get('color_type', 'color')
    if 'ignore_orientation' in colours or colours == 'unchanged':
        kind = 'are loaded without the turn in their EXIF data, with which they were annotated'
        fix = 'Turn the files (exiftran -a, or save them anew), or load them turned: '
        fix += "LoadImageFromFile(color_type='color')"
    else:
        kind = 'are turned by their EXIF data when they are loaded, and were annotated without it'
        fix = 'Take it out of the files (exiftool -Orientation=), or load them as they are, in all '
        fix += "pipelines: LoadImageFromFile(color_type='color_ignore_orientation')"
    yield ERROR, kind, fix, what


def _check_pixels(
    path: str, img: np.ndarray | ImageWindows, bands: int | None, loading: Loading
) -> Iterator[tuple[str, str, str, str]]:
    channels = 1 if img.ndim == 2 else img.shape[2]
    header = read_header(path)
    if header is not None:
        bands = header.bands
        if header.bits > 8 and img.dtype == np.uint8 and not loading.transform.get('stretch'):
            yield (
                WARNING,
                'have more than 8 bits, and are cut to 8 by the way they are loaded',
                "Load all bits, LoadImageFromFile(color_type='unchanged'), with mean and std of "
                'such values',
                f'{path} is {header}',
            )
        backend = loading.transform.get('imdecode_backend', 'cv2')
        if header.several and backend != 'tifffile':
            fix = "Bands of one image: imdecode_backend='tifffile'; images: write each to a file"
            yield WARNING, 'have several pages, of which the first is loaded', fix, path
    looked_at = img.reduced(_LOOKED_AT) if isinstance(img, ImageWindows) else img
    if img.dtype.kind == 'f' and not are_numbers(looked_at):
        yield (
            WARNING,
            'have values that are NaN, infinite, or stand for no data',
            'Replace them in the files, or by a transform right after loading',
            path,
        )
    if loading.channels is not None and channels != loading.channels:
        yield (
            ERROR,
            f'have another number of channels than the {loading.channels} of {loading.told_by}',
            'Give mean and std for each channel and in_channels, or load the images otherwise '
            '(color_type)',
            f'{path} has {channels}',
        )
    elif bands == 1 and channels == 3:
        yield NOTE, 'are of one channel and loaded as colour, three times the same', '', path
    elif bands is not None and bands > channels:
        what = f'{path} has {bands} bands, {channels} of which are loaded'
        fix = "Fine for transparency; else LoadImageFromFile(color_type='unchanged')"
        yield WARNING if header and header.bits > 8 else NOTE, 'lose bands', fix, what


def _header(path: str) -> tuple[int, int | None, bool]:
    """EXIF orientation of an image, 1 for none, its number of bands, and whether it is animated."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                bands = _AS_LOADED.get(image.mode, len(image.getbands()))
                # A phone's JPEG may have previews, and the pages of a TIFF are looked at elsewhere.
                animated = image.format in _ANIMATED and getattr(image, 'n_frames', 1) > 1
                return int(image.getexif().get(_ORIENTATION, 1)), bands, animated
    except Exception:  # Pillow does not know all that OpenCV loads
        return 1, None, False


def config_loading(cfg: Mapping[str, Any], loader: str) -> Loading | None:
    """How the data of a data loader are loaded; None if no pipeline begins with that.

    Args:
        cfg (Config): The config.
        loader (str): Key of the data loader.
    """
    channels, told_by = model_channels(cfg)
    for dataset in all_datasets(cfg[loader].dataset):
        for transform in (dataset.get('pipeline') or [])[:1]:
            if type_name(transform) in ('LoadImageFromFile', 'LoadLargeImageFromFile', WINDOWS):
                return Loading(transform, channels, told_by)
    return None
