"""Images are kept while chips of them are to come, within bounds, and give the same samples."""

import pickle

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from torch.utils.data import DataLoader

from mmsniper.datasets import chip_dataset
from mmsniper.datasets.image_cache import _FORGOTTEN, ImageCache
from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile


def image(size):
    return dict(img=np.zeros(size, np.uint8), img_path='a.png')


# --- the cache ------------------------------------------------------------------------------------


def test_an_image_is_kept_until_its_last_chip():
    cache = ImageCache(100)
    assert cache.get(7, 2) is None
    cache.put(7, image(10), 2)
    assert cache.get(7, 1)['img_path'] == 'a.png'
    assert cache.get(7, 0) is not None
    assert cache.get(7, 0) is None
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 0)


def test_what_never_comes_again_is_not_kept():
    cache = ImageCache(100)
    cache.put(7, image(10), 0)
    assert len(cache) == 0


def test_no_image_makes_room_for_another():
    cache = ImageCache(25)
    for key in range(3):
        cache.put(key, image(10), 5)
    assert [cache.get(key, 4) is not None for key in range(3)] == [True, True, False]
    cache.put(3, image(26), 5)
    assert len(cache) == 2


def test_what_another_epoch_has_left_makes_room():
    cache = ImageCache(25)
    cache.put(0, image(10), 5)
    cache.put(1, image(10), 5)
    for _ in range(_FORGOTTEN + 1):
        cache.get(1, 4)
    cache.put(2, image(10), 5)
    assert [cache.get(key, 4) is not None for key in range(3)] == [False, True, True]


def test_a_copy_for_a_worker_is_empty():
    cache = ImageCache(25)
    cache.put(0, image(10), 5)
    copied = pickle.loads(pickle.dumps(cache))
    assert (len(copied), copied.max_bytes, copied.misses) == (0, 25, 0)


# --- the data set ---------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the images that were decoded, as often as they were."""
    paths, load = [], LoadLargeImageFromFile.transform

    def transform(self, results):
        paths.append(results['img_path'])
        return load(self, results)

    monkeypatch.setattr(LoadLargeImageFromFile, 'transform', transform)
    return paths


@pytest.fixture
def build(five_images, chips_of, chip_pipeline):
    """Build the data set with pipelines that load by LoadLargeImageFromFile."""

    def make(cache_mb):
        config = chips_of(five_images(name=f'cached_{cache_mb}'), cache_mb=cache_mb)
        large = [dict(type='LoadLargeImageFromFile'), *chip_pipeline[1:]]
        return DATASETS.build({**config, 'pipeline': large})

    return make


def same(a, b):
    one, other = a['data_samples'], b['data_samples']
    assert torch.equal(a['inputs'], b['inputs'])
    assert one.metainfo_keys() == other.metainfo_keys()
    for part in ('gt_instances', 'ignored_instances'):
        mine, theirs = one.get(part), other.get(part)
        assert torch.equal(mine.bboxes.tensor, theirs.bboxes.tensor)
        assert torch.equal(mine.labels, theirs.labels)


def test_samples_are_the_same_and_images_decoded_once(build, make_sampler, decoded):
    dataset = build(cache_mb=10)
    indices = list(make_sampler(dataset, lanes=2))
    samples = [dataset[index] for index in indices]
    once = list(decoded)
    assert len(set(once)) < len(indices)
    # Once, and once more where a lane ends within an image.
    assert len(once) <= len(set(once)) + 1
    assert len(dataset.cache) == 0

    decoded.clear()
    plain = build(cache_mb=0)
    for index, sample in zip(indices, samples):
        same(sample, plain[index])
    assert len(decoded) == len(indices)


def test_what_does_not_fit_is_decoded_again(build, make_sampler, decoded):
    dataset = build(cache_mb=1e-6)
    indices = list(make_sampler(dataset, lanes=2))
    for index in indices:
        dataset[index]
    assert len(decoded) == len(indices)


def test_chips_in_any_order_keep_nothing(build, make_sampler, decoded):
    dataset = build(cache_mb=10)
    indices = list(make_sampler(dataset))
    for index in indices:
        dataset[index]
    assert len(decoded) == len(indices)
    assert len(dataset.cache) == 0


def test_a_transform_that_may_differ_is_run_for_each_chip(build, make_sampler, decoded):
    dataset, seen = build(cache_mb=10), []

    def mine(results):
        seen.append(results['img_path'])
        return results

    load, *others = dataset.pipeline.transforms
    dataset.pipeline = type(dataset.pipeline)([load, mine, *others])
    indices = list(make_sampler(dataset, lanes=2))
    for index in indices:
        dataset[index]
    assert len(seen) == len(indices)
    assert len(decoded) < len(indices)


def test_another_pipeline_starts_with_nothing(build):
    dataset = build(cache_mb=10)
    dataset.cache.put(0, image(10), 3)
    dataset.pipeline = dataset.pipeline
    assert len(dataset.cache) == 0


def test_an_image_that_fails_is_named(build, make_sampler, monkeypatch):
    dataset = build(cache_mb=10)
    indices = [index for index in make_sampler(dataset, lanes=2) if index.left]

    def fail(results):
        raise ValueError('out of luck')

    monkeypatch.setattr(chip_dataset, 'run_checked', lambda transform, results: fail(results))
    with pytest.raises(RuntimeError, match=r'cannot make a sample of positive chip.*out of luck'):
        dataset[indices[0]]


@pytest.mark.parametrize('workers', [1, 2])
def test_each_worker_decodes_its_own_images(build, make_sampler, tmp_path, workers):
    dataset = build(cache_mb=10)
    load = dataset.pipeline.transforms[0]
    log = tmp_path / 'decoded'

    def noted(results, _load=load._load):
        with open(log, 'a') as file:
            print(results['img_path'], file=file)
        return _load(results)

    load._load = noted
    sampler = make_sampler(dataset, lanes=2 * workers)
    loader = DataLoader(
        dataset,
        2,
        sampler=sampler,
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context='fork',
    )
    chips = sum(len(batch) for batch in loader)
    assert chips == len(sampler)
    decoded = log.read_text().split()
    # A lane may end within an image.
    assert len(decoded) <= len(set(decoded)) + 2 * workers - 1 < chips
