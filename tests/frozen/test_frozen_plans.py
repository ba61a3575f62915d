"""Every rank gets the chips that it got when plans were frozen: ``plans.json`` beside this file.

``python tests/frozen/freeze.py plans`` stores them anew. A plan is stored as its number of chips
and a digest of their images, levels, windows and kinds, in order. All of it is integers and
arithmetic that IEEE 754 defines to the last bit, so that machines do not differ; another version of
SciPy (its integer programming) or NumPy (its shuffle) might.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from negative_pools import pool_of

import mmsniper.datasets  # noqa: F401 (registers)
from mmsniper.chips import AnnotationTable, ChipPlan, NegativeChipPool, plan_negative_chips
from mmsniper.testing.toy_dataset import ToyDatasetSpec, coco_annotations

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / 'data', ROOT.parent / 'shared' / 'data']
STORED = Path(__file__).resolve().parent / 'plans.json'
SEED, EPOCHS, WORLD_SIZES, STRATEGIES = 7, (0, 1), (1, 3), ('minimum', 'grid')
TOY = ToyDatasetSpec(seed=3, num_train=12, num_val=1, min_side=400, max_side=900)
# Data set: annotation file, folder of the images, classes, pyramid.
DATA = {
    'coco_tiny': (
        'coco_tiny/annotations/instances_train2017.json',
        'train2017/',
        None,
        'coco_paper',
    ),
    'bccd': ('bccd/train.json', 'images/', ('RBC', 'WBC', 'Platelets'), 'bccd'),
    'toy': (None, 'train/', ('disc', 'ring', 'square', 'cross'), 'toy'),
}


def annotation_file(name: str, scratch: Path) -> Path | None:
    """The data set's annotations; those of the toy scenes are made, the images are not needed."""
    path = DATA[name][0]
    if path is None:
        file = scratch / 'toy.json'
        file.write_text(json.dumps(coco_annotations(TOY, 'train')))
        return file
    return next((folder / path for folder in FOLDERS if (folder / path).is_file()), None)


def plans(name: str, file: Path) -> dict[str, Any]:
    """Numbers and digests of a data set's plans."""
    register_all_modules(init_default_scope=True)
    _, folder, classes, pyramid = DATA[name]
    pyramid = Config.fromfile(ROOT / 'configs' / '_base_' / 'pyramids' / f'{pyramid}.py').pyramid
    images = dict(
        type='CocoDataset',
        ann_file=str(file),
        data_prefix=dict(img=folder),
        metainfo=dict(classes=classes) if classes else {},
        data_root='data/',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
    )
    chips = dict(type='ChipDataset', dataset=images, pipeline=[dict(type='LoadImageFromFile')])
    dataset = DATASETS.build(chips)
    found = {}
    for strategy in STRATEGIES:
        sampler = DATA_SAMPLERS.build(
            dict(
                type='ChipAwareSampler',
                dataset=dataset,
                pyramid=pyramid,
                strategy=strategy,
                seed=SEED,
            )
        )
        found[strategy] = dict(positive=shares(sampler))
        pool = made_up_pool(sampler)
        found[strategy]['pool'] = chips_digest(zip(pool.chips.image, *columns(pool.chips)))
        sampler.set_negatives(pool)
        found[strategy]['positive and negative'] = shares(sampler)
    return found


def columns(plan: Any) -> tuple[Any, ...]:
    return plan.level, plan.box, plan.kind


def shares(sampler: Any) -> dict[str, Any]:
    """What each rank of several gets, in the order in which it gets it."""
    found = {}
    for epoch in EPOCHS:
        sampler.set_epoch(epoch)
        for size in WORLD_SIZES:
            for rank in range(size):
                sampler.rank, sampler.world_size = rank, size
                found[f'epoch {epoch}, rank {rank} of {size}'] = chips_digest(
                    (int(index), index.chip.level, index.chip.box, index.chip.kind)
                    for index in sampler
                )
    sampler.set_epoch(0)
    return found


def chips_digest(chips: Iterable[tuple[Any, ...]]) -> str:
    """Number and digest of (image, level, window, kind)."""
    parts = list(zip(*chips)) or [(), (), (), ()]
    types = ('<i4', '<i1', '<f4', '<i1')
    content = b''.join(np.array(part, kind).tobytes() for part, kind in zip(parts, types))
    return f'{len(parts[0])} chips, {hashlib.sha256(content).hexdigest()[:16]}'


def made_up_pool(sampler: Any) -> NegativeChipPool:
    """A pool of the negative chips of proposals that lie in heaps all over the images."""
    infos = [sampler.dataset.get_data_info(i) for i in range(len(sampler.dataset))]
    sizes = [(info['width'], info['height']) for info in infos]
    table = AnnotationTable.from_images(
        (*size, heaps(i, *size), None) for i, size in enumerate(sizes)
    )
    found = plan_negative_chips(table, sampler.positives(), sampler.pyramid, (12, 6))
    paths = [info['img_path'] for info in infos]
    return pool_of(sampler.pyramid, paths, table, found, ChipPlan.empty())


def heaps(image: int, width: int, height: int) -> np.ndarray:
    """Proposals of an image: whole pixels, from the generator that NumPy promises not to change."""
    rng, boxes = np.random.RandomState(image), []
    for _ in range(6):
        centre = rng.randint(0, width), rng.randint(0, height)
        largest = rng.randint(12, 160)
        corner = np.array(centre) + rng.randint(-30, 31, (25, 2))
        boxes.append(np.hstack([corner, corner + rng.randint(6, largest, (25, 2))]))
    boxes = np.vstack(boxes).clip(0, [width, height] * 2)
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= 4).all(axis=1)].astype(np.float32)


def freeze() -> None:
    """Store the plans of every data set; all must be there."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in DATA:
            file = annotation_file(name, Path(scratch))
            if file is None:
                raise FileNotFoundError(f'data/{DATA[name][0]} is not there')
            found[name] = plans(name, file)
    STORED.write_text(json.dumps(found, indent=1) + '\n')


@pytest.mark.parametrize('name', DATA)
def test_the_plans_are_the_frozen_ones(name, tmp_path):
    file = annotation_file(name, tmp_path)
    if file is None:
        pytest.skip(f'data/{DATA[name][0]} is not there')
    assert plans(name, file) == json.loads(STORED.read_text())[name]


@pytest.mark.parametrize('name', DATA)
def test_what_is_frozen_has_negative_chips_and_differs_where_it_should(name):
    for found in json.loads(STORED.read_text())[name].values():
        positive, both = found['positive'], found['positive and negative']
        assert int(found['pool'].split()[0]) >= 10
        for key in positive:
            assert int(both[key].split()[0]) > int(positive[key].split()[0])
        assert len({*positive.values(), *both.values()}) == len(positive) + len(both)
