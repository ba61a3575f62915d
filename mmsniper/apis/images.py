"""Which images are meant, and how they are loaded and prepared for the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose

from mmsniper.datasets.decoding import load_checked

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
VIS, FOCUS = 'vis', 'focus'
"""Folders of the pictures that are drawn."""


def find_images(
    inputs: Sequence[str | os.PathLike[str]], out_dir: str | os.PathLike[str] | None = None
) -> dict[str, Path]:
    """The images to detect, by the names that they are given in the results.

    Args:
        inputs (Sequence[str | os.PathLike]): Files and folders. A file is taken whatever its
            suffix.
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
    for path in map(_absolute, inputs):
        if not path.exists():
            raise FileNotFoundError(f'{path} does not exist')
        roots.append(path if path.is_dir() else path.parent)
        if path.is_dir():
            images = filter(_is_image, path.rglob('*'))
            found |= {file for file in images if not any(map(file.is_relative_to, made))}
        else:
            found.add(path)
    if not found:
        raise FileNotFoundError(
            f'there are no images in {", ".join(map(str, inputs))}: no file ends in '
            f'{", ".join(SUFFIXES)}'
        )
    root = os.path.commonpath(roots)
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


class ImagePipeline:
    """A test pipeline for image files and arrays, from the configs of its transforms."""

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        loading, *others = transforms
        self._from_file = TRANSFORMS.build(loading)
        self._from_array = TRANSFORMS.build(dict(loading, type='mmdet.LoadImageFromNDArray'))
        self.prepare = Compose(others) if others else pack_as_it_is

    def load(self, image: str | os.PathLike[str] | np.ndarray) -> dict[str, Any]:
        """Load an image file, or take an array (h, w) or (h, w, bands) as it is: BGR, if of three.

        Raises:
            ImageDecodingError: If the file has what the pipeline's loader cannot decode, or the
                array is no image.
        """
        if isinstance(image, np.ndarray):
            return load_checked(self._from_array, self._from_array, dict(img=image, img_id=0))
        return self._from_file(dict(img_path=os.fspath(image), img_id=0))

    def __call__(self, image: str | os.PathLike[str] | np.ndarray) -> dict[str, Any]:
        """Load an image and prepare it for the model."""
        return self.prepare(self.load(image))


def pack_as_it_is(results: Mapping[str, Any]) -> dict[str, Any]:
    """Pack an image without copying it, which PackDetInputs would do."""
    kept = ('img_id', 'img_path', 'ori_shape', 'img_shape')
    sample = DetDataSample(metainfo={key: results[key] for key in kept})
    img = results['img'].reshape(*results['img_shape'], -1)  # one band may have no axis
    if min(img.strides) < 0:
        img = img.copy()  # Pillow's RGB as BGR, which PyTorch does not take
    return dict(inputs=torch.from_numpy(img).permute(2, 0, 1), data_samples=sample)
