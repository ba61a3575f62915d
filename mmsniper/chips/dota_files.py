"""DOTA's annotations: a text file for each image, with the corners of its objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.coco_file import listed, nearest_name
from mmsniper.utils.image_header import image_size


def read_dota_folder(
    folder: str | PathLike,
    images: str | PathLike | None = None,
    classes: Sequence[str] | None = None,
    keep_empty: bool = True,
) -> AnnotationTable:
    """As :func:`read_dota`, with the sizes of the images from the headers of their files.

    Args:
        folder (str | PathLike): Folder of the annotation files.
        images (str | PathLike | None): Folder of the images, of whatever suffix. Defaults to None,
            the folder ``images`` beside that of the annotation files.
        classes (Sequence[str] | None): See :func:`read_dota`. Defaults to None.
        keep_empty (bool): See :func:`read_dota`. Defaults to True.

    Raises:
        OSError: If the header of an image cannot be read.
        ValueError: As :func:`read_dota`, or if there is no image of an annotation file.
    """
    _annotation_files(folder)  # without which the images are of no use
    images = Path(images or Path(folder).resolve().parent / 'images')
    if not images.is_dir():
        raise ValueError(
            f"there is no folder of images {images}, whose headers tell the sizes that DOTA's "
            f'annotation files lack: name it (--images)'
        )
    files = {file.stem: file for file in sorted(images.iterdir())}

    def size_of(name: str) -> tuple[int, int]:
        if name not in files:
            raise ValueError(
                f'there is no image of {Path(folder) / name}.txt in {images}: expected '
                f'{name}.png, or another suffix; if they are elsewhere, name the folder (--images)'
            )
        return image_size(files[name])

    return read_dota(folder, size_of, classes, keep_empty)


def read_dota(
    folder: str | PathLike,
    size_of: Callable[[str], tuple[int, int]],
    classes: Sequence[str] | None = None,
    keep_empty: bool = True,
) -> AnnotationTable:
    """Read a folder of DOTA's annotation files, as MMRotate's ``DOTADataset`` does.

    The two lines at the top of DOTA's own files (``imagesource:``, ``gsd:``) are passed over.
    Difficult objects count, as they do in MMRotate's configs.

    Args:
        folder (str | PathLike): Folder of the files ``*.txt``, which are read in the order of their
            names.
        size_of (Callable[[str], tuple[int, int]]): Width and height of an image, original px, by
            the name of its annotation file without ``.txt``: the files do not tell them.
        classes (Sequence[str] | None): The classes that objects may have. Defaults to None, any.
        keep_empty (bool): Also read images without objects. Defaults to True.

    Raises:
        ValueError: If there is no file, or a line is not eight numbers and a class; the message
            names the line.
    """
    corners = ((file, _corners_in(file, classes)) for file in _annotation_files(folder))
    return AnnotationTable.from_images(
        (*size_of(file.stem), boxes, None) for file, boxes in corners if keep_empty or len(boxes)
    )


def dota_fault(folder: str | PathLike, classes: Sequence[str]) -> str:
    """What of a folder MMRotate's ``DOTADataset`` cannot read, and names badly.

    Args:
        folder (str | PathLike): Folder of the annotation files.
        classes (Sequence[str]): The classes of the data set.

    Returns:
        str: The first fault, '' if there is none of those that are known.
    """
    try:
        for file in _annotation_files(folder):
            for number, line in enumerate(_lines(file), 1):
                if _is_object(line):
                    _parsed(line, f'{file}, line {number}', classes, values=10)
                else:
                    return (
                        f"{file}, line {number}, {line.strip()!r}, is no object: MMRotate's "
                        f"DOTADataset does not read DOTA's first two lines, nor empty ones. Drop "
                        f'them (docs/howto/rotated_boxes.md)'
                    )
    except ValueError as error:
        return str(error)
    return ''


def _annotation_files(folder: str | PathLike) -> list[Path]:
    files = sorted(Path(folder).glob('*.txt'))
    if files:
        return files
    what = 'there is no such folder'
    if Path(folder).is_dir():
        below = sorted({str(file.parent) for file in Path(folder).glob('*/*.txt')})
        what = f'there are some in {listed(below)}' if below else 'there is none'
    raise ValueError(
        f"expected DOTA's annotation files *.txt, one for each image, in the folder {folder}, but "
        f'{what}'
    )


def _corners_in(file: Path, classes: Sequence[str] | None) -> NDArray[np.float64]:
    corners = [
        _parsed(line, f'{file}, line {number}', classes)
        for number, line in enumerate(_lines(file), 1)
        if _is_object(line)
    ]
    return np.array(corners, np.float64).reshape(-1, 8)


def _lines(file: Path) -> list[str]:
    return file.read_text('utf-8', errors='replace').splitlines()


def _is_object(line: str) -> bool:
    values = line.split()
    return bool(values) and ':' not in values[0]


def _parsed(line: str, where: str, classes: Sequence[str] | None, values: int = 9) -> list[float]:
    """The corners in a line of at least so many values."""
    found = line.split()
    try:
        if len(found) < values:
            raise ValueError(f'it has {len(found)} values')
        corners = [float(value) for value in found[:8]]
        for difficulty in found[9:values]:
            int(difficulty)
    except ValueError as error:
        raise ValueError(
            f'{where}: expected x1 y1 x2 y2 x3 y3 x4 y4 class difficulty, as in DOTA; {error}'
        ) from None
    name = found[8]
    if classes is not None and name not in classes:
        meant = nearest_name(name, classes)
        raise ValueError(
            f'{where}: the class {name!r} is not among those of the config, {listed(classes)}'
            + (f': write {meant!r} there, or' if meant else ':')
            + ' name it in metainfo=dict(classes=(...))'
        )
    return corners
