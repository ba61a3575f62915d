"""A toy data set of :mod:`toy scenes <mmsniper.testing.toy_scenes>` on disk, in COCO format.

Layout::

    DIR/toy_dataset.json              what the data set was made from
    DIR/annotations/{train,val}.json  COCO annotations; written when all images of a split are there
    DIR/{train,val}/000001.jpg        images
    DIR/annfiles/{train,val}/000001.txt  of a rotated data set: corners, as DOTA has them

A file that exists is whole, and an interrupted run is finished by running it again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmsniper.testing.toy_scenes import (
    CLASSES,
    SPLITS,
    ToyObject,
    ToyScene,
    plan_scene,
    render_scene,
)

# Raised when a change of the scenes makes data sets of the same arguments differ.
GENERATOR_VERSION = 1
RECORD = 'toy_dataset.json'
JPEG_QUALITY = 92
DOTA_FOLDER = 'annfiles'

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class ToyDatasetSpec:
    """What a toy data set is made from: the same spec gives the same files.

    Args:
        seed (int): Seed of all randomness. Defaults to 0.
        num_train (int): Number of training images. Defaults to 240.
        num_val (int): Number of validation images. Defaults to 60.
        min_side (int): Smallest width and height of an image, px. Defaults to 800.
        max_side (int): Largest width and height of an image, px. Defaults to 1200.
        rotated (bool): Whether shapes are elongated, lie at any angle and are annotated by their
            corners, in DOTA's format too. Defaults to False.

    Raises:
        ValueError: If a field has an impossible value.
    """

    seed: int = 0
    num_train: int = 240
    num_val: int = 60
    min_side: int = 800
    max_side: int = 1200
    rotated: bool = False

    def __post_init__(self) -> None:
        for name, minimum in (('seed', 0), ('num_train', 1), ('num_val', 1), ('min_side', 200)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ValueError(f'{name} must be an integer of at least {minimum}, got {value!r}')
        if not isinstance(self.max_side, int) or self.max_side < self.min_side:
            raise ValueError(
                f'max_side must be an integer of at least min_side ({self.min_side}), '
                f'got {self.max_side!r}'
            )

    def count(self, split: str) -> int:
        """Number of images of a split."""
        return {'train': self.num_train, 'val': self.num_val}[split]

    def scene(self, split: str, index: int) -> ToyScene:
        """Plan of the ``index``-th image (from 0) of a split."""
        sides = self.min_side, self.max_side
        return plan_scene(self.seed, split, index, sides, self.rotated)

    def record(self) -> dict[str, Any]:
        """What identifies the data set, as stored beside it and in the annotations' ``info``."""
        made_by = {'description': 'mmsniper toy data set', 'version': GENERATOR_VERSION}
        arguments = asdict(self)
        if not self.rotated:  # as in the data sets that were made before there were rotated ones
            del arguments['rotated']
        return {**made_by, **arguments}


