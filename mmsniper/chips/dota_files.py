"""DOTA's annotations: a text file for each image, with the corners of its objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable


def read_dota(folder: str | PathLike, size_of: Callable[[str], tuple[int, int]]) -> AnnotationTable:
    """Read a folder of DOTA's annotation files, as MMRotate's ``DOTADataset`` does.

    The two lines at the top of DOTA's own files (``imagesource:``, ``gsd:``) are passed over.
    Difficult objects count, as they do in MMRotate's configs.

    Args:
        folder (str | PathLike): Folder of the files ``*.txt``, which are read in the order of their
            names.
        size_of (Callable[[str], tuple[int, int]]): Width and height of an image, original px, by
            the name of its annotation file without ``.txt``: the files do not tell them.

    Returns:
        AnnotationTable: All images, those without objects, too.

    Raises:
        ValueError: If there is no file, or a line is not eight numbers and a class.
    """
    files = sorted(Path(folder).glob('*.txt'))
    if not files:
        raise ValueError(f"there is no annotation file *.txt in the folder {folder}: DOTA's are so")
    return AnnotationTable.from_images(
        (*size_of(file.stem), _corners_in(file), None) for file in files
    )


def _corners_in(file: Path) -> NDArray[np.float64]:
    return np.array(list(_objects(file)), np.float64).reshape(-1, 8)


def _objects(file: Path) -> Iterator[list[float]]:
    for number, line in enumerate(file.read_text('utf-8', errors='replace').splitlines(), 1):
        values = line.split()
        if not values or ':' in values[0]:
            continue
        try:
            if len(values) < 9:
                raise ValueError(f'it has {len(values)} values')
            yield [float(value) for value in values[:8]]
        except ValueError as error:
            raise ValueError(
                f'{file}, line {number}: expected x1 y1 x2 y2 x3 y3 x4 y4 class difficulty, as '
                f'in DOTA; {error}'
            ) from None
