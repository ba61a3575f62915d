"""A training set of uniform tiles, as SAHI cuts them, beside the whole images.

It is what SNIPER is compared with: what users do today. Needs SAHI (``pip install -r
requirements/benchmark.txt``).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from mmsniper.utils.files import write_json

TILES = 'tiles'
"""Folder of the cut images, beside the annotation file."""


def cut_tiles(annotations: Path, images: Path, out: Path, side: int, overlap: float = 0.2) -> None:
    """Cut the images of a COCO annotation file into tiles, and write one file of both.

    Whole images come after the tiles, by their absolute path. A tile without an object is listed,
    too: ``filter_empty_gt`` says whether it is trained on. An object is left out of a tile that
    holds less than a tenth of it (SAHI's default). Nothing is done where ``out`` says that it was
    made of the same.

    Args:
        annotations (Path): The training set's file.
        images (Path): The folder that its file names start from.
        out (Path): The file to write. Tiles go into the folder ``tiles`` beside it.
        side (int): Of a tile, in px of the image.
        overlap (float): Share of a tile that the next one repeats. Defaults to 0.2.

    Raises:
        ModuleNotFoundError: If SAHI is not installed.
    """
    made_of = dict(annotations=str(annotations.resolve()), side=side, overlap=overlap)
    made_of['changed'] = annotations.stat().st_mtime
    if out.exists() and json.loads(out.read_text('utf-8'))['info'] == made_of:
        return
    from sahi.slicing import slice_coco

    folder = out.parent / TILES / out.stem
    shutil.rmtree(folder, ignore_errors=True)  # of other settings
    tiles, _ = slice_coco(
        str(annotations),
        str(images),
        '',
        str(folder),
        slice_height=side,
        slice_width=side,
        overlap_height_ratio=overlap,
        overlap_width_ratio=overlap,
        out_ext='.png',
    )
    for image in tiles['images']:
        image['file_name'] = os.path.join(TILES, out.stem, image['file_name'])
    whole = json.loads(annotations.read_text('utf-8'))
    write_json(out, {**_joined(tiles, whole, images.resolve()), 'info': made_of})


def _joined(tiles: dict[str, Any], whole: dict[str, Any], images: Path) -> dict[str, Any]:
    """Both sets in one, with ids that are not in the other."""
    new_id = {
        image['id']: number
        for number, image in enumerate(whole['images'], 1 + max(i['id'] for i in tiles['images']))
    }
    both = tiles['images'] + [
        {**image, 'id': new_id[image['id']], 'file_name': str(images / image['file_name'])}
        for image in whole['images']
    ]
    boxes = tiles['annotations'] + [
        {**box, 'image_id': new_id[box['image_id']]} for box in whole['annotations']
    ]
    return dict(
        images=both,
        annotations=[{**box, 'id': number} for number, box in enumerate(boxes, 1)],
        categories=whole['categories'],
    )