def make_toy_dataset(
    out_dir: str | os.PathLike,
    spec: ToyDatasetSpec | None = None,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Make a toy data set, finish an interrupted one, or leave a complete one as it is.

    Args:
        out_dir (str | os.PathLike): Directory of the data set.
        spec (ToyDatasetSpec, optional): What to make. Defaults to ``ToyDatasetSpec()``.
        processes (int, optional): Worker processes. Defaults to None, one for each core.
        overwrite (bool): Replace a toy data set that was made from another spec. Defaults to False.
        progress (Callable, optional): Wraps the iterable of finished images; called with it and its
            length, e.g. ``lambda it, n: tqdm(it, total=n)``. Defaults to None.

    Returns:
        dict[str, Path]: Annotation file of each split.

    Raises:
        FileExistsError: If ``out_dir`` holds a toy data set of another spec (and not
            ``overwrite``), or files that are not a toy data set's.
    """
    out_dir, spec = Path(out_dir), spec or ToyDatasetSpec()
    _claim(out_dir, spec, overwrite)
    for folder in (*SPLITS, 'annotations'):
        (out_dir / folder).mkdir(exist_ok=True)
    jobs = [(out_dir / split, spec, split, i) for split in SPLITS for i in range(spec.count(split))]
    missing = [job for job in jobs if not (job[0] / _file_name(job[3])).exists()]
    if missing:
        _render_all(missing, processes, progress)
    annotations = _annotation_files(out_dir)
    for split, path in annotations.items():
        if not path.exists():
            if spec.rotated:
                _write_dota_annotations(out_dir / DOTA_FOLDER / split, spec, split)
            _write(path, json.dumps(coco_annotations(spec, split)).encode())
    return annotations


def coco_annotations(spec: ToyDatasetSpec, split: str) -> dict[str, Any]:
    """COCO annotations of a split, and beside COCO's own keys ``distractors``: the look-alikes.

    They are as ``annotations``, with the class that each resembles as ``category_id``. Benchmarks
    count false positives with them. In a rotated data set ``segmentation`` is the rectangle around
    an object, ``area`` is its area, and ``bbox`` encloses it.

    Args:
        spec (ToyDatasetSpec): The data set.
        split (str): 'train' or 'val'.

    Returns:
        dict[str, Any]: Ready for ``json.dump``.
    """
    entry = _rotated_entry if spec.rotated else _entry
    images, annotations, distractors = [], [], []
    for index in range(spec.count(split)):
        scene = spec.scene(split, index)
        file_name = _file_name(index)
        images.append(dict(file_name=file_name, width=scene.width, height=scene.height))
        annotations += [entry(item, index + 1) for item in scene.labelled]
        distractors += [entry(item, index + 1) for item in scene.lookalikes]
    return {
        'info': {**spec.record(), 'split': split},
        'licenses': [],
        'categories': _numbered([dict(name=name, supercategory='shape') for name in CLASSES]),
        'images': _numbered(images),
        'annotations': _numbered(annotations),
        'distractors': _numbered(distractors),
    }


def dota_annotations(scene: ToyScene) -> str:
    """DOTA's annotations of a scene: a line for each object, corners, class and difficulty."""
    lines = []
    for item in scene.labelled:
        corners = ' '.join(f'{value:.2f}' for value in item.corners.reshape(-1))
        lines.append(f'{corners} {CLASSES[item.label]} 0\n')
    return ''.join(lines)


def _write_dota_annotations(folder: Path, spec: ToyDatasetSpec, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(spec.count(split)):
        path = folder / _file_name(index, 'txt')
        _write(path, dota_annotations(spec.scene(split, index)).encode())


def _numbered(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{'id': number, **entry} for number, entry in enumerate(entries, 1)]


def _entry(item: ToyObject, image_id: int) -> dict[str, Any]:
    left, top, right, bottom = (float(v) for v in np.round(item.box, 2))
    width, height = round(right - left, 2), round(bottom - top, 2)
    return {
        'image_id': image_id,
        'category_id': item.label + 1,
        'bbox': [left, top, width, height],
        'area': round(width * height, 2),
        'iscrowd': 0,
        'segmentation': [np.round(item.polygon, 2).reshape(-1).tolist()],
    }


def _rotated_entry(item: ToyObject, image_id: int) -> dict[str, Any]:
    corners = [np.round(item.corners, 2).reshape(-1).tolist()]
    area = round(item.size**2, 2)
    return {**_entry(item, image_id), 'area': area, 'segmentation': corners}


def _file_name(index: int, suffix: str = 'jpg') -> str:
    return f'{index + 1:06d}.{suffix}'


def _annotation_files(out_dir: Path) -> dict[str, Path]:
    return {split: out_dir / 'annotations' / f'{split}.json' for split in SPLITS}


def _write(path: Path, content: bytes) -> None:
    # Not `replacing`: under a name without the process's number, what a kill leaves is overwritten.
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _claim(out_dir: Path, spec: ToyDatasetSpec, overwrite: bool) -> None:
    """Make sure that ``out_dir`` is this data set's, and say so in its record."""
    record, wanted = out_dir / RECORD, spec.record()
    found = _read_record(record)
    if found == wanted:
        return
    annotations = _annotation_files(out_dir).values()
    folders = [out_dir / name for name in (*SPLITS, DOTA_FOLDER)]
    if found is None and any(path.exists() for path in (*annotations, *folders)):
        raise FileExistsError(
            f'{out_dir} holds a data set that is not a toy data set (it has no {RECORD}); choose '
            f'another directory'
        )
    if found is not None and not overwrite:
        # `rotated` is only in the records of data sets that are.
        made, asked = ({'rotated': False, **record} for record in (found, wanted))
        differences = ', '.join(
            f'{key}={made.get(key)!r} (asked for: {value!r})'
            for key, value in asked.items()
            if made.get(key) != value
        )
        raise FileExistsError(
            f'{out_dir} holds a toy data set made with {differences}; choose another directory, '
            f'or let it be replaced (overwrite=True, --overwrite)'
        )
    # Annotations first: where they are, a split is complete.
    names = [f'{folder}/{"[0-9]" * 6}' for folder in SPLITS]
    images = (path for name in names for path in out_dir.glob(f'{name}.jpg'))
    corners = (path for name in names for path in out_dir.glob(f'{DOTA_FOLDER}/{name}.txt'))
    for path in (*annotations, *corners, *images):
        path.unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    _write(record, json.dumps(wanted, indent=2).encode())


def _read_record(record: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(record.read_text('utf-8'))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FileExistsError(f'{record} is not the record of a toy data set: {error}') from None
    return content if isinstance(content, dict) else {}


def _render_all(
    jobs: list[tuple[Path, ToyDatasetSpec, str, int]],
    processes: int | None,
    progress: Progress | None,
) -> None:
    available = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    processes = max(1, min(available or 1 if processes is None else processes, len(jobs)))
    progress = progress or (lambda iterable, total: iterable)
    if processes == 1:
        for _ in progress(map(_write_image, jobs), len(jobs)):
            pass
        return
    # Not fork: OpenCV's own threads do not survive it.
    context = multiprocessing.get_context('spawn')
    with context.Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for _ in progress(pool.imap_unordered(_write_image, jobs), len(jobs)):
            pass


def _write_image(job: tuple[Path, ToyDatasetSpec, str, int]) -> None:
    folder, spec, split, index = job
    image = render_scene(spec.scene(split, index))
    encoded, buffer = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise RuntimeError(f'OpenCV could not encode image {index} of {split} as JPEG')
    _write(folder / _file_name(index), buffer.tobytes())
