"""Which images are meant, and how they are loaded and prepared for the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from glob import glob
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from mmengine.logging import print_log
from torch import Tensor

from mmsniper.datasets.decoding import load_checked, load_or_raise
from mmsniper.datasets.image_faults import APPLE_DOUBLE, image_fault
from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.datasets.windowed_files import is_zarr
from mmsniper.models.views import TEXT_KEYS
from mmsniper.utils.missing_files import IMAGE_SUFFIXES

VIS, FOCUS = 'vis', 'focus'
"""Folders of the pictures that are drawn."""

LARGE_BYTES = 2**28
"""Decoded images of more bytes are not loaded ahead of others, nor put into batches."""

ImageOrTold = str | os.PathLike[str] | np.ndarray | Mapping[str, Any]
"""A file, an array, or what ``DetInferencer`` makes of one and a text: a dict of both."""

# Folders with copies of images, which Jupyter, macOS and Synology make.
_COPIES = ('.ipynb_checkpoints', '__MACOSX', '@eaDir')


def find_images(
    inputs: Sequence[str | os.PathLike[str]], out_dir: str | os.PathLike[str] | None = None
) -> dict[str, Path]:
    """The images to detect, by the names that they are given in the results.

    Folders behind links are searched, too. What is left out of a folder is logged.

    Args:
        inputs (Sequence[str | os.PathLike]): Files, folders, and patterns such as
            ``'images/*.png'``. A file is taken whatever its suffix; a folder of Zarr is an image.
        out_dir (str | os.PathLike | None): Folder of the pictures that are drawn; they are no
            input. Defaults to None.

    Returns:
        dict[str, Path]: Paths by name, sorted; a name is the path from the folder that holds all
        inputs.

    Raises:
        FileNotFoundError: If an input does not exist or there is no image.
    """
    made = [] if out_dir is None else [_absolute(out_dir) / folder for folder in (VIS, FOCUS)]
    roots, found = [], set()
    left_out: dict[str, list[str]] = {}
    for path in (_absolute(one) for given in inputs for one in _matching(os.fspath(given))):
        is_folder = path.is_dir() and not is_zarr(path)
        roots.append(path if is_folder else path.parent)
        if is_folder:
            images = _images_below(path, left_out)
            found |= {file for file in images if not any(map(file.is_relative_to, made))}
        else:
            found.add(path)
    what = '; '.join(f'{len(names)} {why} ({_some(names)})' for why, names in left_out.items())
    if not found:
        raise FileNotFoundError(
            f'there are no images in {", ".join(map(str, inputs))}: no file ends in '
            f'{", ".join(IMAGE_SUFFIXES)}' + (f'; left out: {what}' if what else '')
        )
    if what:
        print_log(f'left out: {what}', logger='current')
    root = os.path.commonpath(roots)
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))


def _matching(given: str) -> list[str]:
    """The file or folder itself; of a pattern, which no shell has filled in, what matches it."""
    if os.path.exists(given):
        return [given]
    matching = glob(given, recursive=True)
    if not matching:
        raise FileNotFoundError(
            f'{_absolute(given)} does not exist. {image_fault(given, "the command")}'
        )
    return matching


def _images_below(folder: Path, left_out: dict[str, list[str]]) -> Iterator[Path]:
    """The images in a folder and below it; the names of what is left out are added by reason."""

    def note(error: OSError) -> None:
        left_out.setdefault('folders that may not be read', []).append(str(error.filename))

    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        for name in sorted(folders):
            path = Path(parent, name)
            if name in _COPIES:
                left_out.setdefault('folders of copies', []).append(name)
            elif is_zarr(path):
                yield path
            elif path.is_symlink() and _leads_up(path, folder):
                left_out.setdefault('links to a folder above them', []).append(name)
            else:
                continue
            folders.remove(name)
        for name in files:
            path = Path(parent, name)
            if not path.is_file():
                left_out.setdefault('links to nowhere, or no files', []).append(name)
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                left_out.setdefault('files with other suffixes', []).append(name)
            elif name.startswith('._') and _begins(path, APPLE_DOUBLE):
                left_out.setdefault('files that macOS keeps beside others', []).append(name)
            else:
                yield path


def _begins(path: Path, mark: bytes) -> bool:
    with open(path, 'rb') as file:
        return file.read(len(mark)) == mark


def _leads_up(link: Path, top: Path) -> bool:
    """Whether a link is to a folder that it is in, so that following it would have no end."""
    target = link.resolve()
    above = [parent for parent in link.parents if parent.is_relative_to(top)]
    return any(parent.resolve().is_relative_to(target) for parent in above)


def _some(names: Sequence[str]) -> str:
    return ', '.join(sorted(set(names))[:3]) + (', ...' if len(set(names)) > 3 else '')


class ImagePipeline:
    """A test pipeline for image files and arrays.

    Args:
        transforms (Sequence[dict]): Configs of the transforms, of which the first loads the image.

    Attributes:
        texts (dict): Which of :data:`~mmsniper.models.views.TEXT_KEYS` images have that come
            without; empty for a detector that takes no texts.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        self.texts: dict[str, Any] = {}
        loading, *others = transforms
        self._from_file = TRANSFORMS.build(loading)
        known = signature(LoadImageFromFile.__init__).parameters  # an array has its own bands
        settings = {key: value for key, value in loading.items() if key in known}
        self._from_array = TRANSFORMS.build(dict(settings, type='mmdet.LoadImageFromNDArray'))
        self._pack = Compose(others) if others else pack_as_it_is

    def load(self, image: ImageOrTold) -> dict[str, Any]:
        """Load an image file, or take an array (h, w) or (h, w, bands) as it is: BGR, if of three.

        Args:
            image (str | os.PathLike | np.ndarray | dict): The image; in a dict ``img_path`` or
                ``img``, and its texts.

        Raises:
            ImageDecodingError: If the file has what the pipeline's loader cannot decode, or the
                array is no image.
        """
        source: Any = image
        texts = self.texts
        if isinstance(image, Mapping):
            source, texts = image.get('img', image.get('img_path')), _texts_of(image)
        if isinstance(source, np.ndarray):
            load = partial(load_checked, self._from_array, self._from_array)
            results = load_or_raise(load, dict(img=source, img_id=0))
        else:
            results = load_or_raise(self._from_file, dict(img_path=os.fspath(source), img_id=0))
        return {**results, **texts}

    def prepare(self, results: dict[str, Any]) -> dict[str, Any]:
        """Prepare an image that is loaded for the model, with its texts."""
        texts = _texts_of(results)
        packed = self._pack(results)
        packed['data_samples'].set_metainfo(texts)
        return packed

    def __call__(self, image: ImageOrTold) -> dict[str, Any]:
        """Load an image and prepare it for the model."""
        return self.prepare(self.load(image))


def _texts_of(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: results[key] for key in TEXT_KEYS if key in results}


def pack_as_it_is(results: Mapping[str, Any]) -> dict[str, Any]:
    """Pack an image without copying it, which PackDetInputs would do, or as it is read."""
    kept = ('img_id', 'img_path', 'ori_shape', 'img_shape')
    sample = DetDataSample(metainfo={key: results[key] for key in kept})
    img = results['img']
    if isinstance(img, ImageWindows):
        return dict(inputs=img, data_samples=sample)
    img = img.reshape(*results['img_shape'], -1)  # one band may have no axis
    if min(img.strides) < 0:
        img = img.copy()  # Pillow's RGB as BGR, which PyTorch does not take
    return dict(inputs=torch.from_numpy(img).permute(2, 0, 1), data_samples=sample)


def are_large(inputs: Iterable[Tensor | ImageWindows]) -> bool:
    """Whether images, as the model takes them, have more than ``LARGE_BYTES`` together.

    An image that is read by windows is not in memory.
    """
    return sum(i.nbytes for i in inputs if isinstance(i, Tensor)) > LARGE_BYTES
