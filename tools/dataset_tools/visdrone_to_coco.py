"""Turn VisDrone-DET's annotations into COCO's format.

DATA_ROOT holds the folders as they are in the official archives, as many of them as there are:

    VisDrone2019-DET-train/{images,annotations}
    VisDrone2019-DET-val/{images,annotations}
    VisDrone2019-DET-test-dev/{images,annotations}

For each of them DATA_ROOT/annotations/{train,val,test_dev}.json is written, with the ten classes.
What is not to be evaluated becomes crowd boxes (iscrowd=1), which training ignores and in which
COCO's evaluation forgives any number of detections, of the box's own class:

- objects of a class with score 0: one crowd box of that class;
- ignored regions (category 0) and other objects (category 11), which have no class of their own:
  one crowd box of every class.

Objects that are no pixel wide or high are left out, as MMDetection leaves them out in training.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mmsniper.utils.command_line import command_parser, exit_on_error, progress
from mmsniper.utils.files import write_text

SPLITS = {
    'train': 'VisDrone2019-DET-train',
    'val': 'VisDrone2019-DET-val',
    'test_dev': 'VisDrone2019-DET-test-dev',
}
CLASSES = (
    'pedestrian',
    'people',
    'bicycle',
    'car',
    'van',
    'truck',
    'tricycle',
    'awning-tricycle',
    'bus',
    'motor',
)
CATEGORIES = range(1, len(CLASSES) + 1)
OF_NO_CLASS = (0, 11)


class Row(NamedTuple):
    """A line of an annotation file; numbers in pixels."""

    left: int
    top: int
    width: int
    height: int
    score: int
    category: int
    truncation: int
    occlusion: int


def parse_row(line: str) -> Row:
    """Read a line.

    Raises:
        ValueError: If it is not eight whole numbers, or one of them cannot be.
    """
    # Some of the official files end their lines with a comma.
    fields = line.strip().rstrip(',').split(',')
    if len(fields) != len(Row._fields):
        raise ValueError(
            f'expected {len(Row._fields)} numbers ({",".join(Row._fields)}), got '
            f'{len(fields)}: {line.strip()!r}'
        )
    try:
        row = Row(*map(int, fields))
    except ValueError:
        raise ValueError(f'expected whole numbers, got {line.strip()!r}') from None
    if row.category not in CATEGORIES and row.category not in OF_NO_CLASS:
        raise ValueError(
            f'category must be 0 (ignored region), 1..10, or 11 (others), got {row.category}'
        )
    if row.width < 0 or row.height < 0:
        raise ValueError(f'width and height must not be negative, got {row.width}x{row.height}')
    return row


def read_rows(path: Path) -> Iterator[Row]:
    """The lines of an annotation file.

    Raises:
        ValueError: For a line that is wrong, with its number.
    """
    for number, line in enumerate(path.read_text('utf-8').splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield parse_row(line)
        except ValueError as error:
            raise ValueError(f'{path}, line {number}: {error}') from None


def annotations_of(row: Row) -> Iterator[dict[str, Any]]:
    """A row as COCO annotations, without ids."""
    no_class = row.category in OF_NO_CLASS
    for category in CATEGORIES if no_class else (row.category,):
        yield dict(
            category_id=category,
            bbox=list(row[:4]),
            area=row.width * row.height,
            iscrowd=int(no_class or row.score == 0),
            truncation=row.truncation,
            occlusion=row.occlusion,
        )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's header."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise ValueError(f'{path} is not an image: {error}') from None


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, each of which has its annotation file.

    Raises:
        ValueError: If there are none, or images and annotation files do not belong together.
    """
    images = sorted((folder / 'images').glob('*.jpg'))
    if not images:
        raise ValueError(f'no .jpg in {folder / "images"}: unpack the official archive there')
    texts = {path.stem for path in (folder / 'annotations').glob('*.txt')}
    names = {path.stem for path in images}
    for missing, there, lacks in (
        (names - texts, 'image', 'an annotation file'),
        (texts - names, 'annotation file', 'an image'),
    ):
        if missing:
            raise ValueError(
                f'{folder}: {there}s without {lacks}: {len(missing)}, the first is '
                f'{min(missing)}; unpack the archive again'
            )
    return images


def convert(folder: Path) -> tuple[dict[str, Any], Counter]:
    """One split as COCO's dict, and how many boxes of which kind it has.

    Raises:
        ValueError: If a file is missing or wrong.
    """
    files = image_files(folder)
    images, annotations, counts = [], [], Counter()
    for image_id, path in enumerate(progress(files, folder.name, delay=0), 1):
        width, height = image_size(path)
        images.append(dict(id=image_id, file_name=path.name, width=width, height=height))
        for row in read_rows(folder / 'annotations' / f'{path.stem}.txt'):
            if not (row.width and row.height):
                counts['empty'] += 1
                continue
            new = list(annotations_of(row))
            counts['ignored' if new[0]['iscrowd'] else 'objects'] += 1
            for annotation in new:
                annotations.append(dict(annotation, id=len(annotations) + 1, image_id=image_id))
    categories = [dict(id=i, name=name) for i, name in zip(CATEGORIES, CLASSES)]
    return dict(images=images, categories=categories, annotations=annotations), counts


def convert_all(data_root: Path) -> None:
    """Write a JSON file for each split that is there, and say what is in it.

    Raises:
        ValueError: If there is none, or a file is missing or wrong.
    """
    found = {
        split: data_root / name for split, name in SPLITS.items() if (data_root / name).is_dir()
    }
    if not found:
        raise ValueError(f'none of {", ".join(SPLITS.values())} in {data_root}')
    for split, folder in found.items():
        coco, counts = convert(folder)
        path = data_root / 'annotations' / f'{split}.json'
        write_text(path, json.dumps(coco))
        print(
            f'{path}: {len(coco["images"])} images, {counts["objects"]} objects, '
            f'{counts["ignored"]} ignored regions and objects, {counts["empty"]} empty boxes '
            f'left out'
        )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'data_root',
        type=Path,
        nargs='?',
        default=Path('data/VisDrone'),
        help='folder of the unpacked archives',
    )
    return parser.parse_args(argv)


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    convert_all(parse_args(argv).data_root)


if __name__ == '__main__':
    main()
