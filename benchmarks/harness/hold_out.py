"""Hold out a part of a training set, on which settings are chosen: never on the validation set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmsniper.utils.files import write_json


def hold_out(
    annotations: Path, is_held_out: Callable[[Mapping[str, Any]], bool], folder: Path
) -> tuple[Path, Path]:
    """Divide the images of a COCO annotation file.

    Args:
        annotations (Path): The training set's file.
        is_held_out (Callable): Of an image's entry, whether it is held out.
        folder (Path): Where the two files go.

    Returns:
        tuple[Path, Path]: The file to train on, ``fit.json``, and that to test on,
        ``held_out.json``.

    Raises:
        ValueError: If one of them would have no image.
    """
    content = json.loads(annotations.read_text('utf-8'))
    parts: dict[bool, list[Any]] = {False: [], True: []}
    for image in content['images']:
        parts[bool(is_held_out(image))].append(image)
    files = []
    for held, name in ((False, 'fit.json'), (True, 'held_out.json')):
        if not parts[held]:
            raise ValueError(f'{annotations}: no image would be in {name}')
        ids = {image['id'] for image in parts[held]}
        boxes = [box for box in content['annotations'] if box['image_id'] in ids]
        files.append(folder / name)
        write_json(files[-1], {**content, 'images': parts[held], 'annotations': boxes})
    return files[0], files[1]
