"""Toy scenes of any size, whose objects are known: blocks of toy scenes and of background."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmsniper.testing import ToyDatasetSpec, ToyScene, coco_annotations, render_scene
from mmsniper.utils.command_line import progress
from mmsniper.utils.files import write_json

BLOCK = 1000
"""Side of a block, px: that of the toy scenes which the detector was trained on."""

ANNOTATIONS, IMAGES = 'annotations.json', 'images'
_BACKGROUNDS = 12  # different ones
_QUALITY = 92  # of the toy data set's JPEGs


@dataclass(frozen=True)
class SceneSize:
    """Square scenes of one size.

    Args:
        blocks (int): Blocks along a side; their square is the number of megapixels.
        filled (int): How many of the blocks have objects.
        count (int): Number of scenes. Defaults to 1.
        rounds (int): In how many rounds they are measured. Defaults to 1.

    Raises:
        ValueError: If there are more filled blocks than blocks.
    """

    blocks: int
    filled: int
    count: int = 1
    rounds: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.filled <= self.blocks**2:
            raise ValueError(f'{self.filled} of {self.blocks**2} blocks cannot have objects')

    @property
    def name(self) -> str:
        """Megapixels, and in how many there are objects."""
        return f'{self.blocks**2} MP, objects in {self.filled} MP'


def write_scenes(folder: Path, sizes: Sequence[SceneSize], seed: int = 1) -> dict[str, Any]:
    """Make scenes and their annotations, or take those that an earlier call has made.

    Args:
        folder (Path): Where ``images/`` and ``annotations.json`` go.
        sizes (Sequence[SceneSize]): The scenes.
        seed (int): Seed of all scenes. Defaults to 1, not the toy data set's.

    Returns:
        dict: COCO annotations. An image's ``size`` is the name of its :class:`SceneSize`.
    """
    info = dict(sizes=[asdict(size) for size in sizes], seed=seed)
    path = folder / ANNOTATIONS
    if path.is_file():
        content = json.loads(path.read_text('utf-8'))
        if content['info'] == info:
            return content
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    spec = ToyDatasetSpec(
        seed=seed,
        num_train=1,
        num_val=sum(size.filled * size.count for size in sizes),
        min_side=BLOCK,
        max_side=BLOCK,
    )
    toy = coco_annotations(spec, 'val')
    backgrounds = [
        render_scene(ToyScene(BLOCK, BLOCK, (), (seed, 2, i))) for i in range(_BACKGROUNDS)
    ]
    images, annotations = [], []
    number, rng = 0, np.random.default_rng(seed)
    wanted = [size for size in sizes for _ in range(size.count)]
    for image_id, size in enumerate(progress(wanted, 'making scenes'), 1):
        side = size.blocks * BLOCK
        scene = np.empty((side, side, 3), np.uint8)
        filled = set(rng.choice(size.blocks**2, size.filled, replace=False).tolist())
        for block in range(size.blocks**2):
            top, left = (BLOCK * place for place in divmod(block, size.blocks))
            part = backgrounds[rng.integers(_BACKGROUNDS)]
            if block in filled:
                part = render_scene(spec.scene('val', number))
                number += 1
                annotations += [
                    _moved(one, image_id, left, top)
                    for one in toy['annotations']
                    if one['image_id'] == number
                ]
            scene[top : top + BLOCK, left : left + BLOCK] = part
        name = f'{image_id:03}_{size.blocks**2}mp.jpg'
        cv2.imwrite(str(folder / IMAGES / name), scene, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        images.append(dict(id=image_id, file_name=name, width=side, height=side, size=size.name))
    content = dict(info=info, images=images, annotations=annotations, categories=toy['categories'])
    write_json(path, content)
    return content


def _moved(annotation: dict[str, Any], image_id: int, left: int, top: int) -> dict[str, Any]:
    """An annotation of a block as one of its scene; it keeps its number, and no outline."""
    x, y, width, height = annotation['bbox']
    kept = {key: annotation[key] for key in ('id', 'category_id', 'area', 'iscrowd')}
    return dict(kept, image_id=image_id, bbox=[x + left, y + top, width, height])
